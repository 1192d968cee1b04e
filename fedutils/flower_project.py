"""The folder that ``flwr run`` is given, and the keys by which a SuperLink knows its SuperNodes.

The project holds no code: its configuration names the apps of the installed `fedutils`, and so every machine
runs the version that it has.
"""

import dataclasses
import json
import os
from pathlib import Path

from fedutils.errors import InputError
from fedutils.flower_settings import AppSettings
from fedutils.hospital.certificates import check_name
from fedutils.results import write_atomic

_PROJECT = """\
[project]
name = "fedutils-federation"
version = "1.0.0"
description = "Federated training of a classifier of brain MRI; not for clinical use"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "fedutils"

[tool.flwr.app.components]
serverapp = "fedutils.flower_app:server"
clientapp = "fedutils.flower_app:client"

[tool.flwr.app.config]
{config}
"""
_CONNECTIONS = """\
[superlink]
default = "hospitals"

[superlink.hospitals]
address = {address}
root-certificates = {authority}

[superlink.simulation]
address = "127.0.0.1:{simulation_port}"
insecure = true
"""


def write_project(
    out: Path,
    settings: AppSettings,
    *,
    superlink: str,
    authority: Path,
    simulation_port: int = 8000,
) -> None:
    """Write ``app/pyproject.toml``, for ``flwr run``, and ``home/config.toml``, for ``FLWR_HOME``.

    Parameters
    ----------
    out : Path
        Files of before are replaced.
    settings : AppSettings
        Its paths become absolute: the server's app runs in another folder.
    superlink : str
        ``host:port`` of the SuperLink, a name that is in its certificate.
    authority : Path
        ``authority.pem``, by which that certificate is checked.
    simulation_port : int
        On this machine, of a SuperLink that simulates.

    Raises
    ------
    InputError
        If the address is none or a folder cannot be written.
    """
    host, _, port = superlink.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise InputError(f"--superlink: expected host:port, found {superlink!r}; mend it")
    out = Path(out)
    entries = dataclasses.asdict(settings)
    for name in ("model", "validation", "out", "simulated_hospitals"):
        entries[name] = str(Path(entries[name]).absolute()) if entries[name] else ""
    config = "\n".join(f"{name.replace('_', '-')} = {json.dumps(value)}" for name, value in entries.items())
    write_atomic(out / "app" / "pyproject.toml", _PROJECT.format(config=config).encode())
    connections = _CONNECTIONS.format(
        address=json.dumps(superlink),
        authority=json.dumps(str(Path(authority).absolute())),
        simulation_port=simulation_port,
    )
    write_atomic(out / "home" / "config.toml", connections.encode())


def make_node_key(out: Path, hospital: str) -> tuple[Path, Path]:
    """Make the key pair of a hospital's SuperNode, in its own folder; the private one never leaves it.

    Returns
    -------
    private, public : Path
        ``NAME.flower.key`` (0600) and ``NAME.flower.pub``, of the curve P-384, in OpenSSH's format, as Flower
        wants them.

    Raises
    ------
    InputError
        If there is a key already or it cannot be written.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    folder = Path(out)
    private, public = (folder / f"{check_name(hospital)}.flower.{kind}" for kind in ("key", "pub"))
    key = ec.generate_private_key(ec.SECP384R1())
    openssh = serialization.PrivateFormat.OpenSSH
    secret = key.private_bytes(serialization.Encoding.PEM, openssh, serialization.NoEncryption())
    formats = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Private from its first moment: a file that is made and then changed can be opened in between.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with os.fdopen(os.open(private, flags, 0o600), "wb") as file:
            file.write(secret)
    except OSError as error:
        raise InputError(
            f"cannot write {private}: {error.strerror}; name a folder that is writable and has no such key"
        ) from None  # nothing of a key reaches a traceback
    write_atomic(public, key.public_key().public_bytes(*formats) + b"\n")
    return private, public
