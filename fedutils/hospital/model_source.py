"""The weights of a ``.keras`` file for a server without TensorFlow: a process of its own reads them."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from fedutils.errors import InputError
from fedutils.hospital.weights import LayerSpec, describe_layers, pack


def read_model(path: Path) -> tuple[tuple[LayerSpec, ...], bytes, bytes]:
    """Read a model that `fedutils.model_file.save_model` wrote; no code in it is run.

    Returns
    -------
    layers : tuple of LayerSpec
        All weights of the model, in the order of ``model.get_weights()``.
    weights : bytes
        See `fedutils.hospital.weights.pack`.
    file : bytes
        The file as it is.

    Raises
    ------
    InputError
        If it is missing, damaged, holds code, or has weights that are not floats.
    """
    path = Path(path)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name  # what hospitals get is what was checked
        try:
            copy.write_bytes(path.read_bytes())
        except OSError as error:
            raise InputError(
                f"{path}: expected a model file, found: {error.strerror}; point --model to a .keras file"
            ) from error
        command = [sys.executable, "-m", "fedutils.hospital.model_source", str(copy), folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = done.stderr.strip().splitlines()[-1:] or [f"status {done.returncode}"]
            raise InputError(reason[0].removeprefix("error: ").replace(str(copy), str(path)))
        layers = json.loads((Path(folder) / "layers.json").read_text())
        specs = tuple(LayerSpec(name, dtype, tuple(shape)) for name, dtype, shape in layers)
        return specs, (Path(folder) / "weights.bin").read_bytes(), copy.read_bytes()


def _export(path: Path, folder: Path) -> int:
    """Write the layers and weights of a model to a folder, in the process of its own."""
    try:
        from fedutils.model_file import load_model

        model, _ = load_model(path)
        arrays = model.get_weights()
        layers = describe_layers([weight.path for weight in model.weights], arrays)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    (folder / "layers.json").write_text(json.dumps([[s.name, s.dtype, s.shape] for s in layers]))
    (folder / "weights.bin").write_bytes(pack(arrays))
    return 0


if __name__ == "__main__":
    sys.exit(_export(Path(sys.argv[1]), Path(sys.argv[2])))
