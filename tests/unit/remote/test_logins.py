from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from umbel.errors import CorruptFile, UsageError
from umbel.link.address import Address
from umbel.remote.logins import Logins

HERE = Address("fed.example.org", 8443, bytes(range(16)), b"certificate")
THERE = Address("other.example.org", 9000, bytes(16))


def test_logins_come_back_from_a_file_that_nobody_else_reads(tmp_path: Path) -> None:
    file = tmp_path / "umbel" / "logins.json"
    assert Logins.read(file) == Logins()
    logins = Logins().with_("fed", HERE).with_("other", THERE)
    logins.write(file)
    assert Logins.read(file) == logins
    if os.name == "posix":
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        file.chmod(0o644)
        logins.write(file)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_login_is_found_by_its_name_its_address_or_as_the_default() -> None:
    logins = Logins().with_("fed", HERE).with_("other", THERE)
    assert logins.find() == THERE
    assert logins.find("fed") == HERE
    assert logins.find("umbel://fed.example.org") == HERE
    assert logins.find(str(HERE)) == HERE
    assert logins.without("other").find() == HERE
    six = logins.with_("::1", Address("::1", 9000, bytes(16)))
    assert six.find("::1") == six.find("[::1]") == six.find("umbel://[::1]:9000") == six.addresses["::1"]


@pytest.mark.parametrize("where", ["", "nowhere", "umbel://nowhere.example.org:1"])
def test_who_is_not_logged_in_learns_how(where: str) -> None:
    logins = Logins().with_("fed", HERE) if where else Logins()
    with pytest.raises(UsageError, match="umbel login ADDRESS"):
        logins.find(where)


@pytest.mark.parametrize("text", ["", "[]", '{"default": "x"}', '{"default": "x", "logins": {"x": "umbel://a/b"}}'])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "logins.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(CorruptFile, match="log in again"):
        Logins.read(file)
