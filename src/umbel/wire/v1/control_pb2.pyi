# Made by tools/wire.py from proto/umbel/v1/control.proto; change that, and make this anew.
# ruff: noqa: E402, E501, E712, F401, I001, I002, RUF023, RUF100, UP007, UP035, UP045
# mypy: ignore-errors
# fmt: off
from umbel.wire.v1 import values_pb2 as _values_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetServerRequest(_message.Message):
    __slots__ = ("versions", "program", "time")
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    PROGRAM_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    versions: _containers.RepeatedScalarFieldContainer[int]
    program: str
    time: float
    def __init__(self, versions: _Optional[_Iterable[int]] = ..., program: _Optional[str] = ..., time: _Optional[float] = ...) -> None: ...

class GetServerResponse(_message.Message):
    __slots__ = ("version", "program", "time", "federation", "person", "role", "chunk", "inline", "authority_expires")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PROGRAM_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    FEDERATION_FIELD_NUMBER: _ClassVar[int]
    PERSON_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    INLINE_FIELD_NUMBER: _ClassVar[int]
    AUTHORITY_EXPIRES_FIELD_NUMBER: _ClassVar[int]
    version: int
    program: str
    time: float
    federation: str
    person: str
    role: str
    chunk: int
    inline: int
    authority_expires: float
    def __init__(self, version: _Optional[int] = ..., program: _Optional[str] = ..., time: _Optional[float] = ..., federation: _Optional[str] = ..., person: _Optional[str] = ..., role: _Optional[str] = ..., chunk: _Optional[int] = ..., inline: _Optional[int] = ..., authority_expires: _Optional[float] = ...) -> None: ...

class SubmitRunRequest(_message.Message):
    __slots__ = ("key", "name", "submission", "blobs", "app", "nodes", "labels", "dataset")
    KEY_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SUBMISSION_FIELD_NUMBER: _ClassVar[int]
    BLOBS_FIELD_NUMBER: _ClassVar[int]
    APP_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    key: str
    name: str
    submission: str
    blobs: _containers.RepeatedCompositeFieldContainer[_values_pb2.Blob]
    app: _values_pb2.App
    nodes: _containers.RepeatedScalarFieldContainer[str]
    labels: _containers.RepeatedCompositeFieldContainer[_values_pb2.Label]
    dataset: str
    def __init__(self, key: _Optional[str] = ..., name: _Optional[str] = ..., submission: _Optional[str] = ..., blobs: _Optional[_Iterable[_Union[_values_pb2.Blob, _Mapping]]] = ..., app: _Optional[_Union[_values_pb2.App, _Mapping]] = ..., nodes: _Optional[_Iterable[str]] = ..., labels: _Optional[_Iterable[_Union[_values_pb2.Label, _Mapping]]] = ..., dataset: _Optional[str] = ...) -> None: ...

class SubmitRunResponse(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: Run
    def __init__(self, run: _Optional[_Union[Run, _Mapping]] = ...) -> None: ...

class Run(_message.Message):
    __slots__ = ("id", "name", "owner", "status", "reason", "round", "rounds", "submitted", "started", "ended", "app", "dataset")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    SUBMITTED_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    APP_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    owner: str
    status: str
    reason: str
    round: int
    rounds: int
    submitted: float
    started: float
    ended: float
    app: _values_pb2.App
    dataset: str
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., owner: _Optional[str] = ..., status: _Optional[str] = ..., reason: _Optional[str] = ..., round: _Optional[int] = ..., rounds: _Optional[int] = ..., submitted: _Optional[float] = ..., started: _Optional[float] = ..., ended: _Optional[float] = ..., app: _Optional[_Union[_values_pb2.App, _Mapping]] = ..., dataset: _Optional[str] = ...) -> None: ...

class ListRunsRequest(_message.Message):
    __slots__ = ("page",)
    PAGE_FIELD_NUMBER: _ClassVar[int]
    page: int
    def __init__(self, page: _Optional[int] = ...) -> None: ...

