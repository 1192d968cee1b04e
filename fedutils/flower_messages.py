"""What server and hospitals say to one another in Flower's messages: settings one way, weights both."""

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from fedutils.errors import InputError
from fedutils.flower_settings import AppSettings, HospitalPlace


def pack_weights(weights: list[np.ndarray]) -> ArrayRecord:
    """Return weights as Flower sends them; the names keep their order."""
    return ArrayRecord({f"{i:04d}": Array(np.asarray(w)) for i, w in enumerate(weights)})


def unpack_weights(arrays: ArrayRecord) -> list[np.ndarray]:
    """Return what `pack_weights` was given, as float32.

    FedAdam makes float64 of them, by a rate that is a NumPy number; models and messages stay float32.
    """
    return [arrays[name].numpy().astype(np.float32) for name in sorted(arrays)]


def make_config(settings: AppSettings, file: bytes, number: int) -> ConfigRecord:
    """Return what hospitals are told in a round, from 1; the strategy adds the round's number.

    `file` is the ``.keras`` file that they build the model from. For the entries see
    `fedutils.flower_client.train_round`.
    """
    return ConfigRecord(
        {
            "model": file,
            "optimizer": settings.client_optimizer,
            "learning-rate": settings.find_learning_rate(number - 1),
            "batch-size": settings.batch_size,
            "local-epochs": settings.local_epochs,
            "augment": settings.augment,
            "seed": settings.seed,
        }
    )


def make_reply(message: Message, weights: list[np.ndarray], metrics: dict, place: HospitalPlace) -> Message:
    """Return a hospital's answer: its weights, what it measured, and who it is."""
    content = {
        "arrays": pack_weights(weights),
        "metrics": MetricRecord(metrics),
        "place": ConfigRecord({"hospital": place.name, "client": place.client}),
    }
    return Message(RecordDict(content), reply_to=message)


def sort_replies(replies: list[Message], number: int, hospitals: int) -> tuple[list[Message], dict]:
    """Return a round's answers in the order of the hospitals' numbers, and who they are of.

    Parameters
    ----------
    replies : list of Message
        Those with errors are left out.
    number : int
        Of the round, for errors.
    hospitals : int
        So many must have answered.

    Returns
    -------
    list of Message
    dict
        ``hospitals``, ``clients`` and ``client_num_examples``, lists with one entry an answer.

    Raises
    ------
    InputError
        If there are too few, or two hospitals have one number.
    """
    good = [reply for reply in replies if not reply.has_error()]
    reasons = [reply.error.reason for reply in replies if reply.has_error()]
    if len(good) < hospitals:
        raise InputError(
            f"round {number}: expected answers of {hospitals} hospitals, found {len(good)}"
            f"{f' and this: {reasons[0]}' if reasons else ''}; mend it and start the run again: it goes on "
            "from the last round"
        )
    good.sort(key=lambda reply: reply.content["place"]["client"])
    places = [reply.content["place"] for reply in good]
    clients = [int(place["client"]) for place in places]
    if len(set(clients)) < len(clients):
        raise InputError(
            f"round {number}: expected a number of its own of each hospital, found the numbers {clients}; "
            "mend client in their --node-config"
        )
    counts = [int(reply.content["metrics"]["num-examples"]) for reply in good]
    names = [str(place["hospital"]) for place in places]
    return good, {"hospitals": names, "clients": clients, "client_num_examples": counts}
