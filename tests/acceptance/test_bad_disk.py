"""Files that are damaged, gone or something else, and what to do about it; the advice is followed to the letter."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import umbel
from umbel.errors import CorruptFile, StoreError
from umbel.store.journal import read_lines

client = umbel.ClientApp()
interrupted_in: list[int] = []


@client.train
def train(model: Any, ctx: Any) -> umbel.Update:
    ctx.state["n"] = ctx.state.get("n", 0) + 1
    ctx.state["path"] = np.append(ctx.state.get("path", np.zeros(500)), ctx.rng.random())
    return umbel.Update(delta={"w": ctx.rng.normal(size=4) * ctx.state["n"]}, metrics={"n": ctx.state["path"].sum()})


@client.evaluate
def evaluate(model: Any, ctx: Any) -> umbel.Metrics:
    if ctx.round in interrupted_in:
        raise KeyboardInterrupt
    return umbel.Metrics({"far": float(np.abs(model["w"]).sum())})


server = umbel.ServerApp(model={"w": np.zeros(4)}, strategy=umbel.fed_adam(cohort=umbel.sample.fraction(0.5)), rounds=5)


def run(directory: Path | None, rounds: int = 8) -> umbel.Result:
    keep = umbel.Checkpoint(best_on="far", mode="max")
    on = umbel.Simulation(clients=5)
    return umbel.run(server, client, on=on, seed=2, dir=directory, rounds=rounds, callbacks=[keep])


@pytest.fixture(scope="module")
def straight() -> umbel.Result:
    return run(None)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run that has ended after five rounds."""
    directory = tmp_path_factory.mktemp("finished") / "run"
    run(directory, rounds=5)
    return directory


