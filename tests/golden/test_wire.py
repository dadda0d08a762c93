"""The bytes that docs/wire.md works out, and messages as the first version has written them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from umbel import wire
from umbel.digest import digest_of
from umbel.link.address import Address
from umbel.link.identity import Identity

PAGE = (Path(__file__).parents[2] / "docs" / "wire.md").read_text(encoding="utf-8")
ME = Identity(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
REPORT = (  # as version 1 has it
    "0a2e0a20303132333435363738396162636465663031323334353637383961626364656610051a066265726c696e2001"
    "1a15090000000000000440120a7b2261223a20302e357d"
)


def example(label: str) -> list[str]:
    """What the worked example has behind a label, in order; lines that go on stand together."""
    found = re.findall(rf"^{label} {{2,}}(.*(?:\n {{17}}.*)*)", PAGE, re.MULTILINE)
    return ["".join(text.split()) for text in found]


def test_the_worked_example_is_what_is_signed() -> None:
    name, challenge = "berlin", bytes.fromhex(example("challenge")[0])
    session, counter = bytes.fromhex(example("session")[0]), int(example("counter")[0])
    path, message = example("path")[0], bytes.fromhex(example("message")[0])
    signed = [
        wire.challenge_bytes(name, challenge),
        wire.signed_bytes(session, counter, path, message),
    ]
    assert [data.hex() for data in signed] == example("signed")
    assert [ME.sign(data).hex() for data in signed] == example("signature")
    assert example("public key") == [ME.public.hex()]
    assert path == wire.NODE["StatBlob"].path
    assert message == wire.StatBlobRequest(digest=digest_of(b"abc")).SerializeToString()


def test_the_address_of_the_page_is_read() -> None:
    line = re.findall(r"^umbel://\S+$", PAGE, re.MULTILINE)[0]
    address = Address.parse(line)
    assert (address.host, address.port, address.secret, address.authority) == (
        "fed.example.org",
        8443,
        bytes(range(16)),
        None,
    )
    assert f"`{address.secret_text}`" in PAGE
    assert str(address) == line


def test_a_message_of_the_first_version_is_still_read() -> None:
    report = wire.ReportRequest.FromString(bytes.fromhex(REPORT))
    assert report.id == wire.TaskId(run="0123456789abcdef" * 2, exchange=5, client="berlin", attempt=1)
    assert report.metrics == wire.Metrics(weight=2.5, metrics='{"a": 0.5}')


def test_the_limits_of_the_page_are_those_that_hold() -> None:
    pytest.importorskip("sqlalchemy")
    from umbel import update
    from umbel.server import uploads
    from umbel.wire import limits

    for number in (limits.OUTPUT, limits.MESSAGE_TEXT, limits.TRACEBACK, limits.METRICS):
        assert f"{number:,}" in PAGE
    assert f"`OpenSessionResponse.inline` bytes ({limits.INLINE >> 10} KiB" in " ".join(PAGE.split())
    assert f"at most {limits.MESSAGE >> 20} MiB" in PAGE
    assert f"{limits.MANY} entries" in PAGE
    assert f"| a blob | {uploads._LARGEST >> 30} GiB |" in PAGE
    assert f"0, or {update._LIGHTEST:g} to {update._HEAVIEST:g}".replace("+", "") in PAGE
    assert f"at most {update._LONGEST_NAME} characters" in PAGE
    assert f"sent {uploads._AT_ONCE} blobs at a time" in PAGE
    assert f"every {limits.KEEPALIVE:.0f} seconds" in PAGE
