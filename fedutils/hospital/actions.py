"""What a hospital's operator can do, each a step that leaves its result in the hospital's folder."""

import datetime
import time
from collections.abc import Callable
from pathlib import Path

from fedutils.errors import InputError
from fedutils.hospital.client import Console
from fedutils.hospital.settings import Settings
from fedutils.hospital.workspace import Workspace

ACTIONS = ("get", "train", "send", "wait", "evaluate", "save")
_POLL_S = 1.0


class Hospital:
    """The steps of a hospital; each returns a line for its operator.

    Parameters
    ----------
    settings : Settings
    name : str
        As in the certificate.
    say : callable
        Told what is under way.
    **options
        Of `fedutils.hospital.client.Console`.
    """

    def __init__(self, settings: Settings, name: str, say: Callable[[str], None] = print, **options):
        self._settings = settings
        self._workspace = Workspace(settings.work)
        self._console = Console(settings.address, settings.certificates, name, say=say, **options)

    def close(self) -> None:
        """Hang up."""
        self._console.close()

    def do(self, action: str) -> str:
        """Do one of `ACTIONS`, and note it in the journal of the hospital's folder."""
        begin = datetime.datetime.now(datetime.UTC)
        try:
            told = getattr(self, action)()
        except InputError as error:
            self._workspace.note(action, begin, str(error), good=False)
            raise
        self._workspace.note(action, begin, told)
        return told

    def get(self) -> str:
        """Get the model of the server."""
        received = self._console.get_model()
        self._workspace.keep_received(received)
        count = sum(array.size for array in received.arrays)
        return f"got version {received.version}: {len(received.layers)} layers, {count:,} weights"

    def train(self) -> str:
        """Train the model that came on the hospital's images."""
        from fedutils.hospital import training

        layers = self._workspace.load_received().layers
        model, info, version = training.build_model(self._workspace)
        x, y = training.load_cases(info, self._settings.data)
        loss = training.train(model, x, y, version, self._settings)
        self._workspace.keep_trained(version, len(y), layers, model.get_weights())
        return (
            f"trained version {version} on {len(y):,} cases, {self._settings.epochs} epochs: loss {loss:.4f}"
        )

    def send(self) -> str:
        """Send the weights that were trained last."""
        trained = self._workspace.load_trained()
        sha256 = self._console.send(
            trained.version, trained.cases, trained.arrays, trained.layers, trained.sha256
        )
        shown = f"{trained.cases:,} cases, {sha256[:12]}"
        return f"sent weights of version {trained.version} ({shown}): they are on the server's disk"

    def wait(self) -> str:
        """Wait for a later version than the one that came last."""
        before = self._workspace.load_received().version
        while (version := self._console.get_version()) <= before:
            time.sleep(_POLL_S)
        return f"the server has version {version}"

    def evaluate(self) -> str:
        """Measure the model that came last on the hospital's own test images."""
        from fedutils.evaluate import evaluate_folder, format_table
        from fedutils.hospital import training
        from fedutils.model_info import NOT_CLINICAL

        model, info, version = training.build_model(self._workspace)
        record = evaluate_folder(model, info, self._settings.data, progress=False)
        return f"version {version} on {self._settings.data}:\n{format_table(record)}\n{NOT_CLINICAL}"

    def save(self) -> str:
        """Save the model that came last as a ``.keras`` file in the hospital's folder."""
        from fedutils.hospital import training
        from fedutils.model_file import save_model

        model, info, version = training.build_model(self._workspace)
        path = Path(self._settings.work) / f"version_{version}.keras"
        save_model(path, model, info)
        return f"saved {path}"


def read_actions(text: str) -> list[str]:
    """Return the actions of a list such as ``get,train,send``.

    Raises
    ------
    InputError
        If one of them is none.
    """
    actions = [word.strip() for word in text.split(",")]
    if unknown := [word for word in actions if word not in ACTIONS]:
        raise InputError(f"--do: expected a list of {', '.join(ACTIONS)}, found {unknown[0]!r}; mend it")
    return actions
