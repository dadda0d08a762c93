"""``umbel sign``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.apps.projects import contents, write_wheel
from umbel.apps.signature import read_key
from umbel.cli import main

NAME = "myfed"


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    return write_wheel(tmp_path, NAME, contents(NAME))


def say(capsys: pytest.CaptureFixture[str], *arguments: object, status: int = 0) -> str:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in ("sign", *arguments)])
    assert caught.value.code == status
    said = capsys.readouterr()
    return said.out if not status else said.out + said.err


def test_a_key_a_signature_and_a_look_at_both(wheel: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    public = say(capsys, "key", tmp_path / "key.pem").strip()
    assert len(read_key(public)) == 32
    assert "is there already" in say(capsys, "key", tmp_path / "key.pem", status=1)
    assert "Nobody has signed it" in say(capsys, "check", wheel, status=1)
    signed = json.loads(say(capsys, wheel, "--key", tmp_path / "key.pem", "--name", "Ada", "--json"))
    assert (signed["key"], signed["name"]) == (public, "Ada")
    found = json.loads(say(capsys, "check", wheel, "--json"))
    assert found["signatures"] == [{"key": public, "name": "Ada"}]
    assert (found["app"], found["version"], found["digest"]) == (NAME, "1.0", signed["digest"])
    said = say(capsys, "check", wheel)
    assert public in said
    assert "Ada" in said
    assert public in say(capsys, wheel, "--key", tmp_path / "key.pem")


def test_what_cannot_be_signed(wheel: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    say(capsys, "key", tmp_path / "key.pem")
    assert "is no wheel" in say(capsys, tmp_path, "--key", tmp_path / "key.pem", status=1)
    assert "holds no signing key" in say(capsys, wheel, "--key", wheel, status=1)
    more = write_wheel(tmp_path / "more", NAME, contents(NAME) | {"other.py": b""})
    assert "which no digest and no signature" in say(capsys, more, "--key", tmp_path / "key.pem", status=1)
    assert list((tmp_path / "more").iterdir()) == [more]
    wheel.with_name(wheel.name + ".sig").write_text("[]")
    assert "holds no signatures that can be read" in say(capsys, "check", wheel, status=1)
