"""The console's menus as widgets, whose buttons are pressed without a browser."""

import re

import numpy as np
import pytest
import yaml
from hospital_helpers import ROOT, make_all_certificates, make_arrays, make_state, running

from fedutils.errors import InputError
from fedutils.hospital.actions import Hospital
from fedutils.hospital.panel import Federation, Log, Panel
from fedutils.hospital.settings import load_settings
from fedutils.hospital.workspace import Workspace

HOSPITALS = ("alpha", "beta")


@pytest.fixture
def server(tmp_path):
    make_state(tmp_path / "state.db")
    with running(tmp_path, make_all_certificates(tmp_path / "certificates", HOSPITALS)) as started:
        yield started


@pytest.fixture
def federation(tmp_path, server):
    opened = []
    for name in HOSPITALS:
        entries = {
            "server": f"localhost:{server.port}",
            "certificates": str(server.certificates / name),
            "data": "images",
            "epochs": 1,
            "batch_size": 8,
            "learning_rate": 0.01,
            "work": f"work_{name}",
        }
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(entries))
        opened.append((name, Hospital(load_settings(tmp_path / f"{name}.yaml"), name, waits_s=())))
    with server.console("operator", waits_s=()) as operator:
        yield Federation(operator, opened)
    for _, hospital in opened:
        hospital.close()


def text(widget):
    """Return what a panel's last action led to, without its markup."""
    return re.sub("<[^>]*>", "", widget.value)


def test_the_panels_have_what_the_menus_have(federation):
    assert list(federation.server.buttons) == [
        "Aggregate weights",
        "Check version number",
        "Get number of sets of weights collected",
    ]
    for panel in federation.hospitals.values():
        assert list(panel.buttons)[:3] == ["Get weights from server", "Train model", "Send weights to server"]
        assert list(panel.buttons)[3:] == ["Evaluate", "Save"]


def test_a_round_is_pressed_together_and_the_servers_panel_follows(tmp_path, federation):
    server, hospitals = federation.server, federation.hospitals
    assert text(server.state) == "version 0, 0 sets of weights collected"
    for seed, (name, panel) in enumerate(hospitals.items(), 1):
        panel.buttons["Get weights from server"].click()
        assert text(panel.status) == "got version 0: 3 layers, 62 weights"
        workspace = Workspace(tmp_path / f"work_{name}")
        workspace.keep_trained(0, seed, workspace.load_received().layers, make_arrays(seed))
        panel.buttons["Send weights to server"].click()
        assert text(server.state) == f"version 0, {seed} sets of weights collected"
    server.buttons["Get number of sets of weights collected"].click()
    assert text(server.status) == "2 collected"
    server.buttons["Aggregate weights"].click()
    assert text(server.status) == "version 1" and text(server.state).startswith("version 1, 0 sets")
    hospitals["alpha"].buttons["Get weights from server"].click()
    got = Workspace(tmp_path / "work_alpha").load_received().arrays
    for mean, one, two in zip(got, make_arrays(1), make_arrays(2), strict=True):
        assert np.allclose(mean, (one.astype(np.float64) + 2 * two) / 3, rtol=1e-6)
    assert [line.split("  ")[1].split(":")[0] for line in federation.record.lines] == [
        "Hospital alpha",
        "Server",
        "Server",
        *["Hospital beta"] * 2,
        *["Hospital alpha"] * 2,
    ]


def test_what_is_refused_is_shown_and_the_buttons_work_again(federation, server):
    alpha = federation.hospitals["alpha"]
    alpha.buttons["Send weights to server"].click()
    assert "error:" in text(alpha.status) and "train the model first" in text(alpha.status)
    federation.server.buttons["Aggregate weights"].click()
    assert "NOTHING_COLLECTED" in text(federation.server.status)
    assert not any(
        button.disabled for button in (*alpha.buttons.values(), *federation.server.buttons.values())
    )
    server.kill()
    alpha.buttons["Get weights from server"].click()
    assert "expected a server that answers" in text(alpha.status)
    assert "expected a server that answers" in text(federation.server.state)


def test_no_button_can_be_pressed_while_one_is_at_work():
    seen, log = [], Log()
    panel = Panel("Name", {"Look": lambda: seen.append(panel.buttons["Look"].disabled) or "<b>"}, log)
    panel.buttons["Look"].click()
    assert seen == [True] and not panel.buttons["Look"].disabled
    assert "&lt;b&gt;" in panel.status.value and "&lt;b&gt;" in log.value

    def break_down():
        raise ZeroDivisionError

    broken = Panel("Name", {"Break": break_down}, log)
    with pytest.raises(ZeroDivisionError):
        broken._do("Break", break_down)
    assert not broken.buttons["Break"].disabled


def test_a_hospital_keeps_a_journal_of_what_it_did_well_or_not(tmp_path, federation):
    alpha = federation.hospitals["alpha"]
    alpha.buttons["Get weights from server"].click()
    alpha.buttons["Send weights to server"].click()
    got, sent = Workspace(tmp_path / "work_alpha").read_journal()
    assert (got["action"], got["good"], sent["action"], sent["good"]) == ("get", True, "send", False)
    assert got["told"].startswith("got version 0") and "train the model first" in sent["told"]
    assert got["begin"] <= got["end"] <= sent["begin"] <= sent["end"]
    assert Workspace(tmp_path / "empty").read_journal() == []
    with pytest.raises(InputError):
        Hospital(load_settings(tmp_path / "alpha.yaml"), "alpha").do("train")  # no images there
    assert len(Workspace(tmp_path / "work_alpha").read_journal()) == 3


def test_the_panels_of_the_page_can_be_made(tmp_path, monkeypatch):
    page = (ROOT / "docs" / "hospitals.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (settings,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "alpha.yaml").write_text(settings)
    make_all_certificates(tmp_path / "certificates", ["alpha"])
    monkeypatch.chdir(tmp_path)
    # Port 1 of this machine, and once: nobody answers there.
    code = code.replace('("fl.example.org", 9095)', '("localhost", 1)')
    code = code.replace('"operator")', '"operator", waits_s=())').replace(
        "\nFederation(", "\npanels = Federation("
    )
    made = {}
    exec(code, made)
    assert list(made["panels"].hospitals) == ["alpha"]
    assert "localhost:1: expected a server that answers" in made["panels"].server.state.value
