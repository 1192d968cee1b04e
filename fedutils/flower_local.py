"""A Flower run without a network: server and hospitals in this process, with the same apps and messages.

For a notebook, a test, or a look at new settings before hospitals are asked: nothing is started, and the
weights are those that the same hospitals reach over SuperLink and SuperNodes. Memory is that of one hospital
at a time, and of its images.
"""

from collections.abc import Iterable, Sequence

from flwr.app import Context, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run as FlowerRun
from flwr.supercore.task_identity import TaskIdentity

from fedutils.errors import InputError
from fedutils.flower_app import client
from fedutils.flower_settings import AppSettings, HospitalPlace
from fedutils.runs import Run

_RUN_ID, _SERVER = 1, 1


class LocalGrid(Grid):
    """Carries messages to the hospitals' app by calling it, one hospital after another.

    Parameters
    ----------
    hospitals : sequence of HospitalPlace
    """

    def __init__(self, hospitals: Sequence[HospitalPlace]):
        self._contexts = {}
        for node_id, place in enumerate(hospitals, start=_SERVER + 1):
            config = {"hospital": place.name, "client": place.client, "data": str(place.data)}
            self._contexts[node_id] = Context(
                run_id=_RUN_ID, node_id=node_id, node_config=config, state=RecordDict(), run_config={}
            )
        self._run = FlowerRun.create_empty(run_id=_RUN_ID)
        self._answers: dict[str, Message] = {}
        # Flower's messages ask their process what it works on; its own simulation engine sets this likewise.
        TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = _RUN_ID, 1, _SERVER

    def set_run(self, run: FlowerRun) -> None:
        """Take the run that the messages belong to."""
        self._run = run

    @property
    def run(self) -> FlowerRun:
        """The run that the messages belong to."""
        return self._run

    def create_message(self, content, message_type, dst_node_id, group_id, ttl=None) -> Message:
        """Return a message to a node."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> list[int]:
        """Return the numbers of the nodes."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Let each node answer its message; return the keys of the answers."""
        keys = []
        for message in messages:
            keys.append(str(len(self._answers) + len(keys)))
            self._answers[keys[-1]] = client(message, self._contexts[message.metadata.dst_node_id])
        return keys

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Return the answers of these keys, once."""
        return [self._answers.pop(key) for key in message_ids if key in self._answers]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Return the answers to messages; an app in this process is not timed."""
        return self.pull_messages(self.push_messages(messages))


def run_locally(settings: AppSettings, hospitals: Sequence[HospitalPlace]) -> Run:
    """Run `fedutils.flower_server.run_federation` over hospitals in this process.

    Parameters
    ----------
    settings : AppSettings
    hospitals : sequence of HospitalPlace
        At least as many as the settings ask for.

    Returns
    -------
    Run
        As of `fedutils.flower_server.run_rounds`.
    """
    from fedutils.flower_server import run_federation

    if len(hospitals) < settings.hospitals:
        raise InputError(
            f"hospitals: expected {settings.hospitals} or more, found {len(hospitals)}; lower the setting"
        )
    return run_federation(LocalGrid(hospitals), settings)