@pytest.fixture(scope="module")
def halfway(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run that was interrupted in round 5, when all had trained and one was evaluating."""
    directory = tmp_path_factory.mktemp("halfway") / "run"
    interrupted_in.append(5)
    with pytest.raises(KeyboardInterrupt):
        run(directory)
    interrupted_in.clear()
    assert (directory / "exchanges").stat().st_size > 0
    return directory


@contextmanager
def copy_of(directory: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as temporary:
        yield Path(shutil.copytree(directory, Path(temporary) / "run"))


def same(found: umbel.Result, wanted: umbel.Result) -> None:
    assert found.model == wanted.model
    assert found.best == wanted.best
    assert found.history == wanted.history
    assert found.state == wanted.state
    assert found.clients == wanted.clients


def follow_advice(directory: Path) -> umbel.Result:
    """Run; do what each error says, by its own words; until the run ends."""
    for _ in range(8):
        try:
            return run(directory)
        except CorruptFile as error:
            assert str(directory) in error.what  # it says which file
            if found := re.search(r"move (\S+) away", error.advice):
                shutil.move(found[1], directory.parent / f"away-{Path(found[1]).name}")
            elif found := re.search(r"remove (\S+): the run then starts over", error.advice):
                Path(found[1]).unlink()
            else:
                raise
    raise AssertionError("the advice does not help")


# --- the journal -----------------------------------------------------------------------------------


@settings(max_examples=40)
@given(data=st.data())
def test_a_journal_cut_off_anywhere_costs_time_only(
    data: st.DataObject, finished: Path, halfway: Path, straight: umbel.Result
) -> None:
    with copy_of(data.draw(st.sampled_from([finished, halfway]))) as directory:
        content = (directory / "journal").read_bytes()
        (directory / "journal").write_bytes(content[: data.draw(st.integers(0, len(content)))])
        same(follow_advice(directory), straight)


def test_a_torn_last_line_needs_no_advice(halfway: Path, straight: umbel.Result) -> None:
    lines = (halfway / "journal").read_bytes().splitlines(keepends=True)
    for end in (len(lines[-1]) - 1, len(lines[-1]) // 2, 1):
        with copy_of(halfway) as directory:
            (directory / "journal").write_bytes(b"".join(lines[:-1]) + lines[-1][:end])
            same(run(directory), straight)


@settings(max_examples=25)
@given(data=st.data())
def test_a_damaged_line_is_named(data: st.DataObject, finished: Path, straight: umbel.Result) -> None:
    with copy_of(finished) as directory:
        content = bytearray((directory / "journal").read_bytes())
        lines = bytes(content).splitlines(keepends=True)
        place = data.draw(st.integers(0, sum(map(len, lines[:-2])) - 1))
        number = bytes(content[:place]).count(b"\n") + 1
        content[place] ^= data.draw(st.integers(1, 255))
        (directory / "journal").write_bytes(content)
        with pytest.raises(CorruptFile, match=rf"journal, line {number} is damaged"):
            run(directory)
        same(follow_advice(directory), straight)


@settings(max_examples=25)
@given(data=st.data())
def test_damaged_exchanges_are_done_again(data: st.DataObject, halfway: Path, straight: umbel.Result) -> None:
    with copy_of(halfway) as directory:
        content = bytearray((directory / "exchanges").read_bytes())
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
        (directory / "exchanges").write_bytes(content)
        same(run(directory), straight)


# --- blobs -----------------------------------------------------------------------------------------


def flip(path: Path, at: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(at * len(content))] ^= 0x40
    path.write_bytes(content)


def shorten(path: Path, at: float) -> None:
    path.write_bytes(path.read_bytes()[: int(at * path.stat().st_size)])


def remove(path: Path, at: float) -> None:
    path.unlink()


def replace_by_directory(path: Path, at: float) -> None:
    path.unlink()
    path.mkdir()


DAMAGE = [flip, shorten, remove]


@settings(max_examples=40)
@given(data=st.data())
def test_the_advice_for_damaged_blobs_works(
    data: st.DataObject, finished: Path, halfway: Path, straight: umbel.Result
) -> None:
    with copy_of(data.draw(st.sampled_from([finished, halfway]))) as directory:
        blobs = sorted((directory / "blobs").iterdir())
        for blob in data.draw(st.sets(st.sampled_from(blobs), min_size=1, max_size=3)):
            data.draw(st.sampled_from(DAMAGE))(blob, data.draw(st.floats(0, 1, exclude_max=True)))
        same(follow_advice(directory), straight)


def blob_of_last_commit(directory: Path) -> Path:
    """One that nothing else names, and of which there is no copy."""
    *_, before, last, _ = [line.value for line in read_lines(directory / "journal", precious=True)]
    model = umbel.Arrays.load(directory / "model.safetensors").digest()
    digest = next(d for d in last["blobs"] if d not in before["blobs"] and d != model)
    return directory / "blobs" / f"{digest}.safetensors"


@pytest.mark.parametrize("damage", [flip, shorten])
def test_a_damaged_blob_of_the_last_commit_is_named(
    damage: Callable[[Path, float], None], finished: Path, straight: umbel.Result
) -> None:
    with copy_of(finished) as directory:
        blob = blob_of_last_commit(directory)
        damage(blob, 0.9)
        with pytest.raises(CorruptFile, match=f"{blob.name} is damaged"):
            run(directory)
        same(follow_advice(directory), straight)


def test_without_a_blob_of_the_last_commit_the_run_goes_on_from_the_one_before(
    finished: Path, straight: umbel.Result, caplog: pytest.LogCaptureFixture
) -> None:
    with copy_of(finished) as directory:
        blob = blob_of_last_commit(directory)
        blob.unlink()
        same(run(directory), straight)
    assert f"{blob.name} is gone; the run goes on from the commit before it" in caplog.text


@pytest.mark.parametrize("damage", DAMAGE)
def test_the_best_model_is_mended_from_its_copy(
    damage: Callable[[Path, float], None], finished: Path, straight: umbel.Result
) -> None:
    with copy_of(finished) as directory:
        best = umbel.Arrays.load(directory / "best.safetensors").digest()
        damage(directory / "blobs" / f"{best}.safetensors", 0.9)
        same(run(directory), straight)


# --- the other files -------------------------------------------------------------------------------

FILES = ["run.json", "clients.sqlite", "initial.safetensors", "best.safetensors", "model.safetensors"]
EVERYTHING = [*FILES, "journal", "exchanges", "umbel.lock", "blobs"]


@settings(max_examples=60)
@given(data=st.data())
def test_a_damaged_file_is_named_or_mended(
    data: st.DataObject, finished: Path, halfway: Path, straight: umbel.Result
) -> None:
    with copy_of(data.draw(st.sampled_from([finished, halfway]))) as directory:
        name = data.draw(st.sampled_from([f for f in FILES if (directory / f).exists()]))
        data.draw(st.sampled_from(DAMAGE))(directory / name, data.draw(st.floats(0, 1, exclude_max=True)))
        try:
            found = follow_advice(directory)
        except StoreError as error:
            assert name in error.what
            assert error.advice
            return
        same(found, straight)


@pytest.mark.parametrize("name", [name for name in EVERYTHING if name != "blobs"])
def test_an_empty_file_is_named_or_mended(name: str, finished: Path, straight: umbel.Result) -> None:
    with copy_of(finished) as directory:
        (directory / name).write_bytes(b"")
        try:
            same(follow_advice(directory), straight)
        except StoreError as error:
            assert name in error.what


@pytest.mark.parametrize("name", EVERYTHING)
def test_something_else_in_the_place_of_a_file_is_named(name: str, finished: Path, straight: umbel.Result) -> None:
    with copy_of(finished) as directory:
        if name == "blobs":
            shutil.rmtree(directory / name)
            (directory / name).write_text("")
        else:
            (directory / name).unlink()
            (directory / name).mkdir()
        with pytest.raises(StoreError) as refused:
            run(directory)
        assert name in refused.value.what
        assert refused.value.advice


@pytest.mark.parametrize("name", ["best.safetensors", "model.safetensors"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_finished_run_lays_its_models_out_again(
    name: str, damage: Callable[[Path, float], None], finished: Path
) -> None:
    with copy_of(finished) as directory:
        before = (directory / name).read_bytes()
        damage(directory / name, 0.5)
        run(directory, rounds=5)
        assert (directory / name).read_bytes() == before


@pytest.mark.parametrize("damage", DAMAGE)
def test_the_initial_model_is_made_again(
    damage: Callable[[Path, float], None], finished: Path, straight: umbel.Result
) -> None:
    with copy_of(finished) as directory:
        before = (directory / "initial.safetensors").read_bytes()
        damage(directory / "initial.safetensors", 0.5)
        same(run(directory), straight)
        assert (directory / "initial.safetensors").read_bytes() == before


# --- the directory ---------------------------------------------------------------------------------


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="is a file"):
        run(tmp_path / "file")
    with pytest.raises(StoreError, match="Not a directory"):
        run(tmp_path / "file" / "below")


@pytest.mark.parametrize("name", ["model.safetensors", "journal", "blobs"])
def test_what_is_not_ours_is_not_overwritten(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(StoreError, match=f"is not the directory of a run, and has a '{name}'"):
        run(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_other_files_may_lie_beside(tmp_path: Path) -> None:
    for name in ("notes.txt", "data.tmp"):
        (tmp_path / name).write_text("mine")
    run(tmp_path, rounds=1)
    (tmp_path / "blobs" / "mine.safetensors").write_text("mine")
    run(tmp_path, rounds=3)
    for name in ("notes.txt", "data.tmp", "blobs/mine.safetensors"):
        assert (tmp_path / name).read_text() == "mine"


def test_a_copy_of_a_directory_goes_on_without_its_lock(finished: Path, straight: umbel.Result) -> None:
    with copy_of(finished) as directory:
        (directory / "umbel.lock").unlink()
        same(run(directory), straight)
