"""A run that is killed at any moment goes on, and ends as the run that was never killed."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

NUM_ROUNDS = 20
RUN = """
import hashlib, json, sys
sys.path.insert(0, {tests!r})
from test_training import VALIDATION, build_model, make_clients, weights_of
from fedutils import runtime
from fedutils.algorithms import build_process
from fedutils.federated import train_federated
runtime.use("in_process")
model = build_model()
# Momentum on the server, so that there is state besides the weights.
process = build_process(model, client_learning_rate=0.05, server_optimizer="sgdm", server_learning_rate=0.5)
print("ready", flush=True)
run = train_federated(
    process, model, make_clients(), VALIDATION,
    num_rounds={num_rounds}, clients_per_round=2, folder={folder!r},
)
digest = hashlib.sha256(b"".join(w.tobytes() for w in weights_of(model))).hexdigest()
history = [{{k: v for k, v in entry.items() if k != "seconds"}} for entry in run.history]
print(json.dumps({{"digest": digest, "best": run.best, "history": history}}))
"""


def start(folder):
    code = RUN.format(tests=str(Path(__file__).parent), folder=str(folder), num_rounds=NUM_ROUNDS)
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout.readline() == "ready\n"
    return process


def finish(process):
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return json.loads(output)


def count_rounds(folder):
    names = (path.name.removeprefix("round_") for path in folder.glob("round_*"))
    return max((int(name) for name in names if name.isdigit()), default=0)


def test_killed_at_a_random_moment_and_resumed(tmp_path):
    moment = (
        random.randint(1, 8),
        random.uniform(0, 0.4),
    )  # a round, and seconds: any moment, that is the point
    whole = start(tmp_path / "whole")
    killed = start(tmp_path / "killed")
    while count_rounds(tmp_path / "killed") < moment[0]:
        assert killed.poll() is None
        time.sleep(0.01)
    time.sleep(moment[1])
    killed.kill()
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL, f"it ended before it was killed {moment}"
    resumed = finish(start(tmp_path / "killed"))
    assert resumed == finish(whole), f"killed at {moment}"
    assert len(resumed["history"]) == NUM_ROUNDS
    assert list((tmp_path / "killed").glob("*_temp*")) == []
    rounds = (tmp_path / "killed" / "rounds.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in rounds[1:]] == [str(r) for r in range(1, NUM_ROUNDS + 1)]
