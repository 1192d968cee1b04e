"""Certificates that are withdrawn before their time: a deny list of serial numbers beside the server's own.

The server looks at the list when a certificate is shown and again at every call, so that a certificate that
is withdrawn stops working at once, without a restart. A hospital can be given a new one, of another serial.
"""

import re
from pathlib import Path

from cryptography import x509

from fedutils.errors import InputError
from fedutils.results import write_atomic

FILE = "revoked.txt"  # in the server's folder
_SERIAL = re.compile(r"[0-9A-Fa-f]{1,40}")


class DenyList:
    """The deny list of a server; read anew whenever its file has changed.

    Parameters
    ----------
    path : Path
        A line each: a serial number in hexadecimal digits, then whatever else. No file denies nobody.

    Raises
    ------
    InputError
        Here and later, if a line begins with no serial number: a list that cannot be read lets nobody in.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        self._seen: tuple | None = None
        self._serials: frozenset[int] = frozenset()
        self.holds("0")

    def holds(self, serial: str) -> bool:
        """Return whether the certificate of a serial number, in hexadecimal digits, was withdrawn."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return False
        seen = (found.st_ino, found.st_mtime_ns, found.st_size)
        if seen != self._seen:
            self._serials = frozenset(int(number, 16) for number in _read(self.path))
            self._seen = seen
        return int(serial, 16) in self._serials


def revoke(server: Path, serials: dict[str, str]) -> list[str]:
    """Add certificates to the deny list of a server, and return the serial numbers that are new there.

    Parameters
    ----------
    server : Path
        The server's folder, as `fedutils.hospital.certificates.make_certificates` writes it.
    serials : dict of str to str
        By serial number in hexadecimal digits, whose it is.
    """
    path = Path(server) / FILE
    if not path.parent.is_dir():
        raise InputError(
            f"{server}: expected the server's folder of certificates, found none; point --server to it"
        )
    for serial in serials:
        _check(path, serial)
    known = {int(number, 16) for number in _read(path)} if path.exists() else set()
    new = {serial: name for serial, name in serials.items() if int(serial, 16) not in known}
    if new:
        before = path.read_text() if path.exists() else ""
        lines = "".join(f"{serial} {name}\n" for serial, name in new.items())
        write_atomic(path, (before + ("\n" if before and before[-1] != "\n" else "") + lines).encode())
    return list(new)


def find_serials(folder: Path, name: str) -> dict[str, str]:
    """Return the serial numbers of all certificates that an authority has issued to a hospital.

    Parameters
    ----------
    folder : Path
        That holds ``authority/``.
    name : str

    Raises
    ------
    InputError
        If it has issued none that it knows of.
    """
    found = {}
    for path in sorted((Path(folder) / "authority" / "issued").glob(f"{name}-*.pem")):
        try:
            serial = x509.load_pem_x509_certificate(path.read_bytes()).serial_number
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: expected a certificate, found: {error}; name its --serial") from error
        if path.stem == f"{name}-{serial:x}":  # and not of a hospital whose name only begins alike
            found[f"{serial:x}"] = name
    if not found:
        raise InputError(
            f"{folder}: expected certificates that were issued to {name}, found none; mend the name, or name "
            "the --serial of its certificate"
        )
    return found


def _read(path: Path) -> list[str]:
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected a deny list, found: {error}; mend it") from error
    return [_check(path, line.split()[0]) for line in lines if line.strip()]


def _check(path: Path, serial: str) -> str:
    if not _SERIAL.fullmatch(serial):
        raise InputError(
            f"{path}: expected serial numbers in hexadecimal digits, found {serial!r:.60}; mend it"
        )
    return serial
