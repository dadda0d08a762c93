"""The calls of both services, as a table made from the .proto."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, final

from google.protobuf import descriptor_pb2
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from umbel.errors import FormatError
from umbel.wire.v1 import control_pb2, node_pb2

M = TypeVar("M", bound=Message)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One call.

    Attributes:
        name: as in the .proto, "OpenSession".
        path: as HTTP/2 has it, "/umbel.v1.NodeService/OpenSession".
        attribute: as Python has it, "open_session".
        request, response: the classes of its messages.
        uploads: does the caller send several messages?
        streams: does the server send several messages?
    """

    name: str
    path: str
    attribute: str
    request: type[Message]
    response: type[Message]
    uploads: bool
    streams: bool


def _table(service: Any) -> Mapping[str, Method]:
    described = descriptor_pb2.ServiceDescriptorProto()
    service.CopyToProto(described)
    return {
        method.name: Method(
            name=method.name,
            path=f"/{service.full_name}/{method.name}",
            attribute=re.sub(r"(?<!^)(?=[A-Z])", "_", method.name).lower(),
            request=GetMessageClass(method.input_type),
            response=GetMessageClass(method.output_type),
            uploads=form.client_streaming,
            streams=form.server_streaming,
        )
        for method, form in zip(service.methods, described.method, strict=True)
    }


NODE: Mapping[str, Method] = _table(node_pb2.DESCRIPTOR.services_by_name["NodeService"])
"""What a node calls, by name."""
CONTROL: Mapping[str, Method] = _table(control_pb2.DESCRIPTOR.services_by_name["ControlService"])
"""What people call, by name."""
UNSIGNED = frozenset({"Enrol", "Challenge", "OpenSession"})
"""Calls of a node that need no session."""


def parse(kind: type[M], data: bytes, name: str = "") -> M:
    """The message in these bytes; fields that are not known are ignored.

    Raises:
        FormatError: they are no such message.
    """
    try:
        return kind.FromString(data)
    except (DecodeError, UnicodeDecodeError) as error:
        raise FormatError(f"{name or kind.__name__} cannot be read: {error}") from error


__all__ = ["CONTROL", "NODE", "UNSIGNED", "Method", "parse"]
