"""A local authority, and certificates of the server, of hospitals and of an operator, for mutual TLS.

One folder each, to be handed to whom it belongs: ``authority/`` (stays with whoever issues), ``server/``,
``operator/`` and one for every hospital. Keys are of the curve P-256, unencrypted, readable by their owner
alone (0600), and are never printed.

References
----------
.. [1] D. Cooper et al., "Internet X.509 Public Key Infrastructure Certificate and Certificate Revocation
   List (CRL) Profile", RFC 5280, 2008.
"""

import datetime
import ipaddress
import os
import re
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedutils.errors import InputError
from fedutils.results import write_atomic

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_RESERVED = ("authority", "operator", "server")
_EARLIER = datetime.timedelta(minutes=5)  # clocks of hospitals differ


def check_name(name: str) -> str:
    """Return a hospital's name; raise InputError unless it can name a folder and a certificate."""
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name in _RESERVED:
        raise InputError(
            "hospital: expected a name of 1 to 63 letters, digits, '_', '.' and '-' that is none of "
            f"{', '.join(_RESERVED)}, found {name!r}; rename it"
        )
    return name


def make_certificates(
    out: Path,
    hospitals: Sequence[str] = (),
    *,
    hosts: Sequence[str] = ("localhost", "127.0.0.1"),
    days: float = 365,
    now: datetime.datetime | None = None,
) -> list[Path]:
    """Write the folders of an authority, its server, an operator and hospitals; those that are there stay.

    Parameters
    ----------
    out : Path
        Run again on the same folder, new hospitals get certificates of the authority that is there.
    hospitals : sequence of str
    hosts : sequence of str
        Names and addresses by which hospitals reach the server.
    days : float
        How long certificates are good; the authority, ten times as long.
    now : datetime, optional
        With a time zone; the present one by default.

    Returns
    -------
    list of Path
        The folders that were written.

    Raises
    ------
    InputError
        If a name or host is none, a hospital has a certificate already, or a folder cannot be written.
    """
    out, now = Path(out), now or datetime.datetime.now(datetime.UTC)
    if not 0 < days <= 3650:
        raise InputError(f"days: expected above 0, at most 3650, found {days}; mend it")
    for name in hospitals:
        if (out / check_name(name)).exists() or hospitals.count(name) > 1:
            raise InputError(
                f"{out / name}: expected a hospital without certificate, found one; leave it out, or "
                "move its folder away to issue another"
            )
    alternatives = [_read_host(host) for host in hosts]
    written = []
    if not (out / "authority").exists():
        key = ec.generate_private_key(ec.SECP256R1())
        name = _subject(f"fedutils authority {os.urandom(4).hex()}", "authority")
        builder = _begin(name, name, key.public_key(), now, days * 10).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        builder = builder.add_extension(_usage(signs=True), critical=True)
        written.append(_write(out / "authority", "authority", key, builder.sign(key, hashes.SHA256())))
    authority, signer = _load_authority(out / "authority")
    for name, role in [("server", "server"), ("operator", "operator"), *((h, "hospital") for h in hospitals)]:
        if (out / name).exists():
            continue
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _begin(_subject(name, role), authority.subject, key.public_key(), now, days)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(signs=False), critical=True)
        purpose = ExtendedKeyUsageOID.SERVER_AUTH if role == "server" else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        if role == "server":
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
        certificate = builder.add_extension(issuer, critical=False).sign(signer, hashes.SHA256())
        # What the authority must know to withdraw it: see fedutils.hospital.revocation.
        copy = out / "authority" / "issued" / f"{name}-{certificate.serial_number:x}.pem"
        write_atomic(copy, certificate.public_bytes(serialization.Encoding.PEM))
        written.append(_write(out / name, name, key, certificate, authority))
    return written


def _read_host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?", host):
            raise InputError(f"host: expected a name or an address, found {host!r}; mend it") from None
        return x509.DNSName(host)


def _subject(name: str, role: str) -> x509.Name:
    attributes = (NameOID.ORGANIZATIONAL_UNIT_NAME, role), (NameOID.COMMON_NAME, name)
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in attributes])


def _begin(subject, issuer, public_key, now, days) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder(issuer, subject, public_key, x509.random_serial_number())
    builder = builder.not_valid_before(now - _EARLIER).not_valid_after(now + datetime.timedelta(days=days))
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _load_authority(folder: Path):
    """Return the certificate and the key of an authority."""
    try:
        certificate = x509.load_pem_x509_certificate((folder / "authority.pem").read_bytes())
        key = serialization.load_pem_private_key((folder / "authority.key").read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        reason = getattr(error, "strerror", None) or "not a certificate and its key"
        raise InputError(
            f"{folder}: expected authority.pem and authority.key, found: {reason}; issue certificates where "
            "the authority's key is kept, or use a new folder"
        ) from None  # nothing of a key reaches a traceback
    return certificate, key


def _write(folder: Path, name: str, key, certificate, authority=None) -> Path:
    """Write a certificate, its key and that of its authority to a folder that only its owner can enter."""
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    files = {f"{name}.key": (secret, 0o600), f"{name}.pem": (certificate.public_bytes(pem), 0o644)}
    if authority is not None:
        files["authority.pem"] = (authority.public_bytes(pem), 0o644)
    partial = folder.with_name(f".{name}.partial")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir(mode=0o700)
        for file, (data, mode) in files.items():
            # Private from its first moment: a file that is made and then changed can be opened in between.
            with os.fdopen(
                os.open(partial / file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb"
            ) as opened:
                opened.write(data)
                opened.flush()
                os.fsync(opened.fileno())
        partial.rename(folder)
    except OSError as error:
        raise InputError(
            f"cannot write {folder}: {error.strerror}; make its folder writable, remove {partial.name} if "
            "it is there, and run again"
        ) from None
    return folder
