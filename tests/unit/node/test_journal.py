from __future__ import annotations

from pathlib import Path

import pytest

from umbel import wire
from umbel.errors import CorruptFile
from umbel.node.journal import OwnersJournal, read_journal
from umbel.node.outbox import Finished, Key, Outbox


def opened(directory: Path, largest: int = 1 << 20) -> Outbox:
    directory.mkdir(exist_ok=True)
    return Outbox(directory / "outbox", journal=directory / "journal", largest=largest, now=lambda: 1.5)


def answer(exchange: int, *files: str) -> Finished:
    report = wire.ReportRequest(id=wire.TaskId(run="0" * 32, exchange=exchange, client="a", attempt=1))
    return Finished(
        key=Key("0" * 32, exchange, "a"),
        attempt=1,
        question=b"q",
        report=report.SerializeToString(),
        files=files,
    )


def test_lines_are_numbered_over_restarts_and_readable_meanwhile(tmp_path: Path) -> None:
    box = opened(tmp_path)
    box.note("asked", {"run": "r"})
    box.finish(answer(1), "sent", {"run": "r"})
    assert [line["event"] for line in read_journal(tmp_path / "journal")] == ["asked", "sent"]
    box.close()
    box = opened(tmp_path)
    box.note("asked", {"run": "s"})
    lines = list(read_journal(tmp_path / "journal"))
    assert [line["number"] for line in lines] == [1, 2, 3]
    assert [line["number"] for line in read_journal(tmp_path / "journal", since=2)] == [3]
    box.close()


def test_files_rotate_and_the_chain_goes_on(tmp_path: Path) -> None:
    box = opened(tmp_path, largest=300)
    for i in range(20):
        box.note("asked", {"i": i})
    box.close()
    files = sorted((tmp_path / "journal").iterdir())
    assert len(files) > 3
    assert [line["i"] for line in read_journal(tmp_path / "journal")] == list(range(20))
    files[1].write_bytes(b"\n".join(files[1].read_bytes().splitlines()[:-1]) + b"\n")
    with pytest.raises(CorruptFile, match="does not continue"):
        list(read_journal(tmp_path / "journal"))


def test_a_changed_line_is_noticed(tmp_path: Path) -> None:
    box = opened(tmp_path)
    for i in range(3):
        box.note("asked", {"i": i})
    box.close()
    file = tmp_path / "journal" / "journal-000001"
    file.write_bytes(file.read_bytes().replace(b'"i":1', b'"i":7'))
    shown: list[int] = []
    with pytest.raises(CorruptFile, match="line 2 is damaged"):
        shown.extend(line["i"] for line in read_journal(tmp_path / "journal"))
    assert shown == [0], "what stands before it can be read"
    with pytest.raises(CorruptFile):
        OwnersJournal(tmp_path / "journal", largest=1 << 20)


def test_the_advice_for_a_damaged_line_is_for_nodes(tmp_path: Path) -> None:
    box = opened(tmp_path)
    for i in range(3):
        box.note("asked", {"i": i})
    box.close()
    file = tmp_path / "journal" / "journal-000001"
    file.write_bytes(file.read_bytes().replace(b'"i":0', b'"i":7'))
    with pytest.raises(CorruptFile) as refused:
        opened(tmp_path)
    assert f"move {file} elsewhere" in refused.value.advice
    assert "dir=" not in refused.value.advice  # of runs
    file.rename(tmp_path / "elsewhere")
    box = opened(tmp_path)
    box.note("asked", {"i": 3})
    box.close()
    assert [line["i"] for line in read_journal(tmp_path / "journal")] == [3]


@pytest.mark.parametrize(
    ("column", "value"), [("files", "[0, x"), ("files", 7), ("files", b"\xff"), ("report", b"\xff" * 9)]
)
def test_what_sqlite_does_not_notice_is_told_of(column: str, value: object, tmp_path: Path) -> None:
    box = opened(tmp_path)
    box.finish(answer(1), "sent", {})
    text = "CAST(? AS TEXT)" if column == "files" else "?"
    box._db.execute(f"UPDATE answers SET {column} = {text}", (value,))
    for call in (box.waiting, lambda: box.find(Key("0" * 32, 1, "a"))):
        with pytest.raises(CorruptFile, match=r"answers\.sqlite is damaged") as refused:
            call()
        assert "remove it" in refused.value.advice
    if column == "files":
        with pytest.raises(CorruptFile, match=r"answers\.sqlite is damaged"):
            box.sweep()
    box.close()


def test_lines_that_the_power_took_come_back(tmp_path: Path) -> None:
    box = opened(tmp_path)
    for i in range(4):
        box.finish(answer(i + 1), "sent", {"i": i})
    file = tmp_path / "journal" / "journal-000001"
    lines = file.read_bytes().splitlines(keepends=True)
    box._db.close()  # the process is killed, and the file had not reached the disk
    file.write_bytes(lines[0] + b"\0" * len(lines[1]) + lines[2])
    box = opened(tmp_path)
    assert [line["i"] for line in read_journal(tmp_path / "journal")] == [0, 1, 2, 3]
    box.close()


def test_answers_wait_until_they_are_taken(tmp_path: Path) -> None:
    box = opened(tmp_path)
    file = box.path(Key("0" * 32, 1, "a"), "f" * 64)
    file.write_bytes(b"x")
    box.finish(answer(1, "f" * 64), "sent", {})
    box.finish(answer(2), "sent", {})
    box.close()
    box = opened(tmp_path)
    assert [a.key.exchange for a in box.waiting()] == [1, 2]
    box.sweep()
    assert file.exists()
    box.take(Key("0" * 32, 1, "a"))
    assert not file.exists()
    assert [a.key.exchange for a in box.waiting()] == [2]
    found = box.find(Key("0" * 32, 1, "a"))
    assert found is not None
    assert found.taken
    again = box.ask_again(found, 3)
    assert wire.ReportRequest.FromString(again.report).id.attempt == 3
    assert [a.key.exchange for a in box.waiting()] == [1, 2]
    box.drop(Key("0" * 32, 1, "a"))
    assert box.find(Key("0" * 32, 1, "a")) is None
    box.close()


def test_the_same_arrays_of_two_answers_are_two_files(tmp_path: Path) -> None:
    box = opened(tmp_path)
    for exchange in (1, 2):
        box.path(Key("0" * 32, exchange, "a"), "f" * 64).write_bytes(b"x")
        box.finish(answer(exchange, "f" * 64), "sent", {})
    box.take(Key("0" * 32, 1, "a"))
    assert box.path(Key("0" * 32, 2, "a"), "f" * 64).read_bytes() == b"x"
    box.close()
    assert len(list(box.files.iterdir())) == 1  # and nothing that is half removed
