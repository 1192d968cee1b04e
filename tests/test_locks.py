"""Two processes on one folder: the second waits in one line, and goes on when the first is gone."""

import errno
import subprocess
import sys
import threading

import pytest

from fedutils import locks
from fedutils.errors import InputError

HOLD = """
import sys
from pathlib import Path
from fedutils.locks import hold
with hold(Path({folder!r})):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Start a process that holds a folder until it is killed or its input ends."""
    code = HOLD.format(folder=str(tmp_path / "run"))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


@pytest.mark.parametrize("end", [lambda p: p.kill(), lambda p: p.stdin.close()], ids=["killed", "done"])
def test_a_second_process_waits_and_says_for_whom_until_the_first_has_ended(
    holder, end, tmp_path, monkeypatch, capsys
):
    told, entered, tell = threading.Event(), threading.Event(), locks._tell

    def tell_and_note(*words):
        tell(*words)
        told.set()

    def enter():
        with locks.hold(tmp_path / "run"):
            entered.set()

    monkeypatch.setattr(locks, "_tell", tell_and_note)
    second = threading.Thread(target=enter)
    second.start()
    assert told.wait(20) and not entered.wait(0.1)
    end(holder)
    second.join(20)
    assert entered.is_set()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{tmp_path / 'run'}: process {holder.pid} on ") and "trains here; waiting" in line


def test_who_holds_a_folder_may_hold_it_again_and_others_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "_tell", None)  # nobody waits
    (tmp_path / "link").symlink_to(tmp_path / "run")
    for _ in range(2):
        with locks.hold(tmp_path / "run"), locks.hold(tmp_path / "link"), locks.hold(tmp_path / "other"):
            pass
    with locks.hold(None):
        assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "other", "run"]


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    words = r"cannot write .*file: File exists; make the folder writable"
    with pytest.raises(InputError, match=words), locks.hold(tmp_path / "file"):
        pass


def test_a_disk_that_knows_no_locks_holds_up_nobody(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    with locks.hold(tmp_path / "run"):
        assert (tmp_path / "run").is_dir()
