"""A node's key, in a file that nobody else reads."""

from __future__ import annotations

import hashlib
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from umbel.errors import CorruptFile, UsageError
from umbel.link.identity import Identity, PublicKey


def test_a_key_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "own" / "key.pem"
    first, again = Identity.at(path), Identity.at(path)
    assert first.public == again.public
    assert len(first.public) == 32
    assert first.fingerprint == hashlib.sha256(first.public).hexdigest()
    assert os.listdir(path.parent) == ["key.pem"]
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert PublicKey(first.public).has_signed(b"data", again.sign(b"data"))
    assert Identity.make().public != first.public


def test_of_many_that_make_it_at_once_one_wins(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: Identity.at(tmp_path / "key").public, range(8)))
    assert set(made) == {Identity.at(tmp_path / "key").public}


@pytest.mark.parametrize("content", [b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", b"\xff"])
def test_a_file_that_holds_no_key_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(CorruptFile, match=r"holds no Ed25519 key"):
        Identity.at(path)


@pytest.mark.skipif(os.name != "posix", reason="only where files have modes")
def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    Identity.at(path)
    path.chmod(0o640)
    with pytest.raises(UsageError, match="can be read by others"):
        Identity.at(path)


def test_what_was_not_signed_is_not() -> None:
    me = Identity.make()
    signature = me.sign(b"data")
    assert not PublicKey(me.public).has_signed(b"date", signature)
    assert not PublicKey(Identity.make().public).has_signed(b"data", signature)
    assert not PublicKey(b"short").has_signed(b"data", signature)
    assert not PublicKey(me.public).has_signed(b"data", b"")
