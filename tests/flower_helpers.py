"""Hospitals of a few pictures, and Flower's SuperLink and SuperNodes as processes of their own, for tests."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from fedutils.data.brain_mri import CLASSES
from fedutils.flower_settings import AppSettings, HospitalPlace

BIN = Path(sys.executable).parent
SIDE = 16  # of the model's images
NAMES = ("alpha", "beta", "gamma")


def make_pictures(folder, count, seed):
    """Write `count` pictures of the first class, one more of each next one, all different."""
    rng = np.random.default_rng(seed)
    for extra, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for i in range(count + extra):
            pixels = rng.integers(0, 256, (20, 24), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")


def make_hospitals(root, names=NAMES):
    """Write images of hospitals of 14, 18, 22 ... cases, and of validation; return the hospitals' places."""
    make_pictures(root / "validation" / "Training", 3, seed=99)
    for k, name in enumerate(names):
        make_pictures(root / "hospitals" / name / "Training", 2 + k, seed=k)
    return [HospitalPlace(name, k, root / "hospitals" / name) for k, name in enumerate(names)]


def make_task(root, names=NAMES):
    """Write a model, validation images and hospitals; return the folder and the hospitals' places."""
    places = make_hospitals(root, names)
    save_small_model(root / "small.keras")
    return root, places


def save_small_model(path):
    """Write a small classifier as ``fedutils`` saves them."""
    from fedutils.model_file import save_model
    from fedutils.model_info import ModelInfo
    from fedutils.models.classification import build_cnn

    info = ModelInfo("Small", "classification", "two convolutions", CLASSES, ("grey",), (SIDE, SIDE), "grey")
    save_model(path, build_cnn((SIDE, SIDE, 1), 4, filters=(2, 3), seed=1), info)
    return path


def make_settings(root, **changes):
    """Return settings of a small run over `make_hospitals` and `save_small_model` in a folder."""
    entries = {
        "model": str(root / "small.keras"),
        "validation": str(root / "validation"),
        "out": str(root / "run"),
        "hospitals": len(NAMES),
        "batch_size": 4,
        "client_optimizer": "sgd",
        "client_learning_rate": 0.05,
        "augment": False,
        "seed": 5,
    }
    return AppSettings(**(entries | changes))


def find_port():
    """Return a port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


class FlowerProcesses:
    """Processes of Flower with a home of their own; `stop` ends each of them and whatever it started."""

    def __init__(self, folder):
        self.folder, self._running = Path(folder), []
        self.environment = {
            **os.environ,
            "FLWR_HOME": str(self.folder / "home"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",  # Flower calls its other commands by name
        }

    def start(self, name, *words):
        """Start a command of Flower; its output goes to ``NAME.log``."""
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [BIN / words[0], *map(str, words[1:])],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                cwd=self.folder,
            )
        self._running.append(psutil.Process(process.pid))
        return process

    def call(self, *words, timeout=100):
        """Run a command of Flower to its end; return its output."""
        done = subprocess.run(
            [BIN / words[0], *map(str, words[1:])],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=self.environment,
            cwd=self.folder,
            timeout=timeout,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(
                f"{words} ended with {done.returncode}: {done.stdout}{done.stderr}\n{self.read_logs()}"
            )
        return done.stdout

    def start_link(self, port, *words):
        """Start a SuperLink and wait until it answers on its port."""
        process = self.start(
            "superlink",
            "flower-superlink",
            *("--host", "127.0.0.1", "--port", port, "--disable-runtime-dependency-installation"),
            *words,
        )
        deadline = time.monotonic() + 100
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
                return process
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the SuperLink did not start: {self.read_logs()}")
            time.sleep(0.1)

    def start_node(self, place, superlink, authority, key):
        """Start the SuperNode of a hospital, with TLS and its key."""
        config = f'hospital="{place.name}" client={place.client} data="{place.data}"'
        return self.start(
            place.name,
            "flower-supernode",
            *("--superlink", superlink, "--root-certificates", authority),
            *("--auth-supernode-private-key", key, "--host", "127.0.0.1", "--port", find_port()),
            *("--node-config", config),
        )

    def read_logs(self):
        """Return the end of every log."""
        logs = sorted(self.folder.glob("*.log"))
        return "\n".join(f"== {log.name}\n{log.read_text(errors='replace')[-3000:]}" for log in logs)

    def stop(self):
        """End what was started, and what that started, by its number."""
        processes = []
        for process in self._running:
            with contextlib.suppress(psutil.NoSuchProcess):
                processes += [*process.children(recursive=True), process]
        for action in ("terminate", "kill"):
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    getattr(process, action)()
            _, processes = psutil.wait_procs(processes, timeout=5)
        self._running = []


@contextlib.contextmanager
def flower_processes(folder):
    """Give `FlowerProcesses` that are stopped in the end."""
    processes = FlowerProcesses(folder)
    try:
        yield processes
    finally:
        processes.stop()
