"""The server's certificates: its own authority, or what its owner brings.

A server without other orders is its own certificate authority. Nodes trust that authority alone, whose certificate
travels inside the join ticket: so it is short, and changing it means enrolling every node again. What it signs is one
certificate, for the server's names, renewed at a start long before it ends.

    authority   10 years from a day before it was made
    server      90 days from a day before, renewed when fewer than 30 remain, or when the names have changed

The day before is for clocks that are off. Keys are P-256: gRPC refuses certificates with Ed25519. Key and certificate
share one file, written as a whole, so that no crash can leave one without the other. ``ca.crt`` is a copy of the
authority's certificate, for programs that want a file.
"""

from __future__ import annotations

import datetime
import ipaddress
import itertools
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from umbel.errors import CorruptFile, UsageError
from umbel.store.durable import readable_errors, replace_secret

DAY: Final = 86_400.0  # seconds
AUTHORITY_LIFE: Final = 3652 * DAY
SERVER_LIFE: Final = 90 * DAY
RENEW: Final = 30 * DAY
_PLAN, _LATE = 365, 30  # days before the authority's end
_EARLY = DAY
_LOCAL = ("localhost", "127.0.0.1", "::1")
_AUTHORITY, _SERVER, _PUBLIC = "authority.pem", "server.pem", "ca.crt"
_LABEL = r"(?!-)[a-z0-9_-]{1,63}(?<!-)"
_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_KEY_ID = 8  # bytes; tells authorities apart, and any length will do

_Key = ec.EllipticCurvePrivateKey


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """What the server needs for TLS, and what its nodes need to trust it.

    Attributes:
        authority_der: the certificate that nodes trust; b"": that of a public authority, which their system knows.
        certificate_pem: the server's certificate, and those between it and the authority.
        key_pem: the server's private key.
        expires: seconds since 1970 when what nodes trust ends; of a public authority, when the certificate does.
        renewed: seconds since 1970 after which the server's certificate should be renewed.
        names: the server's names, the first of which goes into tickets.
        brought_as: where its owner has put the server's certificate; None: the server makes its own.
        is_new: was the authority made right now?
    """

    authority_der: bytes
    certificate_pem: bytes
    key_pem: bytes
    expires: float
    renewed: float
    names: tuple[str, ...]
    brought_as: Path | None = None
    is_new: bool = field(default=False, compare=False)

    def warning(self, now: float) -> str:
        """What its owner should do soon, in words; "" while there is time."""
        if self.brought_as is not None:
            left = self.renewed + RENEW - now
            when = f"expires in {_days(left)}" if left > 0 else "has expired"
            return f"the certificate {self.brought_as} {when}: bring a new one" if now > self.renewed else ""
        left = self.expires - now
        if left >= _PLAN * DAY:
            return ""
        what = "the server's certificate authority"
        if left <= 0:
            return f"{what} expired on {_day(self.expires)}: let every node join again with a new authority now"
        what = f"{what} expires on {_day(self.expires)}, in {_days(left)}"
        if left >= _LATE * DAY:
            return f"{what}; plan for every node to join again with a new ticket"
        return f"{what}; after that no node can connect: let every node join again with a new authority now"

    @classmethod
    def open(cls, directory: Path, names: Sequence[str], now: float) -> Authority:
        """The server's own authority, made if there is none, and a certificate for the names, renewed if need be.

        Args:
            directory: where they are kept.
            names: DNS names and IP addresses of the server; localhost, 127.0.0.1 and ::1 are always among them.
            now: seconds since 1970.

        Raises:
            UsageError: a name is none; or the authority has expired, or is of the future.
            CorruptFile: what is there cannot be read.
            StoreError: a file cannot be written.
        """
        wanted = tuple(dict.fromkeys(check_name(name) for name in names)) or _LOCAL[:1]
        with readable_errors(directory):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        is_new = not (directory / _AUTHORITY).exists()
        if is_new:
            replace_secret(directory / _AUTHORITY, _make_authority(now))
        key, certificate = _read(directory / _AUTHORITY)
        _check_lives(directory / _AUTHORITY, certificate, now)
        public = certificate.public_bytes(serialization.Encoding.PEM)
        if not (directory / _PUBLIC).exists() or (directory / _PUBLIC).read_bytes() != public:
            replace_secret(directory / _PUBLIC, public, mode=0o644)
        server_key, server = _server(directory / _SERVER, wanted, key, certificate, now)
        return cls(
            authority_der=certificate.public_bytes(serialization.Encoding.DER),
            certificate_pem=server.public_bytes(serialization.Encoding.PEM),
            key_pem=_pem(server_key),
            expires=_end(certificate),
            renewed=_end(server) - RENEW,
            names=wanted,
            is_new=is_new,
        )

    @classmethod
    def brought(cls, certificate: Path, key: Path, names: Sequence[str], now: float) -> Authority:
        """A certificate and a key that the server's owner brings.

        Args:
            certificate: PEM, the server's certificate first, then those that stand between it and its authority. If
                the last is its own authority, nodes get that to trust; else they trust what their system does.
            key: PEM, not encrypted.
            names: DNS names and IP addresses that the certificate must be for; none: those that it is for.
            now: seconds since 1970.

        Raises:
            UsageError: they cannot be used; says which, and why.
        """
        chain, private = _brought_chain(certificate), _brought_key(key)
        leaf = chain[0]
        if private.public_key() != leaf.public_key():
            raise UsageError(f"the key {key} does not belong to the certificate {certificate}", advice="give the other")
        wanted = tuple(dict.fromkeys(check_name(name) for name in names)) or _names_of(leaf)
        for each in chain:
            _refuse(certificate, problem(each.public_bytes(serialization.Encoding.DER), "", now))
        for name in wanted:
            _refuse(certificate, problem(leaf.public_bytes(serialization.Encoding.DER), name, now))
        for below, above in itertools.pairwise(chain):
            if not _signed_by(below, above):
                raise UsageError(
                    f"{certificate}: {_who(below)} was not signed by {_who(above)}, which stands after it",
                    advice="put the server's certificate first, and after each the one that signed it",
                )
        root = chain[-1]
        trusted = root.public_bytes(serialization.Encoding.DER) if _signed_by(root, root) else b""
        end = min(map(_end, chain))
        return cls(
            authority_der=trusted,
            certificate_pem=b"".join(each.public_bytes(serialization.Encoding.PEM) for each in chain),
            key_pem=_pem(private),
            expires=_end(root) if trusted else end,
            renewed=end - RENEW,
            names=wanted,
            brought_as=certificate,
        )


