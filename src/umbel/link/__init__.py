"""How a node, or a person, reaches the server: over gRPC and TLS, or in memory."""

from __future__ import annotations

from umbel.link.address import Address
from umbel.link.base import Channel, ControlCalls, Link, NodeCalls

__all__ = ["Address", "Channel", "ControlCalls", "Link", "NodeCalls"]
