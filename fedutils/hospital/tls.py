"""Mutual TLS 1.3: who may connect, and who it is that has connected."""

import ssl
import stat
from pathlib import Path

from fedutils.errors import InputError

ROLES = ("hospital", "operator", "server")


def make_context(folder: Path, name: str, *, server: bool) -> ssl.SSLContext:
    """Return a TLS context from ``<name>.pem``, ``<name>.key`` and ``authority.pem``.

    Both sides must show a certificate of that authority, which is good now and is for their side.

    Parameters
    ----------
    folder : Path
        As `fedutils.hospital.certificates.make_certificates` writes.
    name : str
        The hospital, ``operator`` or ``server``.
    server : bool

    Raises
    ------
    InputError
        If a file is missing or no certificate, the key is of another one, or others can read it.
    """
    folder = Path(folder)
    files = folder / "authority.pem", folder / f"{name}.pem", folder / f"{name}.key"
    for file in files:
        if not file.is_file():
            raise InputError(
                f"{file}: expected a file of 'fedutils hospital certificates', found none; point to the "
                f"folder {name}/ that was made there"
            )
    if (mode := stat.S_IMODE(files[2].stat().st_mode)) & 0o077:
        raise InputError(
            f"{files[2]}: expected a key for its owner alone (600), found {mode:o}; chmod 600 it"
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED  # of hospitals too; a client also checks the server's name
    if server:
        context.num_tickets = 0  # every connection shows its certificate anew
    try:
        context.load_verify_locations(files[0])
        context.load_cert_chain(files[1], files[2], password=lambda: b"")
    except (ssl.SSLError, OSError) as error:
        raise InputError(
            f"{folder}: expected certificates and a key that belong together, found: "
            f"{getattr(error, 'reason', None) or error}; issue them again"
        ) from None
    return context


def read_peer(certificate: dict | None) -> tuple[str, str]:
    """Return the name and the role (of `ROLES`) in the certificate that the other side has shown.

    Raises
    ------
    InputError
        If it says neither.
    """
    fields: dict[str, list[str]] = {}
    for part in (certificate or {}).get("subject", ()):
        for key, value in part:
            fields.setdefault(key, []).append(value)
    names, roles = fields.get("commonName", []), fields.get("organizationalUnitName", [])
    if len(names) != 1 or len(roles) != 1 or roles[0] not in ROLES:
        raise InputError("certificate: expected one name and one role, found others; issue it again")
    return names[0], roles[0]
