"""What a run's own process and the server say to each other, without either of them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from umbel import wire
from umbel.aggregate import mean
from umbel.apps.frames import Frame, Garbage, pack, receive
from umbel.arrays import Arrays
from umbel.engine.question import Question
from umbel.errors import NotThere
from umbel.link.tasks import task_of
from umbel.server.childrun import checking_of
from umbel.server.messages import Message, Packing, read
from umbel.server.proxies import Upward
from umbel.store.sql.blobs import SUFFIX
from umbel.transforms import Chain, clip

SMALL, LARGE = Arrays({"w": np.arange(3.0)}), Arrays({"w": np.arange(20_000.0)})


def framed(data: bytes) -> Frame:
    mine, its = socket.socketpair()
    with mine, its:
        sender = threading.Thread(target=mine.sendall, args=(data,))
        sender.start()
        frame = receive(its)
        sender.join()
    assert frame is not None
    return frame


def test_small_arrays_are_inside_and_large_ones_elsewhere() -> None:
    kept: dict[str, Arrays] = {}

    def large(arrays: Arrays, digest: str) -> str:
        kept[digest] = arrays
        return "there"

    data = Packing(large).frame({"ask": "x"}, {"a": SMALL, "b": [LARGE, LARGE], "n": float("nan")})
    assert len(data) < 2000
    header, value, arrays = read(framed(data), lambda digest, where: kept[digest] if where == "there" else SMALL)
    assert header == {"ask": "x"}
    assert arrays[value["a"]] == SMALL
    assert [arrays[digest] for digest in value["b"]] == [LARGE, LARGE]
    assert list(kept) == [LARGE.digest()]


def test_large_arrays_that_are_nowhere_go_inside() -> None:
    data = Packing(lambda _, __: "").frame({}, [SMALL, LARGE])
    message = read(framed(data), lambda digest, where: pytest.fail(f"{digest} lies {where}"))
    assert [message.arrays[digest] for digest in message.value] == [SMALL, LARGE]


@pytest.mark.parametrize(
    ("header", "body"),
    [
        ({}, b""),
        ({"text": 3, "arrays": {}}, b"[1,"),
        ({"text": 4, "arrays": {"d": [0, 8]}}, b"null12345678"),
        ({"text": 4, "arrays": {"d": None}}, b"null"),
        ({"text": "much", "arrays": {}}, b"null"),
        ({"text": 4, "arrays": []}, b"null"),
    ],
)
def test_what_is_no_message_is_refused(header: dict[str, Any], body: bytes) -> None:
    with pytest.raises(Garbage):
        read(framed(pack(header, body)), lambda _, __: SMALL)


@pytest.mark.parametrize("data", [b"\xff\xff\xff\xff", pack({})[:4] + b"[]", b"\x01\x00\x00\x00{" + bytes(4)])
def test_what_is_no_frame_is_refused(data: bytes) -> None:
    with pytest.raises(Garbage):
        framed(data + bytes(4))


class Server:
    """The other end; answers with what it is told to."""

    def __init__(self, directory: Path) -> None:
        self.handed, self.blobs = directory / "handed", directory / "blobs"
        for path in (self.handed, self.blobs):
            path.mkdir()
        self.connection, its = socket.socketpair()
        self.up = Upward(its, self.handed, self.blobs, SUFFIX)
        self.kept: dict[str, Arrays] = {}
        self.heard: list[Message] = []
        self.thread = threading.Thread(target=self._serve)
        self.answers: list[dict[str, Any]] = []
        self.thread.start()

    def _serve(self) -> None:
        while (frame := receive(self.connection)) is not None:
            try:
                self.heard.append(read(frame, self._large))
                answer = self.answers.pop(0) if self.answers else {}
            except NotThere:
                answer = {"missing": True}
            if "say" not in frame.header:
                self.connection.sendall(Packing(lambda _, __: "").frame(answer))

    def _large(self, digest: str, where: str) -> Arrays:
        if where == "file":
            self.kept[digest] = Arrays.load(self.handed / digest)
            (self.handed / digest).unlink()
        if digest not in self.kept:
            raise NotThere(digest)
        return self.kept[digest]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    yield made
    made.connection.shutdown(socket.SHUT_RDWR)
    made.thread.join()
    made.connection.close()
    made.up._connection.close()


def test_a_large_array_is_handed_over_once(server: Server) -> None:
    for _ in range(2):
        server.up.ask("x", {"model": LARGE})
        assert server.heard[-1].arrays[LARGE.digest()] == LARGE
    assert not list(server.handed.iterdir())


def test_what_the_server_has_let_go_is_handed_over_again(server: Server) -> None:
    server.up.ask("x", LARGE)
    server.kept.clear()
    server.up.ask("y", {"model": LARGE, "small": SMALL})
    header, value, arrays = server.heard[-1]
    assert header == {"ask": "y"}
    assert (arrays[value["model"]], arrays[value["small"]]) == (LARGE, SMALL)


def test_what_is_over_ends_main_where_it_asks(server: Server) -> None:
    server.answers.append({"over": True})
    with pytest.raises(KeyboardInterrupt):
        server.up.ask("x")
    server.up.ask("commit")  # what main flushes on its way out is heard
    assert server.heard[-1].header == {"ask": "commit"}


def test_an_interrupt_waits_for_the_answer(server: Server) -> None:
    with pytest.raises(KeyboardInterrupt):
        server.up.interrupt()  # it does not ask
    server.up._asking = True
    server.up.interrupt()
    with pytest.raises(KeyboardInterrupt):
        server.up.ask("x")
    assert server.heard[-1].header == {"ask": "x"}
    server.up.ask("y")


def test_answers_are_checked_without_classes_of_the_users() -> None:
    aggregator = mean()
    question = Question(
        kind="train",
        name="train",
        seed=1,
        round=2,
        call=1,
        sequence=3,
        model=SMALL,
        config={"lr": 0.1},
        aggregator=aggregator,
        expected=aggregator.expects(SMALL),
        extra_expected={"c": aggregator.expects(None)},
        chain=Chain((clip(1.0),)),
        plans=(None,),
    )
    task = task_of(question, lambda a: wire.Blob(digest=bytes.fromhex(a.digest()), size=len(a.to_bytes())))
    task.id.CopyFrom(wire.TaskId(run="0" * 32, exchange=3))
    task.details = task.details.replace("umbel.transforms.clip:", "elsewhere:")
    assert "elsewhere:" in task.details
    made = checking_of(task, lambda _: SMALL)
    assert (made.expected, made.extra_expected) == (question.expected, question.extra_expected)
    assert (made.kind, made.round, made.sequence, made.model) == ("train", 2, 3, SMALL)
    assert not made.chain.steps
