"""The quiet import of TensorFlow and Keras: ``import fedutils.quiet`` before either of them.

TensorFlow 2.21 prints some lines whatever its log level is, into the first cell of every notebook. Whoever
imports this module first has both loaded without them; all other messages pass. And TensorFlow then takes a
GPU's memory as it needs it, not all at once, so that several notebooks can share a GPU.
"""

import contextlib
import logging
import os
import sys
import tempfile

# What TensorFlow 2.21 prints whatever its log level is: at import, on every machine or on those
# without a GPU; for a graph without results, which TFF's compiler does optimize; and where
# determinism takes threads from tf.data.
_HARMLESS = (
    b"before absl::InitializeLog() is called",
    b"oneDNN custom operations are on",
    b"Could not find cuda drivers on your machine",
    b"optimized to use available CPU instructions",
    b"To enable the following instructions",
    b"failed call to cuInit: INTERNAL: CUDA error: Failed call to cuInit: UNKNOWN ERROR (303)",
    b"Failed to detect the fetch node(s), skipping this input",
    b"NodeDef mentions attribute use_unbounded_threadpool which is not in the op definition",
)


def _is_worth_saying(record: logging.LogRecord) -> bool:
    """Drop what TensorFlow says about things that are as they should be.

    The assertions of TFF's secure sums, which their graphs do hold; each checkpoint of TFF that was written;
    and that several networks in one notebook are traced, one after the other.
    """
    message = record.getMessage()
    return not (
        ("Object was never used" in message and "assert_less_equal" in message)
        or message.startswith("Assets written to: ")
        or ("triggered tf.function retracing" in message and "<function " in message)
    )


@contextlib.contextmanager
def without_harmless_lines():
    """Hold back what is written to file descriptor 2; pass it on at the end, less `_HARMLESS`.

    TensorFlow writes from C++, past ``sys.stderr``.
    """
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)
            held.seek(0)
            for line in held:
                if not any(harmless in line for harmless in _HARMLESS):
                    os.write(2, line)


os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
with without_harmless_lines():
    import keras  # noqa: F401
    import tensorflow as tf

    # Looks for CUDA now, while the complaint that there is none is held back.
    tf.config.list_physical_devices()
tf.get_logger().addFilter(_is_worth_saying)