class ListRunsResponse(_message.Message):
    __slots__ = ("runs", "pages")
    RUNS_FIELD_NUMBER: _ClassVar[int]
    PAGES_FIELD_NUMBER: _ClassVar[int]
    runs: _containers.RepeatedCompositeFieldContainer[Run]
    pages: int
    def __init__(self, runs: _Optional[_Iterable[_Union[Run, _Mapping]]] = ..., pages: _Optional[int] = ...) -> None: ...

class GetRunRequest(_message.Message):
    __slots__ = ("run", "page")
    RUN_FIELD_NUMBER: _ClassVar[int]
    PAGE_FIELD_NUMBER: _ClassVar[int]
    run: str
    page: int
    def __init__(self, run: _Optional[str] = ..., page: _Optional[int] = ...) -> None: ...

class GetRunResponse(_message.Message):
    __slots__ = ("run", "submission", "result", "pages")
    RUN_FIELD_NUMBER: _ClassVar[int]
    SUBMISSION_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    PAGES_FIELD_NUMBER: _ClassVar[int]
    run: Run
    submission: str
    result: str
    pages: int
    def __init__(self, run: _Optional[_Union[Run, _Mapping]] = ..., submission: _Optional[str] = ..., result: _Optional[str] = ..., pages: _Optional[int] = ...) -> None: ...

class WatchRunRequest(_message.Message):
    __slots__ = ("run", "since", "now")
    RUN_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    NOW_FIELD_NUMBER: _ClassVar[int]
    run: str
    since: int
    now: bool
    def __init__(self, run: _Optional[str] = ..., since: _Optional[int] = ..., now: bool = ...) -> None: ...

class WatchRunResponse(_message.Message):
    __slots__ = ("event", "time", "kind", "content")
    EVENT_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    event: int
    time: float
    kind: str
    content: str
    def __init__(self, event: _Optional[int] = ..., time: _Optional[float] = ..., kind: _Optional[str] = ..., content: _Optional[str] = ...) -> None: ...

