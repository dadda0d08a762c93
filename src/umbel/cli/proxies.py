"""Which way connections take, as ``umbel doctor`` tells it: through an HTTP proxy, or directly."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from umbel.cli.finding import Finding, ok, warning

_READ = ("grpc_proxy", "https_proxy", "http_proxy")  # by gRPC, the first that is set; in small letters alone
_NEVER = ("no_grpc_proxy", "no_proxy")
_UNREAD = ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")
_SCHEME = "http://"


def proxy_for(environment: Mapping[str, str], host: str) -> str:
    """The variable that names the proxy through which connections to a host go; "": they are direct.

    Args:
        environment: the variables.
        host: that is connected to.
    """
    name = _first(environment, _READ)
    if not environment.get(name, "").startswith(_SCHEME):
        return ""
    return "" if is_excepted(environment.get(_first(environment, _NEVER), ""), host) else name


def is_excepted(exceptions: str, host: str) -> bool:
    """Does a list such as "localhost,.example.org" except this host from a proxy? gRPC knows no "*"."""
    names = [name.strip().lstrip(".") for name in exceptions.split(",") if name.strip()]
    return any(host == name or host.endswith(f".{name}") for name in names)


def look_at_proxies(environment: Mapping[str, str], host: str) -> Iterator[Finding]:
    """Which way connections to a host take, and what was set in vain."""
    for name in _UNREAD:
        if environment.get(name) and not environment.get(name.lower()):
            yield warning("proxy", f"{name} is set, and is not looked at", f"set {name.lower()}, in small letters")
    name = _first(environment, _READ)
    if not name:
        yield ok("proxy", "none is set: connections are direct")
        return
    value = without_password(environment[name])
    if not value.startswith(_SCHEME):
        yield warning(
            "proxy",
            f"{name} is {value}, which is no HTTP proxy: connections are direct",
            f"write it as {name}=http://HOST:PORT",
        )
    elif not proxy_for(environment, host):
        yield ok("proxy", f"{name} is {value}, and {host} is excepted: its connections are direct")
    else:
        yield warning(
            "proxy",
            f"connections to {host} go through {value}, as {name} says",
            f"if that proxy does not let them through, put {host} into no_proxy, or have CONNECT permitted there",
        )


def without_password(proxy: str) -> str:
    """The address of a proxy as it may be shown."""
    who, at, place = proxy.rpartition("@")
    scheme, slashes, _ = who.rpartition("//")
    return f"{scheme}{slashes}...@{place}" if at else proxy


def _first(environment: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next((name for name in names if environment.get(name)), "")


__all__ = ["is_excepted", "look_at_proxies", "proxy_for", "without_password"]
