"""Certificates that are withdrawn: they stop working at once, and nobody else's does."""

import pytest
from hospital_helpers import Calls, make_all_certificates, make_arrays, make_state, running

from fedutils.cli import main
from fedutils.errors import InputError
from fedutils.hospital.certificates import make_certificates
from fedutils.hospital.client import Refusal
from fedutils.hospital.revocation import FILE, DenyList, find_serials, revoke
from fedutils.hospital.service import Refused, name_reason
from fedutils.hospital.state import read_log
from fedutils.hospital.wire import Closed


@pytest.fixture
def certificates(tmp_path):
    return make_all_certificates(tmp_path / "certificates", ("beta", "beta-2"))


def withdraw(certificates, *options):
    return main(["hospital", "revoke", "--out", str(certificates), *options])


def test_a_withdrawn_certificate_ends_in_mid_submission_and_cannot_come_back(tmp_path, certificates, capsys):
    layers = make_state(tmp_path / "state.db")
    with running(tmp_path, certificates) as server, server.connect("beta") as secure:
        calls = Calls(secure)
        calls.begin_submission("beta", 0, 3, [layer.to_thrift() for layer in layers])
        assert withdraw(certificates, "--hospital", "beta") == 0
        assert "withdrawn: beta, serial" in capsys.readouterr().out
        with pytest.raises(Refused, match="found that of beta withdrawn") as caught:
            calls.send_chunk(0, b"1234")
        assert name_reason(caught.value) == "WITHDRAWN"
        with pytest.raises((Closed, OSError)), server.connect("beta") as again:
            Calls(again).version_number()
        with server.console("beta-2") as other:  # whose name begins alike
            other.send(0, 3, make_arrays(1), layers)
            assert other.count_collected() == 1
        turned_away = [e["reason"] for e in read_log(server.state) if e["event"] == "turned away"]
        assert len(turned_away) == 1 and "found that of beta withdrawn" in turned_away[0]


def test_a_hospital_gets_a_new_certificate_after_the_old_one_was_withdrawn(tmp_path, certificates):
    layers = make_state(tmp_path / "state.db")
    assert withdraw(certificates, "--hospital", "beta") == 0
    (certificates / "beta").rename(tmp_path / "stolen")
    make_certificates(certificates, ["beta"])
    with running(tmp_path, certificates) as server, server.console("beta") as beta:
        beta.send(0, 3, make_arrays(1), layers)
        assert beta.count_collected() == 1
        assert withdraw(certificates, "--hospital", "beta") == 0  # now both
        with pytest.raises(Refusal, match="WITHDRAWN"):
            beta.get_version()
    assert len((certificates / "server" / FILE).read_text().split("\n")) == 3


def test_withdrawing_is_remembered_once_by_number_too_and_in_another_folder(tmp_path, certificates, capsys):
    (serial,) = find_serials(certificates, "beta")
    (tmp_path / "elsewhere").mkdir()
    words = ["--serial", serial.upper(), "--server", str(tmp_path / "elsewhere")]
    assert withdraw(certificates, *words) == 0 and withdraw(certificates, *words) == 0
    assert [line.split()[0] for line in (tmp_path / "elsewhere" / FILE).read_text().splitlines()] == [
        serial.upper()
    ]
    assert not (certificates / "server" / FILE).exists()
    assert "0 added to" in capsys.readouterr().out.splitlines()[-1]
    denied = DenyList(tmp_path / "elsewhere" / FILE)
    assert denied.holds(serial) and not denied.holds("1")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "expected --hospital or --serial, found neither"),
        (["--hospital", "omega"], "expected certificates that were issued to omega, found none"),
        (["--serial", "xyz"], "expected serial numbers in hexadecimal digits, found 'xyz'"),
        (["--serial", "1", "--server", "/nowhere"], "expected the server's folder of certificates"),
    ],
)
def test_what_cannot_be_withdrawn_is_said_in_a_line(certificates, options, message, capsys):
    assert withdraw(certificates, *options) == 2
    assert message in capsys.readouterr().err
    assert not (certificates / "server" / FILE).exists()


def test_a_list_that_cannot_be_read_lets_nobody_in(tmp_path, certificates):
    path = certificates / "server" / FILE
    revoke(path.parent, {"1": "somebody"})
    denied = DenyList(path)
    assert not denied.holds("2")
    path.write_text("1 somebody\nnot a number\n")
    with pytest.raises(InputError, match="found 'not'"):
        denied.holds("2")
    make_state(tmp_path / "state.db")
    with pytest.raises(RuntimeError, match="expected serial numbers in hexadecimal digits"):
        running(tmp_path, certificates).__enter__()


def test_the_authority_keeps_what_it_needs_to_withdraw_and_no_key_of_a_hospital(certificates):
    issued = sorted((certificates / "authority" / "issued").iterdir())
    names = [path.name.rpartition("-")[0] for path in issued]
    assert sorted(names) == ["beta", "beta-2", "operator", "server"]
    assert all("PRIVATE" not in path.read_text() for path in issued)
    assert list(find_serials(certificates, "operator").values()) == ["operator"]
