from __future__ import annotations

from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel import wire
from umbel.apps.describe import App
from umbel.node.config import ANYONE, KINDS, Dataset, Policy
from umbel.node.policy import judge, judge_answer, pick_dataset

DIGEST = bytes(32)
MINE = App(name="myfed", version="1.0", digest=DIGEST, object="myfed:client")
HEART = Dataset(name="heart", allow=("alice",))


def task(**changes: object) -> wire.Task:
    made = wire.Task(
        submitter="alice",
        run_name="trial",
        kind="train",
        name="train",
        app=wire.App(name="myfed", version="1.0", digest=DIGEST, object="myfed:client"),
    )
    for name, value in changes.items():
        if isinstance(value, list):
            getattr(made, name).extend(value)
        else:
            setattr(made, name, value)
    return made


def refused(asked: wire.Task, app: App | None = MINE, dataset: Dataset | None = HEART, **policy: object) -> str:
    refusal = judge(asked, app, dataset, Policy(**policy), node="berlin", abilities=["transforms"])  # type: ignore[arg-type]
    return "" if refusal is None else f"{refusal.code}: {refusal}"


def test_the_default_permits_what_the_node_was_started_with() -> None:
    assert refused(task()) == ""


@pytest.mark.parametrize(
    ("asked", "app", "dataset", "policy", "words"),
    [
        (task(), None, HEART, {}, "app-missing: node berlin does not have the app 'myfed'"),
        (task(submitter="bob"), MINE, HEART, {}, "does not let 'bob' use data set 'heart'; its owner permits: alice"),
        (task(), MINE, HEART, {"submitters": ()}, "takes no runs of 'alice'; its owner permits: nobody"),
        (task(), MINE, HEART, {"kinds": ("evaluate",)}, "'train'; its owner permits: evaluate"),
        (task(), MINE, HEART, {"apps": ("other",)}, "does not let the app 'myfed'"),
        (task(), MINE, None, {}, "has several data sets, and the run names none"),
        (task(dataset="lung"), MINE, None, {}, "has no data set 'lung'"),
        (task(needs=["magic"]), MINE, HEART, {}, "cannot do what the run needs: magic"),
        (task(attachments=[wire.Blob(size=11)]), MINE, HEART, {"max_model_bytes": 10}, "no more than 10 bytes"),
    ],
)  # fmt: skip
def test_a_refusal_says_why(
    asked: wire.Task, app: App | None, dataset: Dataset | None, policy: dict[str, object], words: str
) -> None:
    assert words in refused(asked, app, dataset, **policy)


def test_another_version_names_both_digests() -> None:
    other = App(name="myfed", version="2.0", digest=b"\x01" * 32, object="myfed:client")
    said = refused(task(), other)
    assert said.startswith("app-differs: ")
    assert "01" * 32 in said
    assert "00" * 32 in said


def test_another_object_of_the_app_does_not_run() -> None:
    asked = task()
    asked.app.object = "os:system"
    assert refused(asked).startswith("app-differs: ")


def test_an_answer_that_is_too_large_does_not_leave() -> None:
    assert judge_answer(10, Policy(max_update_bytes=10)) is None
    refusal = judge_answer(11, Policy(max_update_bytes=10), node="berlin")
    assert refusal is not None
    assert refusal.code == "refused"
    assert "max_update_bytes" in str(refusal)


def test_the_data_set_that_is_meant() -> None:
    one, two, usual = Dataset(name="one"), Dataset(name="two"), Dataset(name="default")
    assert pick_dataset("", {"one": one}) is one
    assert pick_dataset("", {"one": one, "two": two}) is None
    assert pick_dataset("", {"one": one, "default": usual}) is usual
    assert pick_dataset("two", {"one": one, "two": two}) is two
    assert pick_dataset("three", {"one": one}) is None


names = st.sampled_from(["alice", "bob", "carol", ANYONE])
lists = st.lists(names, max_size=3).map(tuple)
keys = st.sampled_from([b"1" * 32, b"2" * 32])


@given(
    submitter=st.sampled_from(["alice", "bob", "carol"]),
    run_name=st.sampled_from(["heart-1", "lung-1", ""]),
    kind=st.sampled_from(KINDS),
    dataset=st.builds(Dataset, name=st.just("heart"), allow=lists, runs=st.sampled_from([("*",), ("heart-*",), ()])),
    wanted=st.sampled_from(["", "heart", "lung"]),
    app=st.builds(
        App,
        name=st.sampled_from(["myfed", "other"]),
        version=st.just("1"),
        digest=st.sampled_from([DIGEST, b"\x01" * 32]),
        object=st.just("myfed:client"),
        signers=st.lists(keys, max_size=2).map(tuple),
    ),
    policy=st.builds(
        Policy,
        apps=st.none() | st.lists(st.sampled_from(["myfed", "other", DIGEST.hex()]), max_size=2).map(tuple),
        signers=st.lists(keys, max_size=1).map(tuple),
        submitters=lists,
        kinds=st.lists(st.sampled_from(KINDS), unique=True).map(tuple),
        max_model_bytes=st.sampled_from([0, 100]),
    ),
    size=st.sampled_from([0, 50, 200]),
)
def test_nothing_is_permitted_that_no_rule_permits(
    *, submitter: str, run_name: str, kind: str, dataset: Dataset, wanted: str, app: App, policy: Policy, size: int
) -> None:
    asked = task(submitter=submitter, run_name=run_name, kind=kind, dataset=wanted, attachments=[wire.Blob(size=size)])
    by_app = policy.apps is None and not policy.signers
    by_app = by_app or app.name in (policy.apps or ()) or app.digest.hex() in (policy.apps or ())
    permitted = all(
        [
            app.name == "myfed",
            app.digest == DIGEST,
            by_app or bool(set(app.signers) & set(policy.signers)),
            submitter in policy.submitters or ANYONE in policy.submitters,
            kind in policy.kinds,
            wanted in ("", "heart"),
            submitter in dataset.allow or ANYONE in dataset.allow,
            any(fnmatchcase(run_name, pattern) for pattern in dataset.runs),
            size <= policy.max_model_bytes,
        ]
    )
    assert (judge(asked, app, dataset, policy) is None) == permitted
