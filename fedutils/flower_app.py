"""The apps that Flower runs: `server` for the SuperLink, `client` for the SuperNode of each hospital.

``flwr run`` finds them by the project that ``fedutils flower app`` writes; docs/flower.md has the commands.
What they do is in `fedutils.flower_server` and `fedutils.flower_client`; here it is put into messages.
TensorFlow is imported with the first message.
"""

import sys

from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from fedutils.errors import InputError
from fedutils.flower_settings import read_hospital, read_settings

server = ServerApp()
client = ClientApp()
_FAILED = 2  # of Flower's error codes: the app of a hospital failed


@server.main()
def serve(grid: Grid, context: Context) -> None:
    """Run the rounds that the run's configuration asks for; see `fedutils.flower_settings.AppSettings`."""
    settings = read_settings(context.run_config)
    from fedutils.flower_server import run_federation

    run_federation(grid, settings)


@client.train()
def train(message: Message, context: Context) -> Message:
    """Answer the server's weights with those that were trained on this hospital's images.

    What is wrong is said in full here, in the hospital's own log; the server is told without the folder.
    """
    folder = None
    try:
        place = read_hospital(context.node_config, context.run_config)
        folder = str(place.data)
        from fedutils.flower_client import train_round
        from fedutils.flower_messages import make_reply, unpack_weights

        trained = train_round(message.content["config"], unpack_weights(message.content["arrays"]), place)
        return make_reply(message, trained.weights, trained.metrics, place)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        reason = str(error).replace(folder, "the hospital's folder") if folder else str(error)
        return Message(Error(_FAILED, reason), reply_to=message)
