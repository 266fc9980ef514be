"""The engine's own authority and its certificate, for hosts that reach it over a network.

The authority is made once and stays in the state directory; the server's certificate is made anew at every start, so
it always names the addresses there are. Elliptic keys (P-256); the `cryptography` library does all of it.
"""

import datetime
import ipaddress
import os
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from enisle.errors import HostError
from enisle.tasks.connection import AUTHORITY

AUTHORITY_DAYS = 3650
SERVER_DAYS = 825
SKEW = datetime.timedelta(hours=1)
"""Clocks of hosts may be behind ours by this much."""


def write_certificates(directory: Path, names: Iterable[str]) -> None:
    """Put ca.pem (once), server.pem and server.key under `directory`. Raises HostError without the library."""
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError:
        why = "cryptography is not installed"
        raise HostError("the engine cannot be encrypted", why, "pip install 'enisle[platform]'") from None
    key, authority = _authority(directory)
    own = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "enisle engine")])
    certificate = (
        _begun(subject, authority.subject, own.public_key(), SERVER_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([_name(name) for name in sorted(set(names))]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .sign(key, _sha256())
    )
    _write(directory / "server.key", _pem(own))
    _write(directory / "server.pem", certificate.public_bytes(_encoding()))


def addresses(listen: str) -> list[str]:
    """Return the names and addresses this computer may be reached by."""
    found = ["localhost", "127.0.0.1", "::1", socket.gethostname(), outward_address()]
    return found if listen in ("0.0.0.0", "::") else [*found, listen]


def outward_address() -> str:
    """Return the address other computers see; nothing is sent for it (connect(2) on a datagram socket)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # RFC 5737: belongs to nobody
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def _authority(directory: Path) -> tuple[Any, Any]:
    """Return the authority's key and certificate, made when there are none."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key_path, path = directory / "ca.key", directory / AUTHORITY
    if key_path.exists() and path.exists():
        try:
            key = serialization.load_pem_private_key(key_path.read_bytes(), None)
            return key, x509.load_pem_x509_certificate(path.read_bytes())
        except ValueError as error:
            why = f"{directory}: {error}"
            raise HostError(
                "the engine's authority is damaged", why, "remove ca.key and ca.pem; hosts join anew"
            ) from None
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, f"enisle {os.urandom(4).hex()}")])
    usage = dict.fromkeys(
        ("data_encipherment", "key_agreement", "encipher_only", "decipher_only", "content_commitment"), False
    )
    certificate = (
        _begun(subject, subject, key.public_key(), AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.KeyUsage(digital_signature=True, key_encipherment=False, key_cert_sign=True, crl_sign=True, **usage),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, _sha256())
    )
    _write(key_path, _pem(key))
    _write(path, certificate.public_bytes(_encoding()))
    return key, certificate


def _begun(subject: Any, issuer: Any, public: Any, days: int) -> Any:
    from cryptography import x509

    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _name(name: str) -> Any:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _sha256() -> Any:
    from cryptography.hazmat.primitives import hashes

    return hashes.SHA256()


def _encoding() -> Any:
    from cryptography.hazmat.primitives.serialization import Encoding

    return Encoding.PEM


def _pem(key: Any) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write(path: Path, content: bytes) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(content)
