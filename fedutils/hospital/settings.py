"""A hospital's settings: one small YAML file, every entry of which is checked before anything is done."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import yaml

from fedutils.errors import InputError
from fedutils.hospital.service import DEFAULT_PORT

OPTIMIZERS = ("sgd", "adam", "adamw")


@dataclass(frozen=True)
class Settings:
    """What a hospital decides for itself. Relative paths begin at the folder of the settings file.

    Attributes
    ----------
    server : str
        ``host:port``; port 9095 where none is given.
    certificates : Path
        The hospital's own folder: ``authority.pem``, ``NAME.pem``, ``NAME.key``.
    data : Path
        The hospital's images, ``Training`` and ``Testing``; they are read there and nowhere else.
    work : Path
        Where the model that came and the weights that were trained are kept; ``work`` by default.
    epochs : int
        Passes over the images in a round.
    batch_size : int
    learning_rate : float
    optimizer : {"sgd", "adam", "adamw"}
        Begins anew in every round.
    augment : bool
        See `fedutils.data.pipeline.augment_batch`.
    seed : int
        Of order and augmentation, with the version of the model.
    client : int
        This hospital's number among all, from 0, where its order shall be that of a simulated client.
    """

    server: str
    certificates: Path
    data: Path
    epochs: int
    batch_size: int
    learning_rate: float
    work: Path = Path("work")
    optimizer: str = "sgd"
    augment: bool = False
    seed: int = 0
    client: int = 0

    @property
    def address(self) -> tuple[str, int]:
        """The server's host and port."""
        host, _, port = self.server.partition(":")
        return host, int(port or DEFAULT_PORT)


def load_settings(path: Path) -> Settings:
    """Read a settings file.

    Raises
    ------
    InputError
        If it is missing or no YAML, an entry is missing, unknown or of another type or range.
    """
    path = Path(path)
    try:
        entries = yaml.safe_load(path.read_text())
    except OSError as error:
        raise InputError(
            f"{path}: expected a settings file, found: {error.strerror}; mend --settings"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected YAML, found: {' '.join(str(error).split())}; mend it") from error
    fields = {field.name: field for field in dataclasses.fields(Settings)}
    if not isinstance(entries, dict):
        raise InputError(f"{path}: expected entries such as 'epochs: 1', found {entries!r:.40}; mend it")
    if unknown := sorted(set(map(str, entries)) - set(fields)):
        raise InputError(f"{path}: expected entries of {', '.join(fields)}, found {unknown[0]!r}; mend it")
    needed = [name for name, field in fields.items() if field.default is dataclasses.MISSING]
    if missing := [name for name in needed if name not in entries]:
        raise InputError(f"{path}: expected the entries {', '.join(needed)}, found no {missing[0]}; add it")
    values = {name: _read(path, name, fields[name].type, value) for name, value in entries.items()}
    values["work"] = path.parent / values.get("work", fields["work"].default)
    settings = Settings(**values)
    _check(path, settings)
    return settings


def _read(path: Path, name: str, kind: type, value):
    """Return an entry's value as its type."""
    if kind is Path and isinstance(value, str) and value:
        return path.parent / Path(value).expanduser()
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if kind is not Path and type(value) is kind:
        return value
    expected = (
        "a folder"
        if kind is Path
        else {str: "text", int: "a whole number", float: "a number"}.get(kind, "true or false")
    )
    raise InputError(f"{path}: {name}: expected {expected}, found {value!r}; mend it")


def _check(path: Path, settings: Settings) -> None:
    """Raise InputError where a value is out of range."""
    host, _, port = settings.server.partition(":")
    rules = {
        "server": (
            bool(host) and (not port or (port.isascii() and port.isdigit() and 0 < int(port) < 65536)),
            "host:port",
        ),
        "epochs": (settings.epochs > 0, "at least 1"),
        "batch_size": (settings.batch_size > 0, "at least 1"),
        "learning_rate": (0 < settings.learning_rate < float("inf"), "a number above 0"),
        "optimizer": (settings.optimizer in OPTIMIZERS, f"one of {', '.join(OPTIMIZERS)}"),
        "seed": (0 <= settings.seed < 100_000, "0 to 99,999"),
        "client": (0 <= settings.client < 1000, "0 to 999"),
    }
    for name, (good, expected) in rules.items():
        if not good:
            raise InputError(
                f"{path}: {name}: expected {expected}, found {getattr(settings, name)!r}; mend it"
            )
