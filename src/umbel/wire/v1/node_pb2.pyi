# Made by tools/wire.py from proto/umbel/v1/node.proto; change that, and make this anew.
# ruff: noqa: E402, E501, E712, F401, I001, I002, RUF023, RUF100, UP007, UP035, UP045
# mypy: ignore-errors
# fmt: off
from umbel.wire.v1 import values_pb2 as _values_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EnrolRequest(_message.Message):
    __slots__ = ("ticket", "name", "public_key", "labels", "check")
    TICKET_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    CHECK_FIELD_NUMBER: _ClassVar[int]
    ticket: str
    name: str
    public_key: bytes
    labels: _containers.RepeatedCompositeFieldContainer[_values_pb2.Label]
    check: bool
    def __init__(self, ticket: _Optional[str] = ..., name: _Optional[str] = ..., public_key: _Optional[bytes] = ..., labels: _Optional[_Iterable[_Union[_values_pb2.Label, _Mapping]]] = ..., check: bool = ...) -> None: ...

class EnrolResponse(_message.Message):
    __slots__ = ("federation", "time")
    FEDERATION_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    federation: str
    time: float
    def __init__(self, federation: _Optional[str] = ..., time: _Optional[float] = ...) -> None: ...

class ChallengeRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ChallengeResponse(_message.Message):
    __slots__ = ("challenge",)
    CHALLENGE_FIELD_NUMBER: _ClassVar[int]
    challenge: bytes
    def __init__(self, challenge: _Optional[bytes] = ...) -> None: ...

class OpenSessionRequest(_message.Message):
    __slots__ = ("name", "challenge", "signature", "versions", "program", "apps", "labels", "slots", "datasets", "time", "takes_code")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CHALLENGE_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    PROGRAM_FIELD_NUMBER: _ClassVar[int]
    APPS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    DATASETS_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    TAKES_CODE_FIELD_NUMBER: _ClassVar[int]
    name: str
    challenge: bytes
    signature: bytes
    versions: _containers.RepeatedScalarFieldContainer[int]
    program: str
    apps: _containers.RepeatedCompositeFieldContainer[_values_pb2.App]
    labels: _containers.RepeatedCompositeFieldContainer[_values_pb2.Label]
    slots: int
    datasets: _containers.RepeatedScalarFieldContainer[str]
    time: float
    takes_code: bool
    def __init__(self, name: _Optional[str] = ..., challenge: _Optional[bytes] = ..., signature: _Optional[bytes] = ..., versions: _Optional[_Iterable[int]] = ..., program: _Optional[str] = ..., apps: _Optional[_Iterable[_Union[_values_pb2.App, _Mapping]]] = ..., labels: _Optional[_Iterable[_Union[_values_pb2.Label, _Mapping]]] = ..., slots: _Optional[int] = ..., datasets: _Optional[_Iterable[str]] = ..., time: _Optional[float] = ..., takes_code: bool = ...) -> None: ...

class OpenSessionResponse(_message.Message):
    __slots__ = ("session", "version", "program", "keepalive", "chunk", "inline", "time", "federation")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PROGRAM_FIELD_NUMBER: _ClassVar[int]
    KEEPALIVE_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    INLINE_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    FEDERATION_FIELD_NUMBER: _ClassVar[int]
    session: bytes
    version: int
    program: str
    keepalive: float
    chunk: int
    inline: int
    time: float
    federation: str
    def __init__(self, session: _Optional[bytes] = ..., version: _Optional[int] = ..., program: _Optional[str] = ..., keepalive: _Optional[float] = ..., chunk: _Optional[int] = ..., inline: _Optional[int] = ..., time: _Optional[float] = ..., federation: _Optional[str] = ...) -> None: ...

class SubscribeRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SubscribeResponse(_message.Message):
    __slots__ = ("task", "revoke", "goodbye")
    TASK_FIELD_NUMBER: _ClassVar[int]
    REVOKE_FIELD_NUMBER: _ClassVar[int]
    GOODBYE_FIELD_NUMBER: _ClassVar[int]
    task: Task
    revoke: Revoke
    goodbye: Goodbye
    def __init__(self, task: _Optional[_Union[Task, _Mapping]] = ..., revoke: _Optional[_Union[Revoke, _Mapping]] = ..., goodbye: _Optional[_Union[Goodbye, _Mapping]] = ...) -> None: ...

class Revoke(_message.Message):
    __slots__ = ("tasks", "reason")
    TASKS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    tasks: _containers.RepeatedCompositeFieldContainer[TaskId]
    reason: str
    def __init__(self, tasks: _Optional[_Iterable[_Union[TaskId, _Mapping]]] = ..., reason: _Optional[str] = ...) -> None: ...

class Goodbye(_message.Message):
    __slots__ = ("reason", "wait")
    REASON_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    reason: str
    wait: float
    def __init__(self, reason: _Optional[str] = ..., wait: _Optional[float] = ...) -> None: ...

