"""May this task be done here? Decided from values alone, in words for who submitted the run and for the owner."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import final

from umbel.apps.describe import App
from umbel.apps.signature import Signature, check_right, show_key
from umbel.errors import AppDiffers, AppMissing, BadSignature, Refused
from umbel.node.config import ANYONE, DEFAULT, Dataset, Policy
from umbel.node.reading import in_words
from umbel.wire import Blob, Task


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a task is not done.

    Attributes:
        code: a stable word: that of the error that it stands for.
        message: what is not permitted, and by whom.
        advice: what to do now.
    """

    code: str
    message: str
    advice: str = ""

    def __str__(self) -> str:
        return f"{self.message}\n  What to do: {self.advice}" if self.advice else self.message


def pick_dataset(name: str, data: Mapping[str, Dataset]) -> Dataset | None:
    """The data set that a task means; "" is the node's only one.

    Args:
        name: what the task says.
        data: what the node has.
    """
    if name:
        return data.get(name)
    return next(iter(data.values())) if len(data) == 1 else data.get(DEFAULT)


def judge(
    task: Task,
    app: App | None,
    dataset: Dataset | None,
    policy: Policy,
    *,
    abilities: Collection[str] = (),
    node: str = "",
) -> Refusal | None:
    """Why a task is not to be done; None: it may be done.

    Args:
        task: what the server asks.
        app: the app of the task's name, if the node was started with one.
        dataset: the data set that it means, if there is one.
        policy: what the owner permits.
        abilities: what the node can do beside the plain task; see ``Task.needs``.
        node: the node's name, for the message.
    """
    who = f"node {node}" if node else "this node"
    return (
        _judge_app(task, app, policy, who)
        or _judge_coming(task, app, policy, who)
        or _judge_submitter(task, policy, who)
        or _judge_dataset(task, dataset, who)
        or _judge_needs(task, abilities, who)
        or _judge_size(task, app, policy, who)
    )


def comes_along(task: Task, app: App | None, policy: Policy) -> bool:
    """Is the app of a task taken from the server? Where it is not at the node, and its owner lets code come.

    Args:
        task: what the server asks.
        app: the app of the task's name, if the node was started with one.
        policy: what the owner permits.
    """
    return policy.code_from_server and task.app.HasField("wheel") and _judge_here(task, app, policy, "") is not None


def judge_answer(size: int, policy: Policy, *, node: str = "") -> Refusal | None:
    """Why an answer of so many bytes is not to leave; None: it may."""
    if size <= policy.max_update_bytes:
        return None
    return Refusal(
        code=Refused.code,
        message=f"node {node} lets no more than {in_words(policy.max_update_bytes)} leave in answer to a task; the "
        f"update has {in_words(size)}",
        advice="return less, or ask its owner to raise max_update_bytes in [policy] of node.toml",
    )


def _judge_app(task: Task, app: App | None, policy: Policy, who: str) -> Refusal | None:
    refusal = _judge_here(task, app, policy, who)
    if refusal is None or comes_along(task, app, policy):
        return None
    if not task.app.HasField("wheel"):
        return refusal
    return replace(
        refusal,
        message=f"{refusal.message}; and its owner does not let code come from the server",
        advice=f"{refusal.advice}; or ask its owner for code_from_server = true in [policy] of node.toml",
    )


def _judge_coming(task: Task, app: App | None, policy: Policy, who: str) -> Refusal | None:
    """Code from the server runs if its digest is named, or signed by somebody whom the owner trusts; no name is enough.

    That the wheel has this digest is seen when it is there.
    """
    if not comes_along(task, app, policy):
        return None
    asked = task.app
    what = f"the app {asked.name!r} (digest {asked.digest.hex()}), which comes from the server"
    if not asked.name.isidentifier() or asked.object.partition(":")[0].partition(".")[0] != asked.name:
        return Refusal(
            code=Refused.code, message=f"{who} does not run {asked.object!r}, which is no part of {what}", advice=_AGAIN
        )
    found = signatures_of(task)
    try:
        check_right(found, asked.digest, what=what)
    except BadSignature as error:
        return Refusal(code=error.code, message=f"{who} does not run {error.what}", advice=error.advice)
    if asked.digest.hex() in (policy.apps or ()) or any(one.key in policy.signers for one in found):
        return None
    signed = _listed(show_key(one.key) for one in found) if found else "nobody"
    trusted = _listed(map(show_key, policy.signers)) if policy.signers else "nobody"
    return Refusal(
        code=Refused.code,
        message=f"{who} does not run {what}: nobody whom its owner trusts has signed it; signed by: {signed}; trusted: "
        + trusted,
        advice="have it signed by one of those: umbel sign WHEEL --key KEY; or ask its owner to name your public key "
        "under signers, or the digest under apps, in [policy] of node.toml",
    )


def signatures_of(task: Task) -> tuple[Signature, ...]:
    """The signatures that come with a task's app; nobody has looked whether they are right."""
    return tuple(Signature(key=one.key, name=one.name, signature=one.signature) for one in task.app.signatures)


_AGAIN = "submit the run again, with the app's own object"


