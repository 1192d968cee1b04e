"""The client of ``flower_round.py``, in a file that Ray's processes import.

A function of the script itself would travel with every message and come up with empty caches: here a process
keeps the model, its traced step and the clients' data from round to round, as the bare loop does.
"""

import argparse
import functools

import _tasks
import tensorflow as tf
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict


@functools.cache
def build_client(num_threads, **options):
    """Return the task, made as the bare loop's is, and its SGD step; built once in a process.

    Parameters
    ----------
    num_threads : int
        Threads of an operation: as many as Ray grants cores. TensorFlow would take every core in each of the
        processes.
    **options
        What ``_tasks.build_task`` reads: ``model`` and the sizes.
    """
    tf.config.threading.set_intra_op_parallelism_threads(num_threads)
    task = _tasks.build_task(options["model"], argparse.Namespace(**options))
    x, y = task.clients[0].element_spec

    # One trace for every size of the last batch: any process may train any client.
    @tf.function(input_signature=[tf.TensorSpec([None, *spec.shape[1:]], spec.dtype) for spec in (x, y)])
    def step(x, y):
        with tf.GradientTape() as tape:
            value = task.loss(y, task.model(x, training=True))
        variables = [v.value for v in task.model.trainable_variables]
        for variable, gradient in zip(variables, tape.gradient(value, variables), strict=True):
            variable.assign_sub(_tasks.LEARNING_RATE * gradient)
        return tf.shape(y)[0]

    return task, step


def train_client(message, context):
    """Answer one message of the server: SGD over this client's batches from the weights in it."""
    task, step = build_client(**message.content["config"])
    variables = task.model.trainable_variables
    for variable, weight in zip(variables, message.content["arrays"].to_numpy_ndarrays(), strict=True):
        variable.assign(weight)
    batches = task.clients[context.node_config["partition-id"]]
    num_examples = sum(int(step(x, y)) for x, y in batches)
    reply = {
        "arrays": ArrayRecord([v.numpy() for v in variables]),
        "metrics": MetricRecord({"num-examples": num_examples}),
    }
    return Message(RecordDict(reply), reply_to=message)
