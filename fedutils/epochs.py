"""The one loop of centralised training, on Keras ``fit``: any model, loss and data, an epoch at a time.

AdamW [1]_ under a cosine schedule [2]_, the best epoch chosen on validation data, and a checkpoint after
every epoch: a run that is killed at any moment, and called again, ends with the same weights, bit for bit, as
one that never was.

References
----------
.. [1] I. Loshchilov and F. Hutter, "Decoupled Weight Decay Regularization", ICLR 2019.
.. [2] I. Loshchilov and F. Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017.
.. [3] P. Micikevicius et al., "Mixed Precision Training", ICLR 2018.
"""

import fedutils.quiet  # noqa: F401  (first: it quietens the import of TensorFlow)

# isort: split
import contextlib
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tqdm.auto import tqdm

from fedutils.errors import DivergenceError, InputError
from fedutils.locks import hold
from fedutils.runs import Run, load_checkpoint, save_run, sweep


def train_epochs(
    model: keras.Model,
    batches: Callable[[int], tf.data.Dataset],
    measure: Callable[[keras.Model], dict[str, float]],
    *,
    loss: keras.losses.Loss,
    num_epochs: int,
    learning_rate: float,
    steps_per_epoch: int | None = None,
    warmup_steps: int = 0,
    weight_decay: float = 1e-4,
    clip_norm: float | None = None,
    choose_by: str = "accuracy",
    patience: int | None = None,
    loss_weights: Sequence[float] | None = None,
    class_weights: Sequence[float] | None = None,
    metrics: Sequence = (),
    folder: Path | None = None,
    label: str = "training",
) -> Run:
    """Train with AdamW under a cosine schedule and leave the best epoch's weights in `model`.

    Parameters
    ----------
    model : keras.Model
        Built; gives logits; changed in place. Built inside `use_mixed_precision`, it computes in bfloat16.
    batches : callable
        From the epoch (from 0) to a data set of (x, y) or (x, y, sample weights); the same one whenever it is
        asked, so that a resumed run sees what it would have seen. Of a model with several outputs (deep
        supervision), the one y serves all.
    measure : callable
        From the model to validation quantities, such as ``{"loss": 0.4, "dice": 0.8}``.
    loss : keras.losses.Loss
        Of each output.
    num_epochs : int
        Planned; the cosine ends with them, whether or not training stops before.
    learning_rate : float
        The highest; it falls to 0 along the cosine.
    steps_per_epoch : int, optional
        Batches of an epoch; of longer data sets the first ones are taken. By default all of them.
    warmup_steps : int
        First steps, in which the learning rate rises from 0.
    weight_decay : float
    clip_norm : float, optional
        Largest global L2 norm of the gradients of a step.
    choose_by : str
        The quantity of `measure` whose highest value marks the best epoch, or "-loss" for the lowest loss.
    patience : int, optional
        Stop after so many epochs that were not better than the best before them.
    loss_weights : sequence of float, optional
        One an output; 1 each by default.
    class_weights : sequence of float, optional
        One a class, of integer labels (B,): an image's loss is multiplied by that of its class. See
        `fedutils.centralized.compute_class_weights`.
    metrics : sequence
        Of training, as of ``keras.Model.compile``.
    folder : Path, optional
        Gets ``checkpoint.npz`` after every epoch and, in its place, ``run.npz`` when the run is finished. One
        that is there goes on, or is read, if these settings and the shapes of the weights are the same; else
        training starts anew. Data, loss and initial weights are not compared: `fedutils.runs.run_folder`
        gives each setting its own folder. Another process that trains there is waited for.
    label : str
        On the progress bar.

    Returns
    -------
    Run
        With one record an epoch: ``epoch``, ``training_loss`` and other training metrics, ``validation_*``,
        ``seconds``. ``run.planned`` epochs were planned and ``len(run.history)`` done.

    Raises
    ------
    InputError
        If the arguments do not fit each other or the data.
    DivergenceError
        If the training loss is no longer a finite number.
    """
    if steps_per_epoch is None:
        steps_per_epoch = _count_steps(batches(0))
    planned_steps = num_epochs * steps_per_epoch
    _check(model, planned_steps, warmup_steps, patience, loss_weights, class_weights)
    settings = {
        "num_epochs": num_epochs,
        "steps_per_epoch": steps_per_epoch,
        "learning_rate": learning_rate,
        "warmup_steps": warmup_steps,
        "weight_decay": weight_decay,
        "clip_norm": clip_norm,
        "choose_by": choose_by,
        "patience": patience,
        "loss_weights": None if loss_weights is None else [float(w) for w in loss_weights],
        "class_weights": None if class_weights is None else [float(w) for w in class_weights],
        "shapes": [list(v.shape) for v in _list_variables(model)],
    }

    def is_finished(run):
        stalled = len(run.history) - 1 - run.best
        return len(run.history) >= num_epochs or (patience is not None and stalled >= patience)

    with hold(folder):  # another process may have this run in hand
        run, state = _load(folder, num_epochs, settings) or (Run(num_epochs, choose_by), None)
        if not is_finished(run):
            schedule = keras.optimizers.schedules.CosineDecay(
                0.0 if warmup_steps else learning_rate,
                planned_steps - warmup_steps,
                warmup_target=learning_rate if warmup_steps else None,
                warmup_steps=warmup_steps,
            )
            optimizer = keras.optimizers.AdamW(schedule, weight_decay=weight_decay, global_clipnorm=clip_norm)
            outputs = len(model.outputs)
            model.compile(
                optimizer,
                loss if outputs == 1 else [loss] * outputs,
                loss_weights=None if loss_weights is None else [float(w) for w in loss_weights],
                metrics=list(metrics) or None,
                jit_compile=False,  # XLA on a CPU compiles for long and computes convolutions more slowly
            )
            optimizer.build(model.trainable_variables)
            variables = [*_list_variables(model), *optimizer.variables]
            if state is not None:
                _assign(variables, state)
            weighing = None if class_weights is None else dict(enumerate(map(float, class_weights)))
            with tqdm(desc=label, unit="epoch", initial=len(run.history), total=num_epochs) as bar:
                while not is_finished(run):
                    start, epoch = time.perf_counter(), len(run.history)
                    data = _repeat_labels(batches(epoch), outputs, class_weights)
                    fitted = _fit(model, data, epoch, steps_per_epoch, weighing)
                    measured = measure(model)
                    _check_choice(choose_by, measured)
                    entry = {
                        "epoch": epoch + 1,
                        **{f"training_{name}": value for name, value in fitted.items()},
                        **{f"validation_{name}": float(value) for name, value in measured.items()},
                        "seconds": time.perf_counter() - start,
                    }
                    run.record(entry, _read(_list_variables(model)))
                    if folder and not is_finished(run):
                        save_run(
                            Path(folder) / "checkpoint.npz", run, settings=settings, state=_read(variables)
                        )
                    shown = f"{measured[choose_by.removeprefix('-')]:.3f}"
                    bar.set_postfix(validation=shown, refresh=False)
                    bar.update()
            if folder:
                save_run(Path(folder) / "run.npz", run, settings=settings)
                (Path(folder) / "checkpoint.npz").unlink(missing_ok=True)
    _assign(_list_variables(model), run.weights)
    return run