def problem(certificate: bytes, host: str, now: float, *, authority: bytes = b"") -> str:
    """What is wrong with a server's certificate, in words; "" if nothing is.

    Args:
        certificate: PEM or DER.
        host: the name or IP address by which the server is called; "": any.
        now: seconds since 1970, by this machine's clock.
        authority: the certificate, PEM or DER, of the authority that must have signed it; b"": any.
    """
    try:
        found = _load(certificate)
        issuer = _load(authority) if authority else None
    except ValueError as error:
        return f"it cannot be read: {error}"
    if not isinstance(found.public_key(), ec.EllipticCurvePublicKey) and "Ed" in type(found.public_key()).__name__:
        return "its key is Ed25519 or Ed448, which gRPC refuses: use P-256 or RSA"
    begin, end = found.not_valid_before_utc.timestamp(), _end(found)
    if now > end:
        return f"it expired on {_day(end)}, and the clock of this machine says {_day(now)}"
    if now < begin:
        return (
            f"it is valid from {_day(begin)} only, and the clock of this machine says {_day(now)}: is the clock right?"
        )
    if issuer is not None and not _signed_by(found, issuer):
        return "it was signed by another authority than the one that is trusted here: is the ticket of this server?"
    names = _names_of(found)
    if host and not any(_matches(name, host) for name in names):
        return f"it is for {', '.join(names) or 'no name'}, not for {host}"
    return ""


def check_name(name: str) -> str:
    """A server's name or IP address, as certificates have it.

    Raises:
        UsageError: it is neither.
    """
    text = name.strip().removeprefix("[").removesuffix("]").rstrip(".").lower()
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        pass
    try:
        ascii_text = text.encode("idna").decode() if not text.isascii() else text
    except UnicodeError:
        ascii_text = ""
    if len(ascii_text) > 253 or not _NAME.fullmatch(ascii_text):
        raise UsageError(
            f"{name!r} is no name of a server", advice="give a DNS name or an IP address, without scheme or port"
        )
    return ascii_text


def _server(
    file: Path, names: Sequence[str], key: _Key, authority: x509.Certificate, now: float
) -> tuple[_Key, x509.Certificate]:
    """The server's key and certificate: those of the file if they still serve, else new ones."""
    wanted = {*names, *_LOCAL}
    if file.exists():
        try:
            own, certificate = _read(file)
            enough = min(now + RENEW, _end(authority) - 1)
            fits = set(_names_of(certificate)) == wanted and _signed_by(certificate, authority)
            if fits and certificate.not_valid_before_utc.timestamp() <= now and _end(certificate) >= enough:
                return own, certificate
        except CorruptFile:
            pass  # nobody trusts it in particular: a new one is as good
    replace_secret(file, _make_server(sorted(wanted), key, authority, now))
    return _read(file)


