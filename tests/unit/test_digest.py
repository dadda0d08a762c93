from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from umbel.digest import digest_of, is_file_named, is_named

ABC = "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85"  # of the authors' own b3sum
LONG = bytes(range(251)) * 10_000  # two pieces and a part


def test_it_is_blake3() -> None:
    assert digest_of(b"abc").hex() == ABC


@given(st.sampled_from([0, 1, 1 << 20, (1 << 20) + 1, len(LONG)]), st.integers(0, 50))
def test_pieces_do_not_show(size: int, begin: int) -> None:
    data = LONG[begin : begin + size]
    assert digest_of(data) == digest_of(memoryview(bytearray(data))) == blake3(data).digest()


def test_what_is_called_between_may_break_off() -> None:
    def enough() -> None:
        raise KeyError

    with pytest.raises(KeyError):
        digest_of(LONG, enough)


@pytest.mark.parametrize("data", [b"", b"abc", LONG])
def test_a_sha_256_is_a_name_too(data: bytes, tmp_path: Path) -> None:
    path, digest, other = tmp_path / "blob", digest_of(data), hashlib.sha256(data).digest()
    path.write_bytes(data)
    for name, good in ((digest, True), (other, True), (bytes(32), False), (digest_of(data + b"x"), False)):
        assert is_named(name, data) == good
        assert is_file_named(name, path) == good
        assert is_file_named(name, path, digest) == good
