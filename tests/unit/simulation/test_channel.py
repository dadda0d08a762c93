from __future__ import annotations

import socket
import threading
from multiprocessing.connection import Connection

from hypothesis import given
from hypothesis import strategies as st

from umbel.simulation.channel import Channel


def pair() -> tuple[Channel, Connection]:
    mine, its = socket.socketpair()
    return Channel(mine), Connection(its.detach())


@given(st.lists(st.binary(max_size=300)), st.lists(st.binary(max_size=300)))
def test_messages_come_whole_and_in_order_both_ways(there: list[bytes], back: list[bytes]) -> None:
    channel, connection = pair()
    for message in there:
        channel.send(message)
    assert [connection.recv_bytes() for _ in there] == there
    for message in back:
        connection.send_bytes(message)
    got: list[bytes] = []
    while len(got) < len(back):
        got += channel.receive()
    assert got == back
    assert not channel.at_end
    connection.close()
    assert channel.receive() == []
    assert channel.at_end
    channel.close()


def test_it_waits_for_nobody() -> None:
    channel, connection = pair()
    large = [bytes([i]) * 3_000_000 for i in range(3)]
    for message in large:
        channel.send(message)
    assert channel.pending
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.extend(connection.recv_bytes() for _ in large))
    reader.start()
    while channel.pending:
        channel.flush()
    reader.join()
    assert got == large
    connection.close()
    channel.send(b"nobody hears it")
    assert not channel.pending
    channel.close()


def test_a_part_of_a_message_is_none() -> None:
    mine, its = socket.socketpair()
    channel = Channel(mine)
    its.sendall(b"\0\0\0\x05he")
    assert channel.receive() == []
    its.sendall(b"llo\0\0\0\x01")
    assert channel.receive() == [b"hello"]
    its.close()
    assert channel.receive() == []
    channel.close()