def _make_authority(now: float) -> bytes:
    """Key and certificate, in PEM; the certificate as short as strict programs accept."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "umbel")])
    usage = x509.KeyUsage(
        key_cert_sign=True,
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(secrets.randbits(31) + 1)
        .not_valid_before(_date(now - _EARLY))
        .not_valid_after(_date(now + AUTHORITY_LIFE))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier(secrets.token_bytes(_KEY_ID)), critical=False)
        .sign(key, hashes.SHA256())
    )
    return _pem(key) + made.public_bytes(serialization.Encoding.PEM)


def _make_server(names: Iterable[str], key: _Key, authority: x509.Certificate, now: float) -> bytes:
    """Key and certificate for these names, in PEM."""
    own = ec.generate_private_key(ec.SECP256R1())
    identifier = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "umbel server")]))
        .issuer_name(authority.subject)
        .public_key(own.public_key())
        .serial_number(secrets.randbits(63) + 1)
        .not_valid_before(_date(max(now - _EARLY, authority.not_valid_before_utc.timestamp())))
        .not_valid_after(_date(min(now + SERVER_LIFE, _end(authority))))
        .add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier(identifier.digest, None, None), critical=False)
        .sign(key, hashes.SHA256())
    )
    return _pem(own) + made.public_bytes(serialization.Encoding.PEM)


def _days(seconds: float) -> str:
    days = round(seconds / DAY)
    return f"{days} day{'s' if days != 1 else ''}"


def _check_lives(file: Path, authority: x509.Certificate, now: float) -> None:
    begin, end = authority.not_valid_before_utc.timestamp(), _end(authority)
    if now > end:
        raise UsageError(
            f"the server's certificate authority, {file}, expired on {_day(end)}",
            advice=f"move {file.parent} away, start again, and let every node join with a new ticket",
        )
    if now < begin:
        raise UsageError(
            f"the clock of this machine says {_day(now)}, before the certificate authority {file} was made",
            advice="set the clock",
        )


def _read(file: Path) -> tuple[_Key, x509.Certificate]:
    """Key and certificate of one of our own files."""
    try:
        content = file.read_bytes()
        key = serialization.load_pem_private_key(content, None)
        certificate = x509.load_pem_x509_certificate(content)
    except (ValueError, TypeError, OSError) as error:
        raise CorruptFile(f"{file} cannot be read: {error}", advice="bring it back from a backup") from error
    if not isinstance(key, _Key) or key.public_key() != certificate.public_key():
        raise CorruptFile(f"key and certificate of {file} do not belong together", advice="bring it back from a backup")
    return key, certificate


def _brought_chain(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except (ValueError, OSError) as error:
        raise UsageError(f"{path} holds no certificate: {error}", advice="give a file in PEM") from error


def _brought_key(path: Path) -> PrivateKeyTypes:
    try:
        return serialization.load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError, OSError) as error:
        raise UsageError(
            f"{path} holds no private key that can be read: {error}", advice="give a file in PEM, not encrypted"
        ) from error


def _refuse(path: Path, what: str) -> None:
    if what:
        raise UsageError(f"the certificate {path} cannot be used: {what}", advice="bring another, or correct --name")


def _load(certificate: bytes) -> x509.Certificate:
    if b"-----BEGIN" in certificate:
        return x509.load_pem_x509_certificate(certificate)
    return x509.load_der_x509_certificate(certificate)


def _signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def _names_of(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    names = [*found.get_values_for_type(x509.DNSName), *map(str, found.get_values_for_type(x509.IPAddress))]
    return tuple(name.lower() for name in names)


def _matches(name: str, host: str) -> bool:
    """Is a certificate for this name one for this host? A star stands for the first part of a DNS name."""
    try:
        called = check_name(host)
    except UsageError:
        return False
    first, dot, rest = called.partition(".")
    return name == called or (name.startswith("*.") and bool(first and dot) and name[2:] == rest)


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(key: PrivateKeyTypes) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _who(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string() or "a certificate without a name"


def _date(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(int(seconds), datetime.UTC)


def _day(seconds: float) -> str:
    return f"{_date(seconds):%Y-%m-%d %H:%M} UTC"


def _end(certificate: x509.Certificate) -> float:
    return certificate.not_valid_after_utc.timestamp()


__all__ = ["AUTHORITY_LIFE", "DAY", "RENEW", "SERVER_LIFE", "Authority", "check_name", "problem"]
