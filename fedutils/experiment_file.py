"""Experiments as files: one YAML a family of runs, read strictly.

A file names its data, how they are dealt out, the network, how it is trained, by which algorithms, who takes
part, and the seeds; a run follows from it to the bit. ``profiles/experiments`` holds those of the thesis.
Which keys there are depends on what is learned: here are those of a classification.
"""

from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

import yaml

from fedutils import paths
from fedutils.errors import InputError
from fedutils.experiment_bounds import ALONE, check_bound
from fedutils.keys import Key, choice, fill, number

EXPERIMENTS = paths.PROFILES / "experiments"
# Ways to a model of each hospital's own; see `fedutils.experiment_personal`.
STARTED = ("fine_tune", "own_mixture")  # these go on from the model of another run
PERSONAL = (*STARTED, "fedper", "fedbn", "ditto")
# By source of the data: the module whose ``SECTIONS`` take the place of some of those below. It is imported
# when a file names the source, since it builds upon this one.
OTHER_TASKS = {"kaggle_3m": "experiment_keys", "phantom_cases": "experiment_keys"}


TRAINING = {
    "algorithm": Key(str),
    "num_rounds": number(int, least=1, required=True),
    "local_epochs": number(int, 1, least=1),
    "batch_size": number(int, least=1, required=True),
    "augment": Key(bool, True),
    "client_optimizer": Key(str, "adamw"),
    "client_learning_rate": number(float, above=0, required=True),
    "cosine": Key(bool, False),
    "server_optimizer": Key(str, "sgd"),
    "server_learning_rate": number(float, 1.0, above=0),
    "proximal_strength": number(float, 0.1, least=0),
    "calibration_strength": number(float, least=0),  # of fedlc, 1 by default
    "aggregator": Key(str, "mean"),
    "weighted": Key(bool, True),
    "choose_by": choice("accuracy", "accuracy", "-loss"),
    "start_from": Key(str),  # of STARTED: the run whose model every hospital goes on with alone
    "head_layers": number(int, least=0),  # of fedper: last layers at home, one by default; 0 is FedAvg
}
_SECTIONS = {
    "data": {
        "source": choice(None, "phantom", "brain_mri", *OTHER_TASKS, required=True),
        "image_size": number(int, least=1, required=True),
        "split": choice("deduplicated", "deduplicated", "public"),
        "validation_fraction": number(float, 0.15, above=0, below=1),
        # Each hospital tests on so much of its own, and validates on a validation_fraction of its own.
        "own_test_fraction": number(float, above=0, below=1),
        "skip_bad": Key(bool, False),
        "phantom_training": number(int, 60, least=1),
        "phantom_testing": number(int, 20, least=1),
        "phantom_size": number(int, 96, least=1),
    },
    "partition": {
        "kind": choice(None, "iid", "dirichlet", "quantity", "combined", "classes", "shards", required=True),
        "num_clients": number(int, least=1, required=True),
        "alpha": number(float, above=0),
        "exponent": number(float, least=0),
        "classes_per_client": number(int, least=1),
        "shards_per_client": number(int, least=1),
        "minimum": number(int, least=1),
    },
    "model": {
        "name": Key(str, required=True),
        "widths": number([int], least=1),
        "filters": number([int], least=1),
        "groups": number(int, least=1),
        "dropout": number(float, least=0, below=1),
    },
    "training": TRAINING,
    "participation": {
        "strategy": choice("random", "random", "by_size", "by_loss"),
        "clients_per_round": number(int, least=1),
        "num_candidates": number(int, least=1),
        "dropout": number(float, 0.0, least=0, below=1),
        "deadline_s": number(float, above=0),
        "late": choice("left_out", "left_out", "partial"),
    },
    "network": {
        "down_mbit_s": number(float, above=0, required=True),
        "up_mbit_s": number(float, above=0, required=True),
        "latency_s": number(float, 0.0, least=0),
        "images_per_s": number(float, above=0, required=True),
        "speed_spread": number(float, 0.0, least=0),
    },
}
_TOP = {
    "title": Key(str, required=True),
    **{name: Key(dict, required=name not in ("participation", "network")) for name in _SECTIONS},
    "algorithms": Key(dict),
    "local_from": Key(str),  # another file, whose hospitals alone hold the same and make as many passes
    "central_from": Key(str),  # another file, whose central training has the same data and as many passes
    "report_rounds": number([int], least=1),
    "seeds": number([int], least=0, required=True),
}
_MAY_BE_EMPTY = ("participation", "network")


