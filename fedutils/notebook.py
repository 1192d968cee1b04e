"""What every notebook needs before its first line: one setup call, and a kernel to run in."""

import os
import random

import numpy as np

from fedutils import paths, plots
from fedutils.results import machine, versions


def start(seed: int, *, tensorflow: bool = False, threads_per_operation: int = 0) -> None:
    """Apply the figure style, seed every generator, and print what runs where.

    Parameters
    ----------
    seed : int
    tensorflow : bool
        Load TensorFlow too and make its operations deterministic. Notebooks that only look at data leave it
        out and start in a second. ``FEDUTILS_DTYPE_POLICY``, which the kernel of a GPU sets, chooses Keras'
        precision, such as mixed_bfloat16.
    threads_per_operation : int
        Threads among which TensorFlow divides one operation; 0 leaves it to TensorFlow, which takes all
        cores. 1 suits clients that train side by side, because handing small operations around costs time.
    """
    plots.use_style()
    random.seed(seed)
    np.random.seed(seed)
    if tensorflow:
        import fedutils.quiet  # noqa: F401  (first)

        # isort: split
        import keras
        import tensorflow as tf

        if threads_per_operation:
            tf.config.threading.set_intra_op_parallelism_threads(threads_per_operation)
        keras.config.set_dtype_policy(os.environ.get("FEDUTILS_DTYPE_POLICY", "float32"))
        keras.utils.set_random_seed(seed)
        tf.config.experimental.enable_op_determinism()
    print(", ".join(f"{name} {version}" for name, version in versions().items()))
    found = machine()
    print(f"device: {found['device']}, {found['cores']} cores; output: {_shown(paths.output_dir())}")


def _shown(path) -> str:
    return str(path.relative_to(paths.ROOT)) if path.is_relative_to(paths.ROOT) else path.name


def register_kernel() -> str:
    """Register a Jupyter kernel inside this environment, named for the device that TensorFlow will use.

    On a GPU the kernel computes in bfloat16 where Keras holds it safe and compiles training steps by XLA;
    on a CPU neither, because there both are slower.

    Returns
    -------
    str
        The name that JupyterLab shows.
    """
    import sys

    import tensorflow as tf
    from ipykernel.kernelspec import install

    gpus = tf.config.list_physical_devices("GPU")
    details = tf.config.experimental.get_device_details(gpus[0]) if gpus else {}
    device = (
        f"GPU: {details.get('device_name', gpus[0].name)}" if gpus else f"CPU, {machine()['cores']} cores"
    )
    name = f"fedutils ({device})"
    options = {"FEDUTILS_DTYPE_POLICY": "mixed_bfloat16", "FEDUTILS_JIT_COMPILE": "1"} if gpus else {}
    install(prefix=sys.prefix, kernel_name="fedutils", display_name=name, env=options)
    return name
