import logging
import subprocess
import sys

import pytest


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


def test_import_is_quiet_and_gives_a_working_tff():
    result = run_python(
        "from fedutils.tff import tff\n"
        "import tensorflow as tf, fedutils.tff\n"
        "tf.constant(1.0)\n"
        "print(tff.__version__, fedutils.tff.tff is tff, tff.learning.algorithms.__name__)\n"
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["0.87.0", "True", "tensorflow_federated.python.learning.algorithms"]
    assert result.stderr == ""


def test_what_tff_starts_by_default_ends_before_python_takes_its_modules_apart():
    result = run_python(
        "import atexit\n"
        "atexit.register(lambda: print(type(tff.framework.get_context_stack().current).__name__))\n"
        "from fedutils.tff import tff\n"
        "import numpy as np\n"
        "print(tff.tensorflow.computation(lambda x: x + 1, np.int32)(41))\n"
    )
    assert (result.returncode, result.stdout.split()) == (0, ["42", "RuntimeErrorContext"])
    assert "Exception ignored" not in result.stderr


def test_import_passes_on_what_is_not_harmless():
    result = run_python(
        "import sys, types, os\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'tensorflow_privacy':\n"
        "            os.write(2, b'a real complaint\\n')\n"
        "            raise ImportError('no privacy here')\n"
        "sys.meta_path.insert(0, Finder())\n"
        "import fedutils.tff\n"
    )
    assert result.returncode == 1
    assert "a real complaint" in result.stderr
    assert "ImportError: no privacy here" in result.stderr


def test_import_works_again_and_after_a_plain_import_failed():
    result = run_python(
        "try:\n"
        "    import tensorflow_federated\n"
        "except ImportError as error:\n"
        "    print('plain import fails:', error)\n"
        "import importlib, fedutils.tff\n"
        "first = fedutils.tff.tff\n"
        "again = importlib.reload(fedutils.tff).tff\n"
        "import tensorflow_federated\n"
        "print(first is again is tensorflow_federated)\n"
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "True"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("Assets written to: run/round_3/assets", False),
        ("5 out of the last 5 calls to <function one_step at 0x1> triggered tf.function retracing.", False),
        ("Object was never used: <op assert_less_equal>", False),
        ("Object was never used: <op loss>", True),
        ("Gradients do not exist for variables", True),
    ],
)
def test_what_tensorflow_says_of_things_as_they_should_be_is_not_shown(said, shown):
    from tensorflow import get_logger

    import fedutils.quiet  # noqa: F401

    heard = []
    handler = logging.Handler()
    handler.emit = heard.append
    get_logger().addHandler(handler)
    try:
        get_logger().warning(said)
    finally:
        get_logger().removeHandler(handler)
    assert bool(heard) == shown
