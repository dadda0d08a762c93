"""Certificates for tests: an authority of one's own, and a server that it knows as localhost."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Authority:
    """What the tests need: the authority's certificate, the server's, and the server's key."""

    der: bytes
    pem: bytes
    certificate: bytes
    key: bytes


def make_authority(name: str = "localhost", *, days: int = 9) -> Authority:
    """An authority whose server has a certificate for so many days from yesterday on; -1: it has expired."""
    now = datetime.now(UTC)
    mine, its = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"authority of {name}")])
    begun = x509.CertificateBuilder().issuer_name(issuer).not_valid_before(now - timedelta(2))
    signed = (
        begun.subject_name(issuer)
        .public_key(mine.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_after(now + timedelta(9))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(mine, SHA256())
    )
    server = (
        begun.subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .public_key(its.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_after(now + timedelta(days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(mine, SHA256())
    )
    return Authority(
        der=signed.public_bytes(Encoding.DER),
        pem=signed.public_bytes(Encoding.PEM),
        certificate=server.public_bytes(Encoding.PEM),
        key=its.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )


AUTHORITY = make_authority()
