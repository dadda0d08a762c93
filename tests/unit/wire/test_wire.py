"""The wire's rules: versions, names, frames, JSON, and the table of calls."""

from __future__ import annotations

import math

import pytest

from umbel import wire
from umbel.errors import FormatError, Incompatible, UsageError
from umbel.wire.frames import read_data, read_frame, read_head, write_data, write_frame, write_head
from umbel.wire.limits import DEPTH

DIGEST = bytes(range(32))


@pytest.mark.parametrize(("mine", "theirs", "agreed"), [([1], [1], 1), ([1, 2, 3], [2, 1], 2), ([2, 3], [9, 3, 3], 3)])
def test_the_highest_common_version_is_taken(mine: list[int], theirs: list[int], agreed: int) -> None:
    assert wire.agree(theirs, mine=mine) == agreed


@pytest.mark.parametrize(
    ("mine", "theirs", "words"),
    [
        ([2, 3], [1], ["speaks version 1", "this side 2 and 3", "update node berlin"]),
        ([1], [2, 3], ["speaks version 2 and 3", "this side 1", "update this side"]),
        ([1], [], ["names no version", "update node berlin"]),
    ],
)
def test_where_there_is_none_both_sides_are_named(mine: list[int], theirs: list[int], words: list[str]) -> None:
    with pytest.raises(Incompatible) as caught:
        wire.agree(theirs, who="node berlin", program="umbel 9", mine=mine)
    assert all(word in str(caught.value) for word in [*words, "umbel 9"])


def test_what_names_may_be() -> None:
    for good in ("a", "0", "a-b", "a.b", "berlin-2", "a" * 63, "x--y"):
        assert wire.is_name(good)
    for bad in ("", "A", "-a", "a-", ".a", "a.", "a_b", "a b", "ä", "a" * 64, "a\n", "a/b", "١"):
        assert not wire.is_name(bad)
        with pytest.raises(FormatError, match="name is"):
            wire.check_name(bad, "name")


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_383, 16_384, 1 << 20, (1 << 21) + 1])
def test_frames_are_what_protobuf_writes(size: int) -> None:
    data = bytes(size)
    assert wire.ReadBlobResponse.FromString(read_frame(data)).data == data
    assert wire.ReadRunBlobResponse.FromString(read_frame(memoryview(data))).data == data
    assert wire.WriteBlobRequest.FromString(write_frame(data)).data == data
    assert wire.WriteRunBlobRequest.FromString(write_frame(data)).data == data
    assert bytes(read_data(wire.ReadBlobResponse(data=data).SerializeToString())) == data
    assert bytes(write_data(wire.WriteBlobRequest(data=data).SerializeToString())) == data


def test_a_frame_is_read_without_a_copy() -> None:
    message = read_frame(b"abc")
    assert read_data(message).obj is message
    assert bytes(write_data(write_frame(b"abc"))) == b"abc"


def test_frames_with_unknown_fields_are_read() -> None:
    unknown = b"\x7a\x02hi"  # field 15
    assert bytes(read_data(read_frame(b"abc") + unknown)) == b"abc"
    assert bytes(read_data(unknown + read_frame(b"abc"))) == b"abc"
    assert bytes(write_data(write_frame(b"abc") + unknown)) == b"abc"
    assert bytes(read_data(b"")) == b""


def test_heads() -> None:
    head = wire.BlobHead(digest=DIGEST, size=5, offset=2)
    assert read_head(write_head(head)) == head
    with pytest.raises(FormatError, match="must have its head"):
        read_head(write_frame(b"abc"))
    with pytest.raises(FormatError, match="must have its head"):
        read_head(wire.WriteBlobRequest(head=head, data=b"x").SerializeToString())
    with pytest.raises(FormatError, match="only the first"):
        write_data(write_head(head))


@pytest.mark.parametrize(
    "value", [{}, {"a": [1, 2.5, None, True, "ü"]}, {"x": math.inf, "y": [-math.inf, {"z": math.nan}]}, {"n": 10**300}]
)
def test_json_comes_back(value: dict[str, object]) -> None:
    text = wire.to_json(value, "config", 10_000)
    assert repr(wire.from_json(text, "config", 10_000)) == repr(value)
    assert "NaN" not in text
    assert "Infinity" not in text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no JSON"),
        ("{", "no JSON"),
        ("[]", "a JSON list"),
        ("null", "a JSON NoneType"),
        ('{"a": NaN}', "NaN is not JSON"),
        ('{"a": -Infinity}', "-Infinity is not JSON"),
        ('{"a": {"$float": "1"}}', "no number"),
        ('{"a": {"$float": []}}', "no number"),
        ('{"a": ' + "9" * 5000 + "}", "no JSON"),
        ('{"a":' * 100 + "1" + "}" * 100, "deeper"),
        ("[" * 900_000, "no JSON"),
        ('{"a": "' + "x" * 1_000_000 + '"}', "at most"),
        ('{"a": 01}', "no JSON"),
    ],
)
def test_json_that_is_not_accepted(text: str, words: str) -> None:
    with pytest.raises(FormatError, match=words) as caught:
        wire.from_json(text, "config", 1_000_000)
    assert caught.value.what.startswith("config")


def test_what_would_not_be_accepted_is_not_written() -> None:
    deep: dict[str, object] = {}
    for _ in range(DEPTH + 1):
        deep = {"a": deep}
    with pytest.raises(UsageError, match="nested deeper"):
        wire.to_json(deep, "config", 10_000)
    with pytest.raises(UsageError, match="10,000 travel"):
        wire.to_json({"a": "x" * 10_000}, "config", 10_000)


def test_the_table_of_calls_is_that_of_the_proto() -> None:
    assert len(wire.NODE) == 8
    assert wire.NODE["WriteBlob"].uploads
    assert not wire.NODE["WriteBlob"].streams
    assert wire.NODE["Subscribe"].streams
    assert wire.NODE["OpenSession"].attribute == "open_session"
    assert wire.NODE["OpenSession"].request is wire.OpenSessionRequest
    assert wire.CONTROL["WatchRun"].path == "/umbel.v1.ControlService/WatchRun"
    assert set(wire.NODE) > wire.UNSIGNED


def test_a_message_that_is_none_is_refused() -> None:
    with pytest.raises(FormatError, match="TaskId cannot be read"):
        wire.parse(wire.TaskId, b"\xff\xff\xff")
    assert wire.parse(wire.TaskId, b"\x10\x05\x7a\x02hi").exchange == 5
