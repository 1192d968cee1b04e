"""The setup of a notebook: its kernel, named for the device, and the precision that the kernel asks for."""

import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from fedutils import notebook, runtime
from fedutils.algorithms import build_process
from fedutils.models.classification import build_separable_cnn


@pytest.mark.parametrize("with_gpu", [False, True])
def test_the_kernel_is_named_for_its_device_and_sets_what_suits_it(monkeypatch, with_gpu):
    installed = {}
    monkeypatch.setattr("ipykernel.kernelspec.install", lambda **options: installed.update(options))
    if with_gpu:
        gpu = types.SimpleNamespace(name="/physical_device:GPU:0")
        monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [gpu])
        monkeypatch.setattr(
            tf.config.experimental, "get_device_details", lambda device: {"device_name": "Big One"}
        )
    name = notebook.register_kernel()
    assert installed["display_name"] == name
    if with_gpu:
        assert name == "fedutils (GPU: Big One)"
        assert installed["env"] == {"FEDUTILS_DTYPE_POLICY": "mixed_bfloat16", "FEDUTILS_JIT_COMPILE": "1"}
    else:
        assert name.startswith("fedutils (CPU, ") and installed["env"] == {}


def test_a_notebook_takes_the_precision_of_its_kernel(monkeypatch, capsys):
    monkeypatch.setenv("FEDUTILS_DTYPE_POLICY", "mixed_bfloat16")
    # Determinism holds for the whole process, and forbids other tests their random numbers.
    monkeypatch.setattr(tf.config.experimental, "enable_op_determinism", lambda: None)
    try:
        notebook.start(0, tensorflow=True)
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
        monkeypatch.delenv("FEDUTILS_DTYPE_POLICY")
        notebook.start(0, tensorflow=True)
        assert keras.config.dtype_policy().name == "float32"
    finally:
        keras.config.set_dtype_policy("float32")
    assert "device:" in capsys.readouterr().out


def test_a_federated_round_in_mixed_precision_keeps_float32_weights():
    runtime.use("in_process")
    rng = np.random.default_rng(0)
    x, y = rng.random((12, 16, 20, 1), np.float32), rng.integers(0, 3, 12, np.int32)
    client = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)

    def run_round(policy):
        keras.config.set_dtype_policy(policy)
        try:
            model = build_separable_cnn((16, 20, 1), 3, widths=(8, 16), dropout=0.0)
            process = build_process(model, client_optimizer="sgd", client_learning_rate=0.1)
            state = process.next(process.initialize(), [client]).state
            before = process.get_model_weights(process.initialize()).trainable
            return before, process.get_model_weights(state).trainable
        finally:
            keras.config.set_dtype_policy("float32")

    before, exact = run_round("float32")
    _, mixed = run_round("mixed_bfloat16")
    assert all(np.asarray(w).dtype == np.float32 for w in mixed)
    step = np.concatenate([np.ravel(a - b) for a, b in zip(exact, before, strict=True)])
    error = np.concatenate([np.ravel(a - b) for a, b in zip(exact, mixed, strict=True)])
    # bfloat16 has 8 bits of mantissa: the step differs by some percent, and does differ.
    assert 0 < np.linalg.norm(error) < 0.2 * np.linalg.norm(step)
