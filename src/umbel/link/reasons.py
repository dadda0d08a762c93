"""Why no connection came about, in words: gRPC says it for those who build gRPC."""

from __future__ import annotations

import re

from umbel.errors import Incompatible, Rejected, UmbelError, Unauthenticated, Unreachable
from umbel.link.status import Status, error_of

_WAIT = "it is tried again where that makes sense; `umbel doctor` looks at the way step by step"
_AUTHORITY = (
    "join, or log in, with an address that the server printed: it carries the certificate; if it carries none, let "
    "this machine know the authority, or name its certificate with --ca; check that the server was not set up anew "
    "since, and the clocks of both machines"
)


def failed(status: Status, target: str) -> UmbelError:
    """The error for a call that ended with this status.

    Args:
        status: how it ended.
        target: host and port.
    """
    if status.name:
        return error_of(status)
    if status.code == "UNAVAILABLE":
        return _no_connection(status.text, target)
    if status.code == "DEADLINE_EXCEEDED":
        return Unreachable(f"{target} has not answered in time", advice=_WAIT)
    if status.code == "UNIMPLEMENTED":
        return Incompatible(
            f"{target} does not know this call: it is an older server, or none of Umbel's",
            advice="check the port; else update the server",
        )
    if status.code == "RESOURCE_EXHAUSTED":
        return Rejected(f"{target}: {status.text}")
    if status.code in ("CANCELLED", "UNKNOWN", "INTERNAL"):
        return Unreachable(f"the call to {target} broke off: {status.text or status.code}", advice=_WAIT)
    return error_of(status)


def _no_connection(text: str, target: str) -> UmbelError:
    host, _, port = target.rpartition(":")
    met = re.search(r"ipv[46]:(\S+:(\d+)): Failed to connect", text)
    if met is not None and met[2] != port:  # the connection did not lead there
        return Unreachable(
            f"nobody answers at {met[1]}, through which the way to {target} leads: an HTTP proxy",
            advice=f"check https_proxy and grpc_proxy; or name {host} in no_proxy",
        )
    asked = _ASKED_FOR.search(text)
    if asked is not None and asked[1] not in host:
        return Unreachable(
            f"the name {asked[1]} is not known here: an HTTP proxy, through which the way to {target} leads",
            advice=f"check https_proxy and grpc_proxy; or name {host} in no_proxy",
        )
    for pattern, make in _REASONS:
        if re.search(pattern, text, re.IGNORECASE):
            return make(host, port)
    through = _THROUGH.search(text)
    if through is not None and through[2] != port:
        return Unreachable(
            f"the way to {target}, through an HTTP proxy at {through[1]}, broke off: {_last(text)}",
            advice=f"see that this is an HTTP proxy that permits CONNECT to {target}, and that the server runs",
        )
    return Unreachable(f"there is no connection to {target}: {_last(text)}", advice=_WAIT)


_ASKED_FOR = re.compile(r"(?:resolving|resolution failed for|lookup failed for) ([^\s:]+):\d+")
_THROUGH = re.compile(r"ipv[46]:(\S+:(\d+)): ")


def _last(text: str) -> str:
    """What went wrong last, out of a long tale."""
    return text.rpartition("last error:")[2].strip()[:300] or "it broke off"


def _unknown_host(host: str, _: str) -> UmbelError:
    return Unreachable(
        f"the name {host} is not known here",
        advice="check the spelling; then the network, VPN and name server of this machine",
    )


def _refused(host: str, port: str) -> UmbelError:
    return Unreachable(
        f"nobody listens at {host}, port {port}",
        advice=f"check the port; see that `umbel server` runs there, and that a firewall lets port {port} in",
    )


def _no_way(host: str, port: str) -> UmbelError:
    return Unreachable(
        f"{host}, port {port}, cannot be reached from here",
        advice="check network and firewall of both sides; behind a proxy, set https_proxy",
    )


def _unknown_authority(host: str, port: str) -> UmbelError:
    return Unauthenticated(
        f"the certificate of {host}:{port} is signed by an authority that is not known here: wrong CA",
        advice=_AUTHORITY,
    )


def _expired(host: str, port: str) -> UmbelError:
    return Unauthenticated(
        f"the certificate of {host}:{port} is not valid now",
        advice="check the clocks of both machines; else the server's operator must renew the certificate",
    )


def _other_name(host: str, port: str) -> UmbelError:
    return Unauthenticated(
        f"the certificate of {host}:{port} is for another name than {host}",
        advice="use the name that the server printed; or start the server with `--name` and this name",
    )


def _no_tls(host: str, port: str) -> UmbelError:
    return Unreachable(
        f"{host}:{port} answers, but does not speak TLS",
        advice="check the port: it may be that of another program, or of the pages for operators",
    )


def _proxy(host: str, port: str) -> UmbelError:
    return Unreachable(
        f"the HTTP proxy does not let this machine through to {host}:{port}",
        advice=f"ask whoever runs the proxy to permit CONNECT to {host}:{port}; or name {host} in no_proxy",
    )


def _proxy_unnamed(host: str, port: str) -> UmbelError:
    return Unreachable(
        f"the HTTP proxy on the way to {host}:{port} wants to know who asks, or does not know the name or password",
        advice="write both into https_proxy: http://NAME:PASSWORD@HOST:PORT",
    )


def _proxy_stuck(host: str, port: str) -> UmbelError:
    return Unreachable(
        f"the HTTP proxy cannot reach {host}:{port}",
        advice="check name and port; see that `umbel server` runs there; then ask whoever runs the proxy",
    )


_REASONS = (
    (r"proxy.{0,80}407", _proxy_unnamed),
    (r"proxy.{0,80} 50[0-9]", _proxy_stuck),
    (r"proxy.{0,80}(returned|response|40[0-9]|50[0-9])|CONNECT.{0,40}(40|50)[0-9]", _proxy),
    (r"hostname.verification|peer.name.{0,300}not in peer certificate|host ?name.{0,20}mismatch", _other_name),
    (r"certificate.{0,12}(expired|not yet valid)", _expired),
    (
        r"CERTIFICATE_VERIFY_FAILED|BAD_SIGNATURE|signature failure|get (local )?issuer|self.signed|unknown.ca",
        _unknown_authority,
    ),
    (r"WRONG_VERSION_NUMBER|HTTP_REQUEST|Cannot check peer|UNEXPECTED_MESSAGE|invalid http2|settings frame", _no_tls),
    (
        r"DNS|errors resolving|lookup failed|name not found|name resolution|getaddrinfo|not known|No address assoc",
        _unknown_host,
    ),
    (r"connection refused", _refused),
    (r"timed? ?out|timeout|unreachable|no route", _no_way),
)

__all__ = ["failed"]
