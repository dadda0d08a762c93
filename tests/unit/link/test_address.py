"""Addresses: one line to copy, and what is said when it was not copied whole."""

from __future__ import annotations

import pytest

from tests.unit.link.authority import AUTHORITY
from umbel.errors import UsageError
from umbel.link.address import Address, target_of

SECRET = bytes(range(16))
WHOLE = Address("fed.example.org", 9000, SECRET, AUTHORITY.der)


@pytest.mark.parametrize(
    "address",
    [
        WHOLE,
        Address("fed.example.org", 8443, SECRET),
        Address("127.0.0.1", 1, SECRET),
        Address("::1", 65535, SECRET, AUTHORITY.der),
        Address("localhost"),
    ],
)
def test_what_is_printed_is_read(address: Address) -> None:
    assert Address.parse(str(address)) == address
    assert Address.parse(address.without_secret()) == Address(address.host, address.port)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("umbel://Fed.Example.ORG", "fed.example.org", 8443),
        ("fed.example.org:1", "fed.example.org", 1),
        ("umbel://[2001:db8::1]:99/", "2001:db8::1", 99),
        ("[::1]", "::1", 8443),
        ("  umbel://a_b.c.\n", "a_b.c", 8443),
        ("UMBEL://10.0.0.1/", "10.0.0.1", 8443),
    ],
)
def test_what_a_person_types_is_read(text: str, host: str, port: int) -> None:
    assert Address.parse(text) == Address(host, port)


def test_a_line_that_mail_has_broken_is_read() -> None:
    text = str(WHOLE)
    assert Address.parse("\n  ".join(text[i : i + 70] for i in range(0, len(text), 70))) == WHOLE


def test_host_and_port_may_be_changed_by_hand() -> None:
    changed = Address.parse(str(WHOLE).replace("fed.example.org:9000", "10.0.0.7:443"))
    assert (changed.host, changed.port, changed.secret, changed.authority) == ("10.0.0.7", 443, SECRET, AUTHORITY.der)


def test_each_address_that_is_cut_off_is_told() -> None:
    text = str(WHOLE)
    begin = text.rindex("/") + 2
    for end in range(begin, len(text)):
        with pytest.raises(UsageError, match="cut off"):
            Address.parse(text[:end])


def test_each_letter_that_is_mistyped_is_told() -> None:
    text = str(Address("a", 1, SECRET))
    begin = text.rindex("/") + 1
    for place in range(begin, len(text) - 1):
        changed = "A" if text[place] != "A" else "B"
        with pytest.raises(UsageError, match="mistyped"):
            Address.parse(text[:place] + changed + text[place + 1 :])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("https://fed.example.org", "https://"),
        ("umbel://", "no name of a host"),
        ("umbel:///x", "no name of a host"),
        ("umbel://fed.example.org:port", "no port"),
        ("umbel://fed.example.org:0", "no port"),
        ("umbel://fed.example.org:99999", "no port"),
        ("umbel://::1", "brackets"),
        ("umbel://[::1", "no host and port"),
        ("umbel://a b@c", "no name of a host"),
        ("umbel://fed.example.org/a+b", "a character"),
        ("umbel://fed.example.org/ab", "cut off"),
        ("umbel://-x", "no name of a host"),
    ],
)
def test_what_is_no_address_is_told(text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        Address.parse(text)
    assert words in str(caught.value)
    assert caught.value.advice


def test_secrets_are_not_shown() -> None:
    assert WHOLE.secret_text not in repr(WHOLE)
    assert WHOLE.without_secret() == "umbel://fed.example.org:9000"
    assert Address("::1", 5).target == target_of("::1", 5) == target_of("[::1]", 5) == "[::1]:5"
    assert WHOLE.pem == AUTHORITY.pem
    assert Address("localhost").pem is None


@pytest.mark.parametrize("given", [{"secret": b"short"}, {"authority": b"x"}, {"port": 0}, {"host": "a/b"}])
def test_an_address_that_makes_no_sense_is_refused(given: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Address(**{"host": "a", **given})  # type: ignore[arg-type]  # plain arguments
