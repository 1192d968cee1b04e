"""What a Flower run is told: the entries of ``[tool.flwr.app.config]``, each checked before anything is sent.

``flwr run --run-config`` overrides single ones. What a hospital decides for itself (its images, its name and
number) is in the ``--node-config`` of its SuperNode instead, and is read by `read_hospital`.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fedutils.errors import InputError

ALGORITHMS = ("fedavg", "fedprox", "fedavgm", "fedadam", "fedyogi", "fedadagrad")
CLIENT_OPTIMIZERS = ("sgd", "sgdm", "adam", "adamw")
# These say where, how long and how often, not what is computed: a run may go on with others.
_FREE = ("out", "validation", "model", "num_rounds", "round_timeout", "simulated_hospitals")


@dataclass(frozen=True)
class AppSettings:
    """What the server decides. In the configuration, names have dashes for underscores.

    Attributes
    ----------
    model : str
        A ``.keras`` file that `fedutils.model_file.save_model` wrote, a classifier; on the server's machine.
    validation : str
        Images of no hospital, a folder a class, on the server's machine; they choose the best round. Of a
        folder that holds ``Training`` and ``Testing``, the former.
    out : str
        Where the server keeps the run; one that is there is gone on with.
    algorithm : {"fedavg", "fedprox", "fedavgm", "fedadam", "fedyogi", "fedadagrad"}
    hospitals : int
        So many must be connected before a round begins, and answer before it ends; all that are connected
        take part.
    num_rounds : int
    local_epochs, batch_size : int
    augment : bool
    seed : int
        Of order and augmentation, with the round and the hospital's number.
    client_optimizer : {"sgd", "sgdm", "adam", "adamw"}
        Begins anew in every round.
    client_learning_rate : float
    decay_rounds : int
        Let that rate fall along a cosine, to 0 after so many rounds; 0: it stays.
    proximal_mu : float
        Of FedProx.
    server_learning_rate : float
        Of the last four; 0: Flower's own, which is 1 for FedAvgM, 0.01 for FedYogi and 0.1 for the others.
    server_momentum : float
        Of FedAvgM.
    round_timeout : float
        Seconds until a round is given up.
    simulated_hospitals : str
        For the simulation engine alone, where no SuperNode names its images: a folder with one of every
        hospital.
    """

    model: str
    validation: str
    out: str
    algorithm: str = "fedavg"
    hospitals: int = 2
    num_rounds: int = 3
    local_epochs: int = 1
    batch_size: int = 32
    augment: bool = True
    seed: int = 0
    client_optimizer: str = "adamw"
    client_learning_rate: float = 1e-3
    decay_rounds: int = 0
    proximal_mu: float = 0.1
    server_learning_rate: float = 0.0
    server_momentum: float = 0.9
    round_timeout: float = 3600.0
    simulated_hospitals: str = ""

    def find_learning_rate(self, round_number: int) -> float:
        """Return the clients' learning rate of a round, from 0, as `fedutils.algorithms` has it."""
        if not self.decay_rounds:
            return self.client_learning_rate
        progress = min(round_number / self.decay_rounds, 1.0)
        return self.client_learning_rate * 0.5 * (1.0 + math.cos(math.pi * progress))

    def identify(self) -> dict:
        """Return what must be as before where a run goes on."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in _FREE}


@dataclass(frozen=True)
class HospitalPlace:
    """Who a SuperNode is: the hospital's name, its number among all, from 0, and its folder of images."""

    name: str
    client: int
    data: Path


def read_settings(config: Mapping) -> AppSettings:
    """Return the settings of a run's configuration.

    Raises
    ------
    InputError
        If an entry is missing, unknown, or of another type or range.
    """
    fields = {field.name.replace("_", "-"): field for field in dataclasses.fields(AppSettings)}
    if unknown := sorted(set(config) - set(fields)):
        raise InputError(
            f"run config: expected entries of {', '.join(fields)}, found {unknown[0]!r}; mend pyproject.toml"
        )
    values = {}
    for name, value in config.items():
        kind = fields[name].type
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            expected = {str: "text", int: "a whole number", float: "a number"}.get(kind, "true or false")
            raise InputError(f"run config, {name}: expected {expected}, found {value!r}; mend it")
        values[fields[name].name] = value
    needed = ("model", "validation", "out")
    if missing := [name for name in needed if not values.get(name)]:
        raise InputError(f"run config: expected a path for {missing[0]}, found none; add it by --run-config")
    settings = AppSettings(**values)
    _check(settings)
    return settings


def _check(settings: AppSettings) -> None:
    """Raise InputError where a value is out of range."""
    finite = float("inf")
    rules = {
        "algorithm": (settings.algorithm in ALGORITHMS, f"one of {', '.join(ALGORITHMS)}"),
        "client_optimizer": (
            settings.client_optimizer in CLIENT_OPTIMIZERS,
            f"one of {', '.join(CLIENT_OPTIMIZERS)}",
        ),
        "hospitals": (1 <= settings.hospitals <= 1000, "1 to 1,000"),
        "num_rounds": (1 <= settings.num_rounds <= 10_000, "1 to 10,000"),
        "local_epochs": (settings.local_epochs > 0, "at least 1"),
        "batch_size": (settings.batch_size > 0, "at least 1"),
        "seed": (0 <= settings.seed < 100_000, "0 to 99,999"),
        "client_learning_rate": (0 < settings.client_learning_rate < finite, "a number above 0"),
        "decay_rounds": (settings.decay_rounds >= 0, "0 or more rounds"),
        "proximal_mu": (0 <= settings.proximal_mu < finite, "0 or more"),
        "server_learning_rate": (0 <= settings.server_learning_rate < finite, "0 or more"),
        "server_momentum": (0 <= settings.server_momentum < 1, "0 to below 1"),
        "round_timeout": (0 < settings.round_timeout < finite, "seconds above 0"),
    }
    for name, (good, expected) in rules.items():
        if not good:
            found = getattr(settings, name)
            raise InputError(
                f"run config, {name.replace('_', '-')}: expected {expected}, found {found!r}; mend it"
            )


def read_hospital(node_config: Mapping, run_config: Mapping) -> HospitalPlace:
    """Return who this SuperNode is, from its own configuration.

    In the simulation engine, whose nodes are numbered only, the hospitals are the folders in
    ``simulated-hospitals`` of the run, in the order of their names.

    Raises
    ------
    InputError
        If an entry is missing or no hospital.
    """
    if "data" not in node_config and "partition-id" in node_config and run_config.get("simulated-hospitals"):
        root, number = Path(run_config["simulated-hospitals"]), int(node_config["partition-id"])
        folders = sorted(path for path in root.glob("*") if path.is_dir())
        if number >= len(folders):
            raise InputError(
                f"{root}: expected a folder of each of {number + 1} hospitals or more, found {len(folders)}; "
                "simulate fewer"
            )
        return HospitalPlace(folders[number].name, number, folders[number])
    example = '--node-config \'hospital="alpha" client=0 data="DIR"\''
    for name, kind in (("hospital", str), ("client", int), ("data", str)):
        if type(node_config.get(name)) is not kind:
            raise InputError(
                f"node config: expected {name}, as in {example}, found {node_config.get(name)!r}; start the "
                "SuperNode with it"
            )
    if not 0 <= node_config["client"] < 1000:
        raise InputError(
            f"node config, client: expected 0 to 999, found {node_config['client']}; give each hospital a "
            "number of its own"
        )
    return HospitalPlace(node_config["hospital"], node_config["client"], Path(node_config["data"]))