class StopRunRequest(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: str
    def __init__(self, run: _Optional[str] = ...) -> None: ...

class StopRunResponse(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: Run
    def __init__(self, run: _Optional[_Union[Run, _Mapping]] = ...) -> None: ...

class ResumeRunRequest(_message.Message):
    __slots__ = ("run", "rounds")
    RUN_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    run: str
    rounds: int
    def __init__(self, run: _Optional[str] = ..., rounds: _Optional[int] = ...) -> None: ...

class ResumeRunResponse(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: Run
    def __init__(self, run: _Optional[_Union[Run, _Mapping]] = ...) -> None: ...

class RemoveRunRequest(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: str
    def __init__(self, run: _Optional[str] = ...) -> None: ...

class RemoveRunResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Node(_message.Message):
    __slots__ = ("name", "labels", "status", "enrolled", "seen", "program", "apps", "datasets", "fingerprint", "clock", "tasks", "takes_code")
    NAME_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    ENROLLED_FIELD_NUMBER: _ClassVar[int]
    SEEN_FIELD_NUMBER: _ClassVar[int]
    PROGRAM_FIELD_NUMBER: _ClassVar[int]
    APPS_FIELD_NUMBER: _ClassVar[int]
    DATASETS_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    CLOCK_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    TAKES_CODE_FIELD_NUMBER: _ClassVar[int]
    name: str
    labels: _containers.RepeatedCompositeFieldContainer[_values_pb2.Label]
    status: str
    enrolled: float
    seen: float
    program: str
    apps: _containers.RepeatedCompositeFieldContainer[_values_pb2.App]
    datasets: _containers.RepeatedScalarFieldContainer[str]
    fingerprint: str
    clock: float
    tasks: int
    takes_code: bool
    def __init__(self, name: _Optional[str] = ..., labels: _Optional[_Iterable[_Union[_values_pb2.Label, _Mapping]]] = ..., status: _Optional[str] = ..., enrolled: _Optional[float] = ..., seen: _Optional[float] = ..., program: _Optional[str] = ..., apps: _Optional[_Iterable[_Union[_values_pb2.App, _Mapping]]] = ..., datasets: _Optional[_Iterable[str]] = ..., fingerprint: _Optional[str] = ..., clock: _Optional[float] = ..., tasks: _Optional[int] = ..., takes_code: bool = ...) -> None: ...

class ListNodesRequest(_message.Message):
    __slots__ = ("page",)
    PAGE_FIELD_NUMBER: _ClassVar[int]
    page: int
    def __init__(self, page: _Optional[int] = ...) -> None: ...

class ListNodesResponse(_message.Message):
    __slots__ = ("nodes", "pages")
    NODES_FIELD_NUMBER: _ClassVar[int]
    PAGES_FIELD_NUMBER: _ClassVar[int]
    nodes: _containers.RepeatedCompositeFieldContainer[Node]
    pages: int
    def __init__(self, nodes: _Optional[_Iterable[_Union[Node, _Mapping]]] = ..., pages: _Optional[int] = ...) -> None: ...

class ChangeNodeRequest(_message.Message):
    __slots__ = ("node", "rename", "labels", "revoked")
    NODE_FIELD_NUMBER: _ClassVar[int]
    RENAME_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    REVOKED_FIELD_NUMBER: _ClassVar[int]
    node: str
    rename: str
    labels: Labels
    revoked: bool
    def __init__(self, node: _Optional[str] = ..., rename: _Optional[str] = ..., labels: _Optional[_Union[Labels, _Mapping]] = ..., revoked: bool = ...) -> None: ...

class Labels(_message.Message):
    __slots__ = ("labels",)
    LABELS_FIELD_NUMBER: _ClassVar[int]
    labels: _containers.RepeatedCompositeFieldContainer[_values_pb2.Label]
    def __init__(self, labels: _Optional[_Iterable[_Union[_values_pb2.Label, _Mapping]]] = ...) -> None: ...

class ChangeNodeResponse(_message.Message):
    __slots__ = ("node",)
    NODE_FIELD_NUMBER: _ClassVar[int]
    node: Node
    def __init__(self, node: _Optional[_Union[Node, _Mapping]] = ...) -> None: ...

class Ticket(_message.Message):
    __slots__ = ("id", "uses", "used", "expires", "creator", "revoked")
    ID_FIELD_NUMBER: _ClassVar[int]
    USES_FIELD_NUMBER: _ClassVar[int]
    USED_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_FIELD_NUMBER: _ClassVar[int]
    CREATOR_FIELD_NUMBER: _ClassVar[int]
    REVOKED_FIELD_NUMBER: _ClassVar[int]
    id: str
    uses: int
    used: int
    expires: float
    creator: str
    revoked: bool
    def __init__(self, id: _Optional[str] = ..., uses: _Optional[int] = ..., used: _Optional[int] = ..., expires: _Optional[float] = ..., creator: _Optional[str] = ..., revoked: bool = ...) -> None: ...

class CreateTicketRequest(_message.Message):
    __slots__ = ("uses", "seconds")
    USES_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    uses: int
    seconds: float
    def __init__(self, uses: _Optional[int] = ..., seconds: _Optional[float] = ...) -> None: ...

class CreateTicketResponse(_message.Message):
    __slots__ = ("ticket", "address")
    TICKET_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    ticket: Ticket
    address: str
    def __init__(self, ticket: _Optional[_Union[Ticket, _Mapping]] = ..., address: _Optional[str] = ...) -> None: ...

class ListTicketsRequest(_message.Message):
    __slots__ = ("page",)
    PAGE_FIELD_NUMBER: _ClassVar[int]
    page: int
    def __init__(self, page: _Optional[int] = ...) -> None: ...

class ListTicketsResponse(_message.Message):
    __slots__ = ("tickets", "pages")
    TICKETS_FIELD_NUMBER: _ClassVar[int]
    PAGES_FIELD_NUMBER: _ClassVar[int]
    tickets: _containers.RepeatedCompositeFieldContainer[Ticket]
    pages: int
    def __init__(self, tickets: _Optional[_Iterable[_Union[Ticket, _Mapping]]] = ..., pages: _Optional[int] = ...) -> None: ...

class RevokeTicketRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class RevokeTicketResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Token(_message.Message):
    __slots__ = ("name", "role", "created", "expires", "revoked")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_FIELD_NUMBER: _ClassVar[int]
    REVOKED_FIELD_NUMBER: _ClassVar[int]
    name: str
    role: str
    created: float
    expires: float
    revoked: bool
    def __init__(self, name: _Optional[str] = ..., role: _Optional[str] = ..., created: _Optional[float] = ..., expires: _Optional[float] = ..., revoked: bool = ...) -> None: ...

class CreateTokenRequest(_message.Message):
    __slots__ = ("name", "role", "seconds")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    name: str
    role: str
    seconds: float
    def __init__(self, name: _Optional[str] = ..., role: _Optional[str] = ..., seconds: _Optional[float] = ...) -> None: ...

class CreateTokenResponse(_message.Message):
    __slots__ = ("token", "address")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    token: Token
    address: str
    def __init__(self, token: _Optional[_Union[Token, _Mapping]] = ..., address: _Optional[str] = ...) -> None: ...

class ListTokensRequest(_message.Message):
    __slots__ = ("page",)
    PAGE_FIELD_NUMBER: _ClassVar[int]
    page: int
    def __init__(self, page: _Optional[int] = ...) -> None: ...

class ListTokensResponse(_message.Message):
    __slots__ = ("tokens", "pages")
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    PAGES_FIELD_NUMBER: _ClassVar[int]
    tokens: _containers.RepeatedCompositeFieldContainer[Token]
    pages: int
    def __init__(self, tokens: _Optional[_Iterable[_Union[Token, _Mapping]]] = ..., pages: _Optional[int] = ...) -> None: ...

class RevokeTokenRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class RevokeTokenResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ReadAuditRequest(_message.Message):
    __slots__ = ("since",)
    SINCE_FIELD_NUMBER: _ClassVar[int]
    since: int
    def __init__(self, since: _Optional[int] = ...) -> None: ...

class ReadAuditResponse(_message.Message):
    __slots__ = ("entries",)
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[AuditEntry]
    def __init__(self, entries: _Optional[_Iterable[_Union[AuditEntry, _Mapping]]] = ...) -> None: ...

class AuditEntry(_message.Message):
    __slots__ = ("number", "time", "who", "action", "target", "details")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    number: int
    time: float
    who: str
    action: str
    target: str
    details: str
    def __init__(self, number: _Optional[int] = ..., time: _Optional[float] = ..., who: _Optional[str] = ..., action: _Optional[str] = ..., target: _Optional[str] = ..., details: _Optional[str] = ...) -> None: ...

class ReadRunBlobRequest(_message.Message):
    __slots__ = ("run", "digest", "offset")
    RUN_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    run: str
    digest: bytes
    offset: int
    def __init__(self, run: _Optional[str] = ..., digest: _Optional[bytes] = ..., offset: _Optional[int] = ...) -> None: ...

class ReadRunBlobResponse(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class StatRunBlobRequest(_message.Message):
    __slots__ = ("digest",)
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    digest: bytes
    def __init__(self, digest: _Optional[bytes] = ...) -> None: ...

class StatRunBlobResponse(_message.Message):
    __slots__ = ("received", "complete")
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    received: int
    complete: bool
    def __init__(self, received: _Optional[int] = ..., complete: bool = ...) -> None: ...

class WriteRunBlobRequest(_message.Message):
    __slots__ = ("head", "data")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    head: _values_pb2.BlobHead
    data: bytes
    def __init__(self, head: _Optional[_Union[_values_pb2.BlobHead, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...

class WriteRunBlobResponse(_message.Message):
    __slots__ = ("received", "complete")
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    received: int
    complete: bool
    def __init__(self, received: _Optional[int] = ..., complete: bool = ...) -> None: ...