def _judge_here(task: Task, app: App | None, policy: Policy, who: str) -> Refusal | None:
    """May the app run that is at the node?"""
    name = task.app.name
    if app is None or app.name != name:
        return Refusal(
            code=AppMissing.code,
            message=f"{who} does not have the app {name!r}",
            advice="install it there and start the node with --app",
        )
    if app.digest != task.app.digest or (task.app.object and task.app.object != app.object):
        return Refusal(
            code=AppDiffers.code,
            message=f"{who} has another version of the app {name!r}: {_version(app.version, app.digest, app.object)}; "
            f"the run is of {_version(task.app.version, task.app.digest, task.app.object)}",
            advice="install the same version on both sides; `umbel node check` shows the digest at the node",
        )
    if not is_permitted(app, policy):
        named = [*(policy.apps or ()), *(f"signed by {show_key(key)}" for key in policy.signers)]
        return Refusal(
            code=Refused.code,
            message=f"{who} does not let the app {name!r} (digest {app.digest.hex()}) run; its owner permits: "
            + _listed(named),
            advice="ask its owner to name the digest under apps in [policy] of node.toml, or have the app signed",
        )
    return None


def is_permitted(app: App, policy: Policy) -> bool:
    """Does the owner let this app run, for anyone at all?"""
    if policy.apps is None and not policy.signers:
        return True
    by_name = app.name in (policy.apps or ()) or app.digest.hex() in (policy.apps or ())
    return by_name or not set(app.signers).isdisjoint(policy.signers)


def _judge_submitter(task: Task, policy: Policy, who: str) -> Refusal | None:
    if not _is_among(task.submitter, policy.submitters):
        return Refusal(
            code=Refused.code,
            message=f"{who} takes no runs of {task.submitter!r}; its owner permits: {_listed(policy.submitters)}",
            advice="ask its owner to name you under submitters in [policy] of node.toml",
        )
    if task.kind not in policy.kinds:
        return Refusal(
            code=Refused.code,
            message=f"{who} does not do what the run asks for, {task.kind!r}; its owner permits: "
            + _listed(policy.kinds),
            advice="ask its owner to name it under kinds in [policy] of node.toml",
        )
    return None


def _judge_dataset(task: Task, dataset: Dataset | None, who: str) -> Refusal | None:
    if dataset is None or (task.dataset and dataset.name != task.dataset):
        asked = f"has no data set {task.dataset!r}" if task.dataset else "has several data sets, and the run names none"
        return Refusal(
            code=Refused.code,
            message=f"{who} {asked}",
            advice="name one that the node offers with dataset=; `umbel nodes ls` shows them",
        )
    if not _is_among(task.submitter, dataset.allow):
        return Refusal(
            code=Refused.code,
            message=f"{who} does not let {task.submitter!r} use data set {dataset.name!r}; its owner permits: "
            + _listed(dataset.allow),
            advice=f"ask its owner to name you under allow in [data.{dataset.name}] of node.toml",
        )
    if not any(fnmatchcase(task.run_name, pattern) for pattern in dataset.runs):
        return Refusal(
            code=Refused.code,
            message=f"{who} does not let run {task.run_name!r} use data set {dataset.name!r}; its owner permits: "
            + _listed(dataset.runs),
            advice=f"ask its owner to name the run under allow_runs in [data.{dataset.name}] of node.toml",
        )
    return None


def _judge_needs(task: Task, abilities: Collection[str], who: str) -> Refusal | None:
    unknown = [need for need in task.needs if need not in abilities]
    if not unknown:
        return None
    return Refusal(
        code=Refused.code,
        message=f"{who} cannot do what the run needs: {_listed(unknown)}",
        advice="update Umbel there, or leave that out of the strategy",
    )


def _judge_size(task: Task, app: App | None, policy: Policy, who: str) -> Refusal | None:
    code = task.app.wheel.size if comes_along(task, app, policy) else 0
    total = sum(blob.size for blob in blobs_of(task)) + code
    if total <= policy.max_model_bytes:
        return None
    return Refusal(
        code=Refused.code,
        message=f"{who} takes no more than {in_words(policy.max_model_bytes)} with a task; this one brings "
        + in_words(total),
        advice="send a smaller model, or ask its owner to raise max_model_bytes in [policy] of node.toml",
    )


def blobs_of(task: Task) -> list[Blob]:
    """All arrays that a task names: the model, extra ones and attachments."""
    model = [task.model] if task.HasField("model") else []
    return [*model, *(named.blob for named in task.extra), *task.attachments]


def _is_among(name: str, permitted: Collection[str]) -> bool:
    return ANYONE in permitted or name in permitted


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "nobody and nothing"


def _version(version: str, digest: bytes, where: str) -> str:
    named = f"{version} " if version else ""
    return f"{named}(digest {digest.hex() or 'none'}{f', object {where}' if where else ''})"


__all__ = [
    "Refusal",
    "blobs_of",
    "comes_along",
    "is_permitted",
    "judge",
    "judge_answer",
    "pick_dataset",
    "signatures_of",
]
