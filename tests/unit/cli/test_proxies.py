"""Which proxy gRPC takes, as it was tried with a proxy that counts: capitals and "*" mean nothing to it."""

from __future__ import annotations

import pytest

from umbel.cli.proxies import is_excepted, look_at_proxies, proxy_for

HERE, THERE = "http://a:1", "http://b:2"


@pytest.mark.parametrize(
    ("exceptions", "host", "direct"),
    [("", "a.org", False), ("*", "a.org", False), ("b.org, .a.org", "x.a.org", True), ("a.org", "ba.org", False)],
)
def test_who_is_excepted_from_a_proxy(exceptions: str, host: str, direct: bool) -> None:
    assert is_excepted(exceptions, host) is direct


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({}, ""),
        ({"http_proxy": HERE}, "http_proxy"),
        ({"http_proxy": HERE, "https_proxy": THERE}, "https_proxy"),
        ({"grpc_proxy": HERE, "https_proxy": THERE}, "grpc_proxy"),
        ({"HTTPS_PROXY": HERE}, ""),
        ({"https_proxy": "socks5://a:1"}, ""),
        ({"https_proxy": "a:1"}, ""),
        ({"https_proxy": HERE, "no_proxy": "x.org"}, ""),
        ({"https_proxy": HERE, "NO_PROXY": "x.org"}, "https_proxy"),
        ({"https_proxy": HERE, "no_proxy": "x.org", "no_grpc_proxy": "y.org"}, "https_proxy"),
    ],
)
def test_the_proxy_that_is_taken(environment: dict[str, str], name: str) -> None:
    assert proxy_for(environment, "x.org") == name


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        (
            {"https_proxy": "http://ada:secret@a:1"},
            "connections to x.org go through http://...@a:1, as https_proxy says",
        ),
        ({"https_proxy": "ada:secret@a:1"}, "https_proxy is ...@a:1, which is no HTTP proxy: connections are direct"),
        ({"https_proxy": "http://ada:secret@a:1", "no_proxy": "x.org"}, "x.org is excepted"),
        ({"HTTPS_PROXY": "http://ada:secret@a:1"}, "HTTPS_PROXY is set, and is not looked at"),
        ({"NO_PROXY": "x.org"}, "NO_PROXY is set, and is not looked at"),
    ],
)
def test_the_doctor_tells_the_way_and_no_password(environment: dict[str, str], said: str) -> None:
    shown = "\n".join(f"{finding.what} {finding.advice}" for finding in look_at_proxies(environment, "x.org"))
    assert said in shown
    assert "secret" not in shown
