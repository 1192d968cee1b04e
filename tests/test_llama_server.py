"""A real llama.cpp server with a LLaMA of random weights, where FEDUTILS_LLAMA names a Python that has it.

That Python needs the packages ``llama-cpp-python[server]`` and ``gguf``. Random weights write no report: what
is tested is that a real server is asked, streams, and that the rules write what it cannot.
"""

import os
import socket
import subprocess
import time
from pathlib import Path

import httpx
import pytest
from adversarial_replies import make_facts

from fedutils.report_llm import Endpoint, ask
from fedutils.report_prose import compose

LLAMA = os.environ.get("FEDUTILS_LLAMA")
pytestmark = pytest.mark.skipif(not LLAMA, reason="no llama.cpp: set FEDUTILS_LLAMA to a Python that has it")


@pytest.fixture(scope="module")
def llama_url(tmp_path_factory):
    """Write the model, start the server on a free port of this machine, and stop it afterwards."""
    folder = tmp_path_factory.mktemp("llama")
    model = folder / "tiny.gguf"
    subprocess.run([LLAMA, Path(__file__).with_name("tiny_llama.py"), model], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [LLAMA, "-m", "llama_cpp.server", "--model", model, "--host", "127.0.0.1", "--port", str(port)]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([*command, "--n_ctx", "16384"], stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            assert server.poll() is None, (folder / "log").read_text(errors="replace")[-2000:]
            try:
                httpx.get(f"{url}/v1/models", trust_env=False)
                break
            except httpx.TransportError:
                time.sleep(0.1)
        yield url
    finally:
        server.kill()  # it may still be writing a reply that nobody waits for
        server.wait()


def test_a_real_server_streams_and_what_random_weights_write_is_refused(llama_url, monkeypatch):
    monkeypatch.setattr("fedutils.report_llm.MAX_TOKENS", 200)  # random weights never come to an end
    pieces = []
    facts = make_facts("image")
    prose = ask(facts, Endpoint(llama_url, "tiny", timeout_s=300), pieces.append)
    assert len(pieces) > 10, prose.reason  # signs came, one after another
    assert prose.author == "rules" and prose.sections == compose(facts).sections
    assert prose.reason.startswith(("the language model's text was refused", "the language model did not"))


def test_a_real_server_that_is_too_slow_is_left(llama_url):
    started = time.perf_counter()
    prose = ask(make_facts("case"), Endpoint(llama_url, "tiny", timeout_s=0.05, retries=0))
    assert prose.reason == "the language model did not answer: no whole reply within 0.05 s"
    assert time.perf_counter() - started < 5
