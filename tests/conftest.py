"""Every test: no window, figures closed afterwards, output in a folder of its own."""

import os
import signal
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "Agg")

import numpy as np
import pytest
from PIL import Image

from fedutils.data.brain_mri import CLASSES

REAL_DATA = os.environ.get("FEDUTILS_DATA")  # of the caller; the tests themselves see none


# Files that take minutes, the longest first: begun last, they would keep one worker while the other waits.
LONG = ("test_reproduce.py", "test_flower_app.py", "test_hospital_crashes.py", "test_parity.py")


def pytest_collection_modifyitems(items):
    """Begin with the files that take longest."""
    order = {name: position for position, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


@pytest.fixture(autouse=True, scope="session")
def interruptible():
    """Undo the ignored SIGINT that a suite started in the background inherits: Ctrl-C is tested."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def own_output(tmp_path, monkeypatch):
    """Send results, figures and runs of a test to its own folder, and forget the data of the caller."""
    monkeypatch.setenv("FEDUTILS_OUTPUT", str(tmp_path / "output"))
    monkeypatch.delenv("FEDUTILS_DATA", raising=False)
    monkeypatch.setattr("fedutils.paths.CONFIG", tmp_path / "fedutils.yaml")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


@pytest.fixture
def kaggle(tmp_path):
    """Make a data set in the Kaggle layout: images of unequal sides and several modes, each different."""
    rng = np.random.default_rng(0)
    root = tmp_path / "brain_mri"
    for split, count in (("Training", 6), ("Testing", 3)):
        for c, name in enumerate(CLASSES):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (40 + 3 * i, 50 + c, 3), np.uint8)
                image = Image.fromarray(pixels)
                image = image.convert("L") if i % 2 else image
                image.save(folder / f"{split[:2]}_{i}.png")
    return root


@pytest.fixture(scope="session")
def real_data():
    """Give the folder of real data, or skip with a clear word."""
    if not REAL_DATA or not Path(REAL_DATA, "brain_mri").is_dir():
        pytest.skip("no real data: set FEDUTILS_DATA to the folder that holds brain_mri")
    return Path(REAL_DATA)