class Task(_message.Message):
    __slots__ = ("id", "run_name", "submitter", "kind", "name", "app", "dataset", "round", "model", "extra", "config", "seed", "call", "again", "details", "attachments", "needs", "state", "deadline", "threads")
    ID_FIELD_NUMBER: _ClassVar[int]
    RUN_NAME_FIELD_NUMBER: _ClassVar[int]
    SUBMITTER_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    APP_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    EXTRA_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    CALL_FIELD_NUMBER: _ClassVar[int]
    AGAIN_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    ATTACHMENTS_FIELD_NUMBER: _ClassVar[int]
    NEEDS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_FIELD_NUMBER: _ClassVar[int]
    THREADS_FIELD_NUMBER: _ClassVar[int]
    id: TaskId
    run_name: str
    submitter: str
    kind: str
    name: str
    app: _values_pb2.App
    dataset: str
    round: int
    model: _values_pb2.Blob
    extra: _containers.RepeatedCompositeFieldContainer[_values_pb2.NamedBlob]
    config: str
    seed: str
    call: int
    again: int
    details: str
    attachments: _containers.RepeatedCompositeFieldContainer[_values_pb2.Blob]
    needs: _containers.RepeatedScalarFieldContainer[str]
    state: int
    deadline: float
    threads: int
    def __init__(self, id: _Optional[_Union[TaskId, _Mapping]] = ..., run_name: _Optional[str] = ..., submitter: _Optional[str] = ..., kind: _Optional[str] = ..., name: _Optional[str] = ..., app: _Optional[_Union[_values_pb2.App, _Mapping]] = ..., dataset: _Optional[str] = ..., round: _Optional[int] = ..., model: _Optional[_Union[_values_pb2.Blob, _Mapping]] = ..., extra: _Optional[_Iterable[_Union[_values_pb2.NamedBlob, _Mapping]]] = ..., config: _Optional[str] = ..., seed: _Optional[str] = ..., call: _Optional[int] = ..., again: _Optional[int] = ..., details: _Optional[str] = ..., attachments: _Optional[_Iterable[_Union[_values_pb2.Blob, _Mapping]]] = ..., needs: _Optional[_Iterable[str]] = ..., state: _Optional[int] = ..., deadline: _Optional[float] = ..., threads: _Optional[int] = ...) -> None: ...

class TaskId(_message.Message):
    __slots__ = ("run", "exchange", "client", "attempt")
    RUN_FIELD_NUMBER: _ClassVar[int]
    EXCHANGE_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    run: str
    exchange: int
    client: str
    attempt: int
    def __init__(self, run: _Optional[str] = ..., exchange: _Optional[int] = ..., client: _Optional[str] = ..., attempt: _Optional[int] = ...) -> None: ...

class ReportRequest(_message.Message):
    __slots__ = ("id", "update", "metrics", "failure", "seconds", "state", "output")
    ID_FIELD_NUMBER: _ClassVar[int]
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    id: TaskId
    update: Update
    metrics: Metrics
    failure: Failure
    seconds: float
    state: bool
    output: str
    def __init__(self, id: _Optional[_Union[TaskId, _Mapping]] = ..., update: _Optional[_Union[Update, _Mapping]] = ..., metrics: _Optional[_Union[Metrics, _Mapping]] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ..., seconds: _Optional[float] = ..., state: bool = ..., output: _Optional[str] = ...) -> None: ...

class ReportResponse(_message.Message):
    __slots__ = ("verdict",)
    class Verdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        VERDICT_UNSPECIFIED: _ClassVar[ReportResponse.Verdict]
        VERDICT_ACCEPTED: _ClassVar[ReportResponse.Verdict]
        VERDICT_REPEATED: _ClassVar[ReportResponse.Verdict]
        VERDICT_LATE: _ClassVar[ReportResponse.Verdict]
    VERDICT_UNSPECIFIED: ReportResponse.Verdict
    VERDICT_ACCEPTED: ReportResponse.Verdict
    VERDICT_REPEATED: ReportResponse.Verdict
    VERDICT_LATE: ReportResponse.Verdict
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    verdict: ReportResponse.Verdict
    def __init__(self, verdict: _Optional[_Union[ReportResponse.Verdict, str]] = ...) -> None: ...

class Update(_message.Message):
    __slots__ = ("kind", "arrays", "weight", "metrics", "extra")
    KIND_FIELD_NUMBER: _ClassVar[int]
    ARRAYS_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    EXTRA_FIELD_NUMBER: _ClassVar[int]
    kind: str
    arrays: _values_pb2.Blob
    weight: float
    metrics: str
    extra: _containers.RepeatedCompositeFieldContainer[_values_pb2.NamedBlob]
    def __init__(self, kind: _Optional[str] = ..., arrays: _Optional[_Union[_values_pb2.Blob, _Mapping]] = ..., weight: _Optional[float] = ..., metrics: _Optional[str] = ..., extra: _Optional[_Iterable[_Union[_values_pb2.NamedBlob, _Mapping]]] = ...) -> None: ...

class Metrics(_message.Message):
    __slots__ = ("weight", "metrics")
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    weight: float
    metrics: str
    def __init__(self, weight: _Optional[float] = ..., metrics: _Optional[str] = ...) -> None: ...

class Failure(_message.Message):
    __slots__ = ("code", "message", "traceback", "retryable")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    TRACEBACK_FIELD_NUMBER: _ClassVar[int]
    RETRYABLE_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    traceback: str
    retryable: bool
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ..., traceback: _Optional[str] = ..., retryable: bool = ...) -> None: ...
