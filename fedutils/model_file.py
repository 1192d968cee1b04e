"""A ``.keras`` file that says what it is: what it takes and gives, what it was trained on, how good it is.

It is the file that Keras writes, with one more entry, ``fedutils.json``: `keras.saving.load_model` opens it
as any other, once this module is imported, which knows the layers. The optimizer's state is left out and
dates are fixed, so that the same model gives the same bytes. Nothing in a file is ever executed: it may name
layers of Keras and of `fedutils.models` only.
"""

import fedutils.quiet  # (first: it quietens the import of TensorFlow)

# isort: split
import dataclasses
import io
import json
import tempfile
import warnings
import zipfile
import zlib
from pathlib import Path

import keras
import numpy as np

import fedutils.models.attention
import fedutils.models.blocks
import fedutils.models.layers  # noqa: F401  (registers the layers that files name)
from fedutils.errors import InputError
from fedutils.model_info import ModelInfo, make_card, parse_info
from fedutils.results import to_json, write_atomic

MOST_BYTES = 10_000_000
_INFO, _CONFIG, _METADATA = "fedutils.json", "config.json", "metadata.json"
_MOST_UNPACKED = 20 * MOST_BYTES  # a small archive can claim any size
_DATE = (1980, 1, 1, 0, 0, 0)  # the first that a zip knows
_MODULES = {
    "keras",
    "keras.layers",
    "keras.initializers",
    "keras.regularizers",
    "keras.constraints",
    "keras.src.models.functional",
    "keras.src.models.sequential",
}
_RUN_CODE = {"Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer", "function", "__lambda__"}


def save_model(path: Path, model: keras.Model, info: ModelInfo) -> None:
    """Write a model, and its card beside it (``brain_mri.keras`` and ``brain_mri.md``).

    Parameters
    ----------
    path : Path
        Ends in ``.keras``; a file that is there is replaced in one step.
    model : keras.Model
        Unchanged; a model in memory may be compiled, the one in the file is not.
    info : ModelInfo

    Raises
    ------
    InputError
        If the name has another ending, the model does not fit the info or has weights that are not finite,
        or the file would be larger than 10 MB; nothing is written then.
    """
    path = Path(path)
    if path.suffix != ".keras":
        raise InputError(f"{path}: expected a name that ends in .keras, found {path.name!r}; rename it")
    _check_fit(path, model, info)
    values = zip(model.weights, model.get_weights(), strict=True)
    if bad := [weight.path for weight, value in values if not np.isfinite(value).all()]:
        raise InputError(
            f"{path}: expected finite weights, found NaN or infinity in {bad[0]}; train it again"
        )
    bare = type(model).from_config(model.get_config())  # not compiled: without the optimizer
    bare.set_weights(model.get_weights())
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "model.keras"
        with warnings.catch_warnings():
            # Keras 3.15 turns its variables into arrays in a way that NumPy 2.4 calls old.
            warnings.filterwarnings("ignore", category=DeprecationWarning, module="keras")
            keras.saving.save_model(bare, plain)
        with zipfile.ZipFile(plain) as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
    entries[_METADATA] = json.dumps(
        json.loads(entries[_METADATA]) | {"date_saved": "1980-01-01@00:00:00"}
    ).encode()
    entries[_INFO] = to_json(dataclasses.asdict(info)).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in sorted(entries):
            entry = zipfile.ZipInfo(name, _DATE)
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, entries[name])
    data = buffer.getvalue()
    if len(data) > MOST_BYTES:
        raise InputError(
            f"{path}: expected a file of at most {MOST_BYTES / 1e6:g} MB, found {len(data) / 1e6:.1f} MB for "
            f"{model.count_params():,} parameters; build a narrower model"
        )
    write_atomic(path, data)
    write_atomic(path.with_suffix(".md"), make_card(info, path.name).encode())


