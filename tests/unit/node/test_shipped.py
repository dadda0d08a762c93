"""Apps that come through the server, at a node that runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.unit.apps.projects import contents, write_wheel
from tests.unit.node.scripted import Script, make_app, on_a_loop, running
from umbel import wire
from umbel.apps.project import Project
from umbel.apps.signature import make_key, sign_digest
from umbel.digest import digest_of
from umbel.node.config import NodeConfig, Policy
from umbel.node.installed import InstalledApp
from umbel.node.journal import read_journal
from umbel.node.policy import judge
from umbel.node.shipped import ShippedApps

NAME = "shipped"
SAYS = "import umbel\nclient = umbel.ClientApp()\n@client.train\ndef train(model, ctx):\n    " + (
    "return umbel.Update(model={'w': model['w'] + 5})\n"
)


class Wheel:
    """A wheel, its key, and tasks that name it."""

    def __init__(self, directory: Path, *, app: str = SAYS, requires: tuple[str, ...] = ()) -> None:
        path = write_wheel(directory, NAME, contents(NAME, app=app, requires=requires))
        self.content, project = path.read_bytes(), Project.find(path)
        self.digest = digest_of(self.content)
        self.public = make_key(directory / "key.pem")
        one = sign_digest(project.digest, directory / "key.pem", name="Ada")
        self.signature = wire.Signature(key=one.key, name=one.name, signature=one.signature)
        self.app = wire.App(name=NAME, version="1.0", digest=project.digest, object=f"{NAME}:client")
        self.app.wheel.CopyFrom(wire.Blob(digest=self.digest, size=len(self.content)))

    def policy(self, **changes: Any) -> Policy:
        return Policy(**{"code_from_server": True, "signers": (self.public,), **changes})

    def task(self, script: Script, own: InstalledApp, *, signed: bool = True, **more: Any) -> wire.Task:
        script.blobs[self.digest] = self.content
        task = script.task(own, **more)
        task.app.CopyFrom(self.app)
        task.app.signatures.extend([self.signature] if signed else [])
        return task


@pytest.fixture
def wheel(tmp_path: Path) -> Wheel:
    return Wheel(tmp_path / "wheel")


@pytest.fixture
def own(tmp_path: Path) -> InstalledApp:
    """The app that the node has, too."""
    return make_app(tmp_path / "own")


@on_a_loop
async def test_a_signed_app_is_fetched_once_and_runs(wheel: Wheel, own: InstalledApp, tmp_path: Path) -> None:
    config = NodeConfig(policy=wheel.policy())
    async with running(config, own, tmp_path / "node") as script:
        for exchange in (1, 2):
            report = await script.answer(script.ask(wheel.task(script, own, exchange=exchange)))
            assert report.WhichOneof("outcome") == "update", report
            assert script.arrays(report.update.arrays)["w"].tolist() == [5, 6, 7, 8]
        assert script.reads == [(wheel.digest, 0)]
        assert script.opened[0].takes_code
    assert [path.name for path in (tmp_path / "node" / "apps").iterdir()] == [wheel.app.digest.hex()]
    journal = [line for line in read_journal(tmp_path / "node" / "journal") if line["event"] == "installed"]
    assert [(line["app_digest"], line["submitter"]) for line in journal] == [(wheel.app.digest.hex(), "alice")]
    assert journal[0]["wheel"] == {"digest": wheel.digest.hex(), "bytes": len(wheel.content)}
    assert journal[0]["signed_by"][0].endswith("= Ada")


@on_a_loop
async def test_what_is_not_trusted_is_not_even_fetched(wheel: Wheel, own: InstalledApp, tmp_path: Path) -> None:
    async with running(NodeConfig(policy=wheel.policy()), own, tmp_path / "node") as script:
        assert script.opened == [] or script.opened[0].takes_code
        failure = (await script.answer(script.ask(wheel.task(script, own, signed=False)))).failure
        assert failure.code == "refused"
        assert "nobody whom its owner trusts has signed it; signed by: nobody" in failure.message
        wrong = wheel.task(script, own, exchange=2)
        wrong.app.signatures[0].name = "Eve"
        failure = (await script.answer(script.ask(wrong))).failure
        assert failure.code == "bad-signature"
        assert "'Eve' is wrong" in failure.message
        assert script.reads == []
    events = [line["event"] for line in read_journal(tmp_path / "node" / "journal")]
    assert events.count("refused") == 2
    assert "installed" not in events


@on_a_loop
async def test_by_default_no_code_comes(wheel: Wheel, own: InstalledApp, tmp_path: Path) -> None:
    async with running(NodeConfig(), own, tmp_path / "node") as script:
        failure = (await script.answer(script.ask(wheel.task(script, own)))).failure
        assert failure.code == "app-missing"
        assert "its owner does not let code come from the server" in failure.message
        assert "code_from_server = true" in failure.message
        assert not script.opened[0].takes_code
        assert script.reads == []
    assert not (tmp_path / "node" / "apps").exists()


@on_a_loop
async def test_a_wheel_of_other_files_is_refused_with_both_digests(
    wheel: Wheel, own: InstalledApp, tmp_path: Path
) -> None:
    other = Wheel(tmp_path / "other", app=SAYS + "# other\n")
    async with running(NodeConfig(policy=wheel.policy()), own, tmp_path / "node") as script:
        task = wheel.task(script, own)
        task.app.wheel.CopyFrom(other.app.wheel)
        script.blobs[other.digest] = other.content
        failure = (await script.answer(script.ask(task))).failure
        assert failure.code == "app-differs"
        said = f"its files have the digest {other.app.digest.hex()}, and the run says {wheel.app.digest.hex()}"
        assert said in failure.message
        assert str(tmp_path) not in failure.message
    assert not (tmp_path / "node" / "apps").exists()


@on_a_loop
async def test_what_it_needs_is_named(own: InstalledApp, tmp_path: Path) -> None:
    wheel = Wheel(tmp_path / "wheel", requires=("no-such-part>=2",))
    async with running(NodeConfig(policy=wheel.policy()), own, tmp_path / "node") as script:
        failure = (await script.answer(script.ask(wheel.task(script, own)))).failure
        assert failure.code == "app-missing"
        assert "needs no-such-part>=2, which is not installed at this node" in failure.message
        assert "pip install 'no-such-part>=2'" in failure.message


@on_a_loop
async def test_an_app_that_the_node_has_is_not_fetched(wheel: Wheel, own: InstalledApp, tmp_path: Path) -> None:
    policy = wheel.policy(apps=(own.app.name,))
    async with running(NodeConfig(policy=policy), own, tmp_path / "node") as script:
        task = script.task(own)
        task.app.wheel.CopyFrom(wheel.app.wheel)
        assert (await script.answer(script.ask(task))).WhichOneof("outcome") == "update"
        assert script.reads == []


def test_a_name_is_not_enough_and_a_digest_is(wheel: Wheel, own: InstalledApp) -> None:
    task = wire.Task(kind="train", name="train", submitter="alice", app=wheel.app)
    dataset = next(iter(NodeConfig().data.values()))

    def code(**policy: Any) -> str:
        refusal = judge(task, own.app, dataset, wheel.policy(signers=(), **policy))
        return refusal.code if refusal is not None else ""

    assert code(apps=(NAME,)) == "refused"
    assert code(apps=(wheel.app.digest.hex(),)) == ""
    assert code(apps=(wheel.app.digest.hex(),), max_model_bytes=len(wheel.content) - 1) == "refused"


def test_another_version_that_the_node_has_does_not_stand_in_the_way(wheel: Wheel, tmp_path: Path) -> None:
    older = make_app(tmp_path / "older", name=NAME)
    task = wire.Task(kind="train", name="train", submitter="alice", app=wheel.app)
    task.app.signatures.append(wheel.signature)
    dataset = next(iter(NodeConfig().data.values()))
    assert judge(task, older.app, dataset, wheel.policy()) is None
    refusal = judge(task, older.app, dataset, replace(wheel.policy(), code_from_server=False))
    assert refusal is not None
    assert refusal.code == "app-differs"
    assert older.app.digest.hex() in refusal.message
    assert wheel.app.digest.hex() in refusal.message


def test_where_it_cannot_be_unpacked_the_server_hears_no_path(wheel: Wheel, tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(wheel.content)
    (tmp_path / "apps").write_text("a file")
    with pytest.raises(Exception, match="cannot be unpacked") as caught:
        ShippedApps(tmp_path / "apps", "berlin").take(wheel.app, tmp_path / "blob")
    assert str(tmp_path) not in str(caught.value)
