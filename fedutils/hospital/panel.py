"""The menus as widgets of a notebook: a panel for the server's operator, one for each hospital, and a log.

A panel does what the entries of the menu at a terminal do, in the same words. The server may be anywhere: its
panel is a client with the operator's certificate.
"""

import datetime
import html
from collections.abc import Callable, Sequence

import ipywidgets

from fedutils.errors import InputError
from fedutils.hospital.actions import Hospital
from fedutils.hospital.client import Console

_MOST_LINES = 200  # of the log, the latest on top


class Log(ipywidgets.HTML):
    """What was done, a line each, the latest on top."""

    def __init__(self):
        super().__init__()
        self.lines: list[str] = []
        self._show()

    def write(self, who: str, text: str) -> None:
        """Add what someone was told."""
        now = datetime.datetime.now().strftime("%H:%M:%S")
        self.lines = [f"{now}  {who}: {text}", *self.lines][:_MOST_LINES]
        self._show()

    def _show(self) -> None:
        shown = html.escape("\n".join(self.lines) or "nothing was done yet")
        style = "max-height: 14em; overflow-y: auto; white-space: pre-wrap; line-height: 1.3; margin: 4px 0"
        self.value = f'<pre style="{style}">{shown}</pre>'


class Panel(ipywidgets.VBox):
    """A title, buttons in a row, and what the last one led to.

    Parameters
    ----------
    name : str
    entries : dict of str to callable
        By label, what its button does; it returns a line to show. Bad input and refusals are shown.
    log : Log
    after : callable
        Called after each.

    Attributes
    ----------
    buttons : dict of str to Button
    status : ipywidgets.HTML
    """

    def __init__(
        self,
        name: str,
        entries: dict[str, Callable[[], str]],
        log: Log,
        after: Callable[[], None] = lambda: None,
    ):
        self.name, self._log, self._after = name, log, after
        self.status = ipywidgets.HTML()
        self.buttons = {label: ipywidgets.Button(description=label) for label in entries}
        for label, act in entries.items():
            self.buttons[label].layout.width = "auto"
            self.buttons[label].on_click(lambda _, label=label, act=act: self._do(label, act))
        row = ipywidgets.HBox(list(self.buttons.values()), layout={"flex_flow": "row wrap"})
        title = ipywidgets.HTML(f"<b>{html.escape(name)}</b>")
        super().__init__([title, row, self.status], layout={"margin": "0 24px 8px 0"})

    def _do(self, label: str, act: Callable[[], str]) -> None:
        """Do what a button says; none can be pressed meanwhile."""
        self._enable(False)
        self._say(f"{label} …", "#666666")
        try:
            told, colour = act(), "#006d2c"
        except InputError as error:
            told, colour = f"error: {error}", "#a50f15"
        finally:
            self._enable(True)
        self._say(told, colour)
        self._log.write(self.name, told)
        self._after()

    def _say(self, text: str, colour: str) -> None:
        shown = html.escape(text).replace("\n", "<br>")
        self.status.value = f'<span style="color: {colour}">{shown}</span>'

    def _enable(self, enabled: bool) -> None:
        for button in self.buttons.values():
            button.disabled = not enabled


class ServerPanel(Panel):
    """Version, number of sets of weights collected, and the button that aggregates.

    Parameters
    ----------
    operator : Console
        With the operator's certificate.
    log : Log
    """

    def __init__(self, operator: Console, log: Log):
        self._operator = operator
        entries = {
            "Aggregate weights": lambda: f"version {operator.aggregate()}",
            "Check version number": lambda: f"version {operator.get_version()}",
            "Get number of sets of weights collected": lambda: f"{operator.count_collected()} collected",
        }
        self.state = ipywidgets.HTML()
        super().__init__("Server", entries, log, self.refresh)
        self.children = (*self.children, self.state)
        self.refresh()

    def refresh(self) -> None:
        """Show the version and how many hospitals have sent for it."""
        try:
            version, collected = self._operator.get_version(), self._operator.count_collected()
            self.state.value = f"version <b>{version}</b>, <b>{collected}</b> sets of weights collected"
        except InputError as error:
            self.state.value = html.escape(str(error))


class HospitalPanel(Panel):
    """A hospital's menu: get, train, send, evaluate, save.

    Parameters
    ----------
    name : str
    hospital : Hospital
    log : Log
    after : callable
        Called after each action.
    """

    def __init__(self, name: str, hospital: Hospital, log: Log, after: Callable[[], None] = lambda: None):
        labels = {
            "Get weights from server": "get",
            "Train model": "train",
            "Send weights to server": "send",
            "Evaluate": "evaluate",
            "Save": "save",
        }
        entries = {label: lambda action=action: hospital.do(action) for label, action in labels.items()}
        super().__init__(f"Hospital {name}", entries, log, after)


class Federation(ipywidgets.VBox):
    """The server's panel, those of the hospitals, and one log of all; the server's follows what they do.

    Parameters
    ----------
    operator : Console
    hospitals : sequence of (str, Hospital)

    Attributes
    ----------
    server : ServerPanel
    hospitals : dict of str to HospitalPanel
    record : Log
    """

    def __init__(self, operator: Console, hospitals: Sequence[tuple[str, Hospital]]):
        self.record = Log()
        self.server = ServerPanel(operator, self.record)
        self.hospitals = {
            name: HospitalPanel(name, hospital, self.record, self.server.refresh)
            for name, hospital in hospitals
        }
        super().__init__([self.server, *self.hospitals.values(), self.record])