@dataclass(frozen=True)
class Experiment:
    """A family of runs over one partition, checked.

    Attributes
    ----------
    name : str
        Of the file, without the suffix.
    title : str
        For tables and figures.
    data, partition, model, participation : dict
        The sections, with what was left out filled in.
    network : dict or None
        Bandwidths and speeds; None: no time is simulated.
    algorithms : dict of str to dict
        By the name of each run: the section ``training`` with what the run sets differently.
    report_rounds : tuple of int
        Rounds after which the best so far is measured on the test images, too.
    seeds : tuple of int
    taken : dict of str to str
        By bound (local, central) the file that trains it for this one; see `bounds`.
    training : dict
        The section, from which each algorithm starts; a bound that is taken has nothing else here.
    """

    name: str
    title: str
    data: dict
    partition: dict
    model: dict
    algorithms: dict[str, dict]
    participation: dict
    network: dict | None
    report_rounds: tuple[int, ...]
    seeds: tuple[int, ...]
    taken: dict[str, str] = field(default_factory=dict)
    training: dict = field(default_factory=dict)
    where: str = field(default="", compare=False)

    @property
    def is_personal(self) -> bool:
        """Whether each hospital is tested on images of its own, which it holds out."""
        return self.data.get("own_test_fraction") is not None

    @property
    def bounds(self) -> dict[str, str]:
        """By bound (local, central) the name of the experiment that trains it: this one, or another."""
        files = {bound: Path(source).name.removesuffix(".yaml") for bound, source in self.taken.items()}
        return {bound: files.get(bound, self.name) for bound in ALONE}

    def describe(self, algorithm: str) -> dict:
        """Return the plain settings of one run: with the seed, the data and the code they define it.

        What is not set is left out: a key that comes to the files later leaves finished runs as they are.
        """
        start = self.algorithms[algorithm]["start_from"]
        federated = self.algorithms[algorithm]["algorithm"] not in ALONE
        sections = {
            "data": self.data,
            "partition": self.partition,
            "model": self.model,
            "training": self.algorithms[algorithm],
            "participation": self.participation if federated else {},
            "network": (self.network or {}) if federated else {},
            **({"start": self.algorithms[start]} if start else {}),
        }
        told = {
            name: {key: value for key, value in section.items() if value is not None}
            for name, section in sections.items()
        }
        return {**told, "report_rounds": list(self.report_rounds)}


def list_experiments() -> list[Path]:
    """Return the files of the thesis' experiments, sorted."""
    return sorted(EXPERIMENTS.glob("*.yaml"))


def load_experiment(source: Path | str | dict) -> Experiment:
    """Read an experiment and check every key and value.

    Parameters
    ----------
    source : Path, str or dict
        A file; the name of one in ``profiles/experiments``; or its content, with ``name`` added.

    Raises
    ------
    InputError
        If the file cannot be read, a key is unknown (the nearest known one is named) or missing, a value has
        the wrong type or is out of range, or settings do not fit each other.
    """
    experiment = _load(source)
    for bound, other in experiment.taken.items():
        # What the other takes is not followed: files that name each other end in a message.
        check_bound(experiment, bound, _load(other))
    return experiment


def _load(source) -> Experiment:
    if isinstance(source, dict):
        content = dict(source)
        name = content.pop("name", "experiment")
        return _check(content, str(name), f"experiment {name}")
    named = EXPERIMENTS / f"{source}.yaml"
    path = named if named.is_file() else Path(source)
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        known = ", ".join(p.stem for p in list_experiments())
        reason = getattr(error, "strerror", None) or "bytes that are no text"
        raise InputError(
            f"{path}: expected an experiment, found: {reason}; give a file, or one of {known}"
        ) from error
    except yaml.YAMLError as error:
        raise InputError(f"{path}: expected YAML, found: {' '.join(str(error).split())}; mend it") from error
    return _check(content, path.stem, str(path))


def _check(content, name, where) -> Experiment:
    top = fill(content, _TOP, where)
    other = OTHER_TASKS.get(str(top["data"].get("source")))
    tables = _SECTIONS | (import_module(f"fedutils.{other}").SECTIONS if other else {})
    sections = {
        key: fill(top[key] or {}, table, f"{where}: {key}")
        for key, table in tables.items()
        if top[key] or key not in _MAY_BE_EMPTY
    }
    algorithms = _resolve(top["algorithms"], sections["training"], tables["training"], where)
    participation = sections.get("participation") or fill({}, _SECTIONS["participation"], where)
    network = sections.get("network")
    if participation["deadline_s"] is not None and network is None:
        raise InputError(
            f"{where}: participation: expected a section network beside deadline_s, since speeds decide who "
            "is late, found none; add it"
        )
    seeds, rounds = top["seeds"], sorted(set(top["report_rounds"] or []))
    if not seeds or len(set(seeds)) < len(seeds):
        raise InputError(f"{where}: seeds: expected different numbers, at least one, found {seeds}; mend it")
    return Experiment(
        name=name,
        title=top["title"],
        data=sections["data"],
        partition=sections["partition"],
        model=sections["model"],
        algorithms=algorithms,
        participation=participation,
        network=network,
        report_rounds=tuple(rounds),
        seeds=tuple(seeds),
        taken={bound: top[key] for bound in ALONE if top[key := f"{bound}_from"] is not None},
        training=sections["training"],
        where=where,
    )


def _resolve(algorithms, training, table, where) -> dict[str, dict]:
    """Return the whole training section of each algorithm."""
    if algorithms is None:
        if training["algorithm"] is None:
            raise InputError(
                f"{where}: expected training.algorithm or a section algorithms, found neither; add one"
            )
        algorithms = {training["algorithm"]: {}}
    optional = {key: Key(k.kind, None, k.within, k.words) for key, k in table.items()}
    resolved = {}
    for name, changes in algorithms.items():
        here = f"{where}: algorithms: {name}"
        filled = fill({} if changes is None else changes, optional, here)
        changed = {key: value for key, value in filled.items() if value is not None}
        resolved[str(name)] = own = {**training, "algorithm": training["algorithm"] or str(name), **changed}
        if own["algorithm"] == "own_mixture":
            own["num_rounds"] = 0  # it trains nothing
        as_usual = own["client_optimizer"] == "adamw" and own["cosine"]
        if own["algorithm"] in (*ALONE, "fine_tune") and not as_usual:
            raise InputError(
                f"{here}: expected client_optimizer adamw and cosine true, as training without a federation "
                f"has them, found {own['client_optimizer']} and {own['cosine']}; set them"
            )
    if not resolved:
        raise InputError(f"{where}: algorithms: expected at least one, found none; add one")
    return resolved
