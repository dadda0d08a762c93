"""How gRPC is set up on both sides, where they must agree."""

from __future__ import annotations

from umbel.wire import KEEPALIVE, MESSAGE
from umbel.wire.limits import ANSWERED

Options = list[tuple[str, int | str]]

_PING, _ANSWER = int(KEEPALIVE * 1000), int(ANSWERED * 1000)
_BOTH: Options = [
    ("grpc.max_receive_message_length", MESSAGE),
    ("grpc.max_send_message_length", MESSAGE),
    # Both sides look after each other, with and without calls: what lies between forgets idle connections.
    ("grpc.keepalive_time_ms", _PING),
    ("grpc.keepalive_timeout_ms", _ANSWER),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
]
CLIENT: Options = [
    *_BOTH,
    # who calls decides when to try again; a server that is back is found within a second
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.use_local_subchannel_pool", 1),  # each link has a connection of its own
]
SERVER: Options = [
    *_BOTH,
    ("grpc.http2.min_ping_interval_without_data_ms", _PING // 2),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", _PING // 2),
    ("grpc.http2.max_ping_strikes", 3),
    ("grpc.server_handshake_timeout_ms", 20_000),  # who connects and says nothing is let go
    ("grpc.max_connection_idle_ms", 60_000),  # so is who has connected and makes no call; a node has one all the time
    ("grpc.max_concurrent_streams", 64),  # of one connection: a node has one for notices, and few others
    ("grpc.so_reuseport", 0),  # a second server at this port is told so
]

__all__ = ["CLIENT", "SERVER", "Options"]