@contextlib.contextmanager
def use_mixed_precision():
    """Build models that compute in bfloat16 and keep their weights in float32 [3]_.

    ``with use_mixed_precision(): model = build_unet(...)``. The policy belongs to the layers that are built
    inside: training, saving and loading keep it. bfloat16 has the range of float32, so that the loss needs no
    scaling. It saves memory and, on processors that multiply it natively, time; on others it costs time.
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _list_variables(model):
    """List all that a model learns or counts: trainable weights, then BatchNorm's statistics and seeds."""
    return [*model.trainable_variables, *model.non_trainable_variables]


def _read(variables):
    return [v.numpy() for v in variables]


def _assign(variables, values):
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _load(folder, num_epochs, settings):
    """Return the finished run of these settings, or the last checkpoint, or None."""
    if not folder:
        return None
    sweep(folder)
    files = (Path(folder) / name for name in ("run.npz", "checkpoint.npz"))
    found = (load_checkpoint(file, num_epochs, settings) for file in files)
    return next((checkpoint for checkpoint in found if checkpoint), None)


def _count_steps(data):
    steps = int(data.cardinality())
    if steps < 1:
        raise InputError(
            "steps_per_epoch: expected a number, since the data set has no batch or does not know how many, "
            "found None; give it"
        )
    return steps


def _check(model, planned_steps, warmup_steps, patience, loss_weights, class_weights):
    """Raise InputError where the arguments do not fit."""
    if planned_steps < 1:
        raise InputError(
            f"num_epochs and steps_per_epoch: expected at least 1 each, found {planned_steps} steps in all; "
            "raise them"
        )
    if not 0 <= warmup_steps < planned_steps:
        raise InputError(
            f"warmup_steps: expected 0 to {planned_steps - 1}, found {warmup_steps}; "
            f"lower it, since {planned_steps} steps are planned"
        )
    if patience is not None and patience < 1:
        raise InputError(f"patience: expected at least 1 epoch, found {patience}; raise it or leave it out")
    outputs = len(model.outputs)
    if loss_weights is not None and len(loss_weights) != outputs:
        raise InputError(
            f"loss_weights: expected {outputs}, one for each output of {model.name}, found "
            f"{len(loss_weights)}; give as many"
        )
    if class_weights is not None and outputs > 1:
        raise InputError(
            f"class_weights: expected a model of one output, found {outputs}; leave them out, or give the "
            "batches sample weights"
        )


def _repeat_labels(data, outputs, class_weights):
    """Give each output the labels, which class weights must be able to look up."""
    if class_weights is not None:
        labels = data.element_spec[1]
        if labels.shape.rank != 1 or not labels.dtype.is_integer:
            raise InputError(
                f"class_weights: expected integer labels of shape (B,), found {labels.dtype.name} "
                f"{labels.shape}; leave them out, or give the batches sample weights"
            )
    if outputs > 1:
        data = data.map(lambda x, *rest: (x, *((part,) * outputs for part in rest)))
    return data


def _fit(model, data, epoch, steps, weighing):
    """Train one epoch; return what Keras measured, one value each."""
    with warnings.catch_warnings():
        # At the end of the data Keras may count a step that it did not take: no run goes on from there.
        warnings.filterwarnings("error", "Your input ran out of data", UserWarning)
        try:
            options = {"steps_per_epoch": steps, "class_weight": weighing, "shuffle": False, "verbose": 0}
            fitted = model.fit(data, **options).history
        except UserWarning:
            raise InputError(
                f"batches({epoch}): expected {steps} batches, found fewer; lower steps_per_epoch, or repeat "
                "the data set"
            ) from None
    if not np.isfinite(fitted["loss"][0]):
        raise DivergenceError(
            f"training loss of epoch {epoch + 1}: expected a finite number, found {fitted['loss'][0]}; "
            "lower learning_rate or set clip_norm"
        )
    return {name: values[0] for name, values in fitted.items()}


def _check_choice(choose_by, measured):
    if choose_by.removeprefix("-") not in measured:
        raise InputError(
            f"choose_by: expected one of {', '.join(measured)}, which measure gives, or a minus and one of "
            f"them, found {choose_by!r}; choose by one of them"
        )
