"""The generated code is what proto/ gives, runs with each protobuf that we promise, and breaks no release."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools import wire

ROOT = Path(__file__).parents[2]
REQUIRED = os.environ.get("UMBEL_REQUIRE", "")
NEEDS = "needs protobuf-versions in UMBEL_REQUIRE: it installs packages, which takes a minute"
ROUND_TRIP = """
import sys, google.protobuf
from umbel.wire.v1 import control_pb2, node_pb2, values_pb2
assert google.protobuf.__version__.split(".")[0] == sys.argv[1], google.protobuf.__version__
blob = values_pb2.Blob(digest=bytes(32), size=3, content=b"abc")
task = node_pb2.Task(kind="train", model=blob, needs=["transforms"], deadline=1.5, seed="9" * 30)
task.id.exchange = 1 << 60
back = node_pb2.Task.FromString(task.SerializeToString() + b"\\xf2\\x3f\\x02hi")
assert back.model == blob and back.id.exchange == 1 << 60 and back.needs == ["transforms"]
assert not back.HasField("app") and back.HasField("model") and back.model.HasField("content")
report = node_pb2.ReportRequest(failure=node_pb2.Failure(code="x"))
assert report.WhichOneof("outcome") == "failure"
change = control_pb2.ChangeNodeRequest(node="a", revoked=False)
assert control_pb2.ChangeNodeRequest.FromString(change.SerializeToString()).WhichOneof("change") == "revoked"
from umbel import wire
from umbel.errors import FormatError
assert wire.NODE["WriteBlob"].uploads and wire.CONTROL["WatchRun"].streams
wire.check(wire.BlobHead(digest=bytes(32), size=1))
try:
    wire.parse(wire.Task, b"\\xff")
except FormatError:
    pass
"""


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A checkout of its own, as far as the tool looks at it."""
    shutil.copytree(ROOT / "proto", tmp_path / "proto")
    shutil.copytree(ROOT / wire.PLACE, tmp_path / wire.PLACE)
    return tmp_path


def change(root: Path, old: str, new: str) -> None:
    path = root / "proto" / "umbel" / "v1" / "node.proto"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.mark.skipif("protobuf-versions" not in REQUIRED, reason=NEEDS)
def test_the_code_is_what_the_proto_gives(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    python = wire.generator(None, copied / "venv")
    assert wire.main(["--check", "--python", python], copied) == 0
    assert capsys.readouterr().out == ""
    change(copied, "string dataset = 7;", "string data_set = 7;")
    assert wire.main(["--check", "--python", python], copied) == 1
    assert "node_pb2.py is not what proto/ gives" in capsys.readouterr().out
    assert wire.main(["--python", python], copied) == 0
    assert wire.main(["--check", "--python", python], copied) == 0


def test_a_generator_that_is_not_there_skips_the_check(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert wire.main(["--check", "--python", sys.executable], copied) == 0
    assert capsys.readouterr().out.startswith("skipped: ")
    assert wire.main(["--python", sys.executable], copied) == 1


@pytest.mark.skipif("protobuf-versions" not in REQUIRED, reason=NEEDS)
@pytest.mark.parametrize("version", ["4.25", "5", "6", "7"])
def test_the_code_runs_with_each_protobuf(tmp_path: Path, version: str) -> None:
    target = tmp_path / "packages"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target)]
    subprocess.run([*install, f"protobuf=={version}.*"], check=True)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(target), str(ROOT / "src")])}
    command = [sys.executable, "-W", "error", "-c", ROUND_TRIP, version.partition(".")[0]]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def buf() -> None:
    if not (Path(sys.executable).parent / "buf").exists():
        pytest.skip("needs buf: install the group `lint`")


@pytest.mark.usefixtures("buf")
def test_the_proto_is_well_formed() -> None:
    done = wire.buf(ROOT, "lint", "proto")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.usefixtures("buf")
def test_no_release_is_broken() -> None:
    assert wire.broken(ROOT) == []


@pytest.mark.usefixtures("buf")
@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("string dataset = 7;", "bytes dataset = 7;", '"dataset" on message "Task" changed'),
        ("string dataset = 7;", "", '"7" with name "dataset" on message "Task" was deleted'),
        ("uint32 round = 8;", "uint32 round = 80;", '"8" with name "round" on message "Task" was deleted'),
        ("VERDICT_LATE = 3;", "VERDICT_LATE = 4;", '"3" on enum "Verdict" was deleted'),
    ],
)
def test_a_change_that_breaks_a_release_is_caught(copied: Path, old: str, new: str, said: str) -> None:
    assert wire.main(["--release", "0.0.1"], copied) == 0
    assert wire.broken(copied) == []
    change(copied, "uint32 threads = 20;", "uint32 threads = 20; string more = 2000;")
    assert wire.broken(copied) == []
    change(copied, old, new)
    assert any(line.startswith("0.0.1: ") and said in line for line in wire.broken(copied))
    assert wire.main(["--breaking"], copied) == 1
    with pytest.raises(SystemExit, match="does not change"):
        wire.main(["--release", "0.0.1"], copied)