def load_model(path: Path) -> tuple[keras.Model, ModelInfo]:
    """Read a model that `save_model` wrote.

    Returns
    -------
    model : keras.Model
        Gives the same output, bit for bit, as the one that was saved; not compiled.
    info : ModelInfo

    Raises
    ------
    InputError
        If the file is missing, no archive, cut short, damaged, does not say what it is, was written by a
        newer version, holds code, or does not fit its own description.
    """
    path = Path(path)
    info_text, config_text = _read_entries(path)
    info = parse_info(path, info_text)
    _refuse_code(path, config_text)
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # whatever Keras raises for what it cannot build; it has no one kind
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{path}: expected a model that Keras {keras.__version__} can build, found: {reason}; "
            "download or train it again"
        ) from error
    _check_fit(path, model, info)
    return model, info


def _read_entries(path: Path) -> tuple[str, str]:
    """Return the info and the configuration of a file, once all of it was read and is whole."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path}: expected a model file, found: {error.strerror}; point --model to a .keras file"
        ) from error
    if path.suffix != ".keras" or not data.startswith(b"PK"):
        raise InputError(
            f"{path}: expected a .keras file, which is a zip archive, found another kind of file; "
            "point --model to a .keras file"
        )
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
            if size > _MOST_UNPACKED:
                raise InputError(
                    f"{path}: expected at most {_MOST_UNPACKED / 1e6:g} MB unpacked, found {size / 1e6:.0f} "
                    "MB; use a file that fedutils wrote"
                )
            names = archive.namelist()
            if damaged := archive.testzip():
                raise zipfile.BadZipFile(f"wrong checksum of {damaged}")
            if _CONFIG not in names:
                raise InputError(
                    f"{path}: expected a model of Keras 3, found an archive without {_CONFIG}; "
                    "use a file that fedutils wrote"
                )
            if _INFO not in names:
                raise InputError(
                    f"{path}: expected a model that says what it takes and gives, found a Keras file without "
                    f"{_INFO}; describe it by a ModelInfo and write it with fedutils.model_file.save_model"
                )
            return archive.read(_INFO).decode(), archive.read(_CONFIG).decode()
    except (zipfile.BadZipFile, zlib.error, EOFError, UnicodeDecodeError, NotImplementedError) as error:
        raise InputError(
            f"{path}: expected a whole .keras file, found one that is damaged or cut short ({error}); "
            "download it again"
        ) from error


def _refuse_code(path: Path, config_text: str) -> None:
    """Refuse a configuration that names anything but layers of Keras and of fedutils."""
    try:
        waiting = [json.loads(config_text)]
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: expected a model's configuration, found: {error}; replace it") from error
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += value
        elif isinstance(value, dict):
            waiting += value.values()
            module, name = value.get("module"), value.get("class_name")
            known = module in (None, *_MODULES) or str(module).startswith("fedutils.models.")
            if isinstance(name, str) and (name in _RUN_CODE or not known):
                raise InputError(
                    f"{path}: expected layers of Keras and fedutils only, found {module}.{name}, which may "
                    "run code; do not open this file"
                )


def _check_fit(path: Path, model: keras.Model, info: ModelInfo) -> None:
    """Refuse a model that does not take or give what its description says."""
    if not getattr(model, "outputs", None):
        raise InputError(
            f"{path}: expected a model of Keras's functional interface, found {type(model).__name__}; "
            "build it from keras.Input to its outputs"
        )
    shape = model.input_shape
    channels, sides = shape[-1], shape[1:-1]
    fits = all(side in (None, wanted) for side, wanted in zip(sides, info.size, strict=False))
    if channels != len(info.modalities) or len(sides) != len(info.size) or not fits:
        raise InputError(
            f"{path}: expected a model of images {'x'.join(map(str, info.size))} with "
            f"{len(info.modalities)} channels ({', '.join(info.modalities)}), found input {shape}; "
            "mend the ModelInfo"
        )
    outputs = model.outputs[0].shape  # others are of deep supervision
    rank = 2 if info.task == "classification" else len(shape)
    if len(outputs) != rank or outputs[-1] != len(info.outputs):
        raise InputError(
            f"{path}: expected a model for {info.task} with {len(info.outputs)} outputs "
            f"({', '.join(info.outputs)}), found output {tuple(outputs)}; mend the ModelInfo"
        )
