"""Where a server is, and all else that one needs to come in: one line to copy.

    umbel://fed.example.org:8443/SECRET

SECRET is text of A-Z, a-z, 0-9, "-" and "_": the base64 form (RFC 4648, section 5, without "=") of

    1 byte    1, the version of this form
    16 bytes  the secret of the ticket or token
    n bytes   the certificate of the server's authority (DER), or none where a public authority has signed
    4 bytes   the first of SHA-256 of the bytes before

so that a mistyped, or cut off, address is told apart from one that the server does not accept. Host and port may be
changed by hand, as where a port is forwarded. What the server is given, and compares, is `secret_text` alone.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import ipaddress
import re
from dataclasses import dataclass, field
from typing import final

from umbel.errors import UsageError

PORT = 8443
SECRET = 16
"""Bytes of a secret."""
_FORM, _CHECK = b"\x01", 4
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?", re.IGNORECASE | re.ASCII)
_EXAMPLE = "an address looks like umbel://fed.example.org:8443/SECRET"
_COPY = "copy the whole line that the server printed, or ask its operator for a new one"


@final
@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is, with a secret that lets one in.

    Attributes:
        host: a name, or an IP address; an IPv6 address without brackets.
        port: its port.
        secret: 16 random bytes; b"" in an address that has none.
        authority: the certificate of the server's authority (DER); None: one that the system knows.
    """

    host: str
    port: int = PORT
    secret: bytes = field(default=b"", repr=False)
    authority: bytes | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "host", _host(self.host))
        if not 1 <= self.port <= 65535:
            raise UsageError(f"there is no port {self.port}", advice="ports are 1 to 65535")
        if len(self.secret) not in (0, SECRET):
            raise UsageError(f"a secret has {SECRET} bytes, not {len(self.secret)}")
        if self.authority is not None and not self.secret:
            raise UsageError("an address without a secret carries no certificate")

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read an address, as a server prints it or as a person types it.

        Raises:
            UsageError: it is none; says whether it is cut off or mistyped.
        """
        text = "".join(text.split())  # mail breaks lines
        scheme, found, rest = text.partition("://")
        if not found:
            scheme, rest = "umbel", text
        if scheme.lower() != "umbel":
            raise UsageError(f"{scheme[:20]}:// is not the address of a server", advice=_EXAMPLE)
        place, _, secret = rest.partition("/")
        host, port = _place(place)
        made = cls(host, port)
        return made._opened(secret.rstrip("/")) if secret.strip("/") else made

    def _opened(self, text: str) -> Address:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", text):
            raise UsageError("the address has a character behind the last slash that none has", advice=_COPY)
        try:
            data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except binascii.Error:
            data = b""
        if len(data) <= SECRET + _CHECK:
            raise UsageError(
                f"the address is cut off: behind the last slash it has {len(text)} characters", advice=_COPY
            )
        body, check = data[:-_CHECK], data[-_CHECK:]
        if check != _checksum(body):
            raise UsageError(
                f"the address is cut off or mistyped: what stands behind the last slash ({len(text)} characters) is "
                "not what the server printed",
                advice=_COPY,
            )
        if body[:1] != _FORM:
            raise UsageError("the address is of a newer form than this program knows", advice="update umbel here")
        return Address(self.host, self.port, body[1 : 1 + SECRET], body[1 + SECRET :] or None)

    @property
    def target(self) -> str:
        """Host and port, as in an URL."""
        return target_of(self.host, self.port)

    @property
    def secret_text(self) -> str:
        """The secret as text: what EnrolRequest.ticket and a bearer token say; "" if there is none."""
        return base64.urlsafe_b64encode(self.secret).rstrip(b"=").decode()

    @property
    def pem(self) -> bytes | None:
        """The authority's certificate as PEM."""
        if self.authority is None:
            return None
        text = base64.b64encode(self.authority).decode()
        lines = [text[i : i + 64] for i in range(0, len(text), 64)]
        return "\n".join(("-----BEGIN CERTIFICATE-----", *lines, "-----END CERTIFICATE-----", "")).encode()

    def without_secret(self) -> str:
        """The address as it may stand in logs and messages."""
        return f"umbel://{self.target}"

    def __str__(self) -> str:
        """The whole address, secret included."""
        if not self.secret:
            return self.without_secret()
        body = _FORM + self.secret + (self.authority or b"")
        text = base64.urlsafe_b64encode(body + _checksum(body)).rstrip(b"=").decode()
        return f"{self.without_secret()}/{text}"


def _checksum(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()[:_CHECK]


def target_of(host: str, port: int) -> str:
    """Host and port, as in an URL.

    Args:
        host: a name, or an IP address; an IPv6 address with or without brackets.
        port: its port; 0 where a free one is meant.
    """
    return f"[{host.strip('[]')}]:{port}" if ":" in host else f"{host}:{port}"


def _place(place: str) -> tuple[str, int]:
    match = re.fullmatch(r"(?:\[(?P<six>[^\]]*)\]|(?P<host>[^:\[\]]*))(?::(?P<port>[^:]*))?", place)
    if match is None:
        advice = f"put an IPv6 address in brackets: umbel://[{place[:60]}]:{PORT}" if place.count(":") > 1 else _EXAMPLE
        raise UsageError(f"{place[:80]!r} is no host and port", advice=advice)
    port = match["port"]
    if port is None:
        return match["six"] or match["host"] or "", PORT
    if not (port.isascii() and port.isdigit() and len(port) <= 5):
        raise UsageError(f"{port[:20]!r} is no port", advice=_EXAMPLE)
    return match["six"] or match["host"] or "", int(port)


def _host(host: str) -> str:
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        pass
    if len(host) > 253 or _HOST.fullmatch(host) is None:
        raise UsageError(f"{host[:80]!r} is no name of a host", advice=_EXAMPLE)
    return host.lower().rstrip(".")


__all__ = ["PORT", "SECRET", "Address", "target_of"]
