"""The command line as a whole: what makes no sense has status 2, what goes wrong 1, each with what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import umbel
from umbel import wire
from umbel.apps.describe import describe
from umbel.apps.new import new_project
from umbel.apps.project import Project
from umbel.cli import main
from umbel.cli.audit import detail
from umbel.cli.doctor import doctor
from umbel.cli.node import keep_from_others, node_config
from umbel.cli.policy import judged
from umbel.cli.printing import clock
from umbel.cli.progress import round_line
from umbel.cli.run import labels_of
from umbel.cli.runs import event_line
from umbel.cli.waychecks import look_at_clock
from umbel.errors import UsageError
from umbel.link.address import Address
from umbel.node.journal import OwnersJournal


@pytest.fixture(autouse=True)
def nobody_is_logged_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("UMBEL_ON", raising=False)


def command(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.mark.parametrize(
    "words",
    [
        *(["walk"], ["ls", "--colour"], ["ls", "too", "many"], ["show"], ["server"]),
        *(["ticket", "create", "--uses", uses] for uses in ("many", "0", "-1", "99999999999")),
        *(["resume", "run", "--rounds", "-1"], ["audit", "--since", "-1"], ["audit", "--since", "9" * 30]),
        *(["server", "--dir", "fed", "--port", port] for port in ("https", "-1", "99999")),
        *(["server", "--dir", "fed", "--keep-days", "-1"], ["server", "--dir", "fed", "--runs", "0"]),
    ],
)
def test_a_command_that_makes_no_sense(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert command(*words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("umbel: ")
    assert "What to do: umbel" in said.err
    assert "--help" in said.err


@pytest.mark.parametrize("words", [["server"], ["server", "backup", "copy"]])
def test_a_server_needs_its_libraries(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    assert command(*words, "--dir", str(tmp_path / "fed")) == 1
    assert capsys.readouterr().err == (
        "umbel: a server needs sqlalchemy, which this Python does not have\nWhat to do: pip install 'umbel[server]'\n"
    )
    assert not (tmp_path / "fed").exists()


def test_what_cannot_be_a_path_is_no_run_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("show", "x" * 5000) == 1
    assert "nobody is logged in" in capsys.readouterr().err


def test_an_evaluation_that_nobody_does_has_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new_project(tmp_path / "evaluated")
    umbel.Arrays({"other": np.zeros(2)}).save(tmp_path / "model.safetensors")
    assert command("evaluate", str(tmp_path / "model.safetensors"), str(tmp_path / "evaluated"), "--json") == 1
    assert len(json.loads(capsys.readouterr().out)["failures"]) == 3


def test_what_goes_wrong_is_said_in_two_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("ls") == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first == "umbel: nobody says which server, and nobody is logged in anywhere"
    assert second.startswith("What to do: umbel login ADDRESS")


def test_help_of_a_group_and_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("ticket", "--help") == 0
    assert "create" in capsys.readouterr().out
    assert command("--version") == 0
    assert capsys.readouterr().out.strip() == umbel.__version__


def test_a_project_is_made_configured_and_simulated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    app = tmp_path / "clitested"
    assert command("new", str(app), "--json") == 0
    assert json.loads(capsys.readouterr().out)["path"] == str(app)
    monkeypatch.setenv("UMBEL_ROUNDS", "2")
    monkeypatch.setenv("UMBEL_CLIENT", "other:client")  # the app alone says what it is
    assert command("config", str(app), "--json") == 0
    shown = capsys.readouterr()
    assert "UMBEL_CLIENT in the environment does nothing" in shown.err
    records = [json.loads(line) for line in shown.out.splitlines()]
    points = f"the entry points of {app / 'pyproject.toml'}"
    assert {"setting": "client", "value": "clitested.app:client", "source": points} in records
    assert {"setting": "rounds", "value": 2, "source": "UMBEL_ROUNDS in the environment"} in records
    assert len(records[0]["digest"]) == 64
    assert command("run", str(app), "--simulation-engine", "inline", "--json", "--dir", str(tmp_path / "run")) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["event"] for event in events] == ["round", "round", "result"]
    model = str(tmp_path / "run" / "model.safetensors")
    assert command("evaluate", model, str(app), "--json") == 0
    assert set(json.loads(capsys.readouterr().out)) == {"metrics", "clients", "failures"}


def test_who_is_simulated_must_be_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new_project(tmp_path / "nobody")
    file = tmp_path / "nobody" / "pyproject.toml"
    lines = file.read_text(encoding="utf-8").splitlines()
    file.write_text("\n".join(line for line in lines if not line.startswith("clients")), encoding="utf-8")
    assert command("run", str(tmp_path / "nobody")) == 1
    assert "--simulation-clients" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "APP", "--nodes", "berlin"], "--nodes chooses among a server's nodes"),
        (["run", "APP", "--label", "country=de"], "--labels chooses among a server's nodes"),
        (["evaluate", "MODEL", "APP", "--dataset", "heart"], "--dataset chooses among a server's nodes"),
        (["evaluate", "MODEL", "APP", "--ship"], "there is nobody to send the app to"),
        (["run", "APP", "--on", "there", "--simulation-clients", "3"], "--simulation-clients is about a simulation"),
    ],
)
def test_a_flag_that_would_do_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    new_project(tmp_path / "idle")
    known = {"APP": str(tmp_path / "idle"), "MODEL": str(tmp_path / "model.safetensors")}
    assert command(*(known.get(word, word) for word in words)) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert said in first
    assert second.startswith("What to do: leave ")


def test_a_setting_may_wait_for_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new_project(tmp_path / "waiting")
    monkeypatch.setenv("UMBEL_NODES", "berlin")
    assert command("run", str(tmp_path / "waiting"), "--rounds", "1", "--simulation-engine", "inline") == 0


def test_a_node_works_on_one_task_at_least(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("node", "--name", "berlin", "--app", "x", "--slots", "0") == 1
    assert "--slots is 0" in capsys.readouterr().err


@pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="needs root: becomes another user")
def test_a_check_runs_the_app_as_whom_the_owner_names(capsys: pytest.CaptureFixture[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="umbel-run-as-") as place:  # for pytest's own are for root alone
        Path(place).chmod(0o755)
        new_project(Path(place) / "checked")
        (Path(place) / "node.toml").write_text('name = "berlin"\nrun_as = "nobody"\n')
        given = ("--app", str(Path(place) / "checked"), "--config", str(Path(place) / "node.toml"))
        assert command("node", "check", *given) == 0, capsys.readouterr().out


def test_what_a_config_permits_is_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "node.toml").write_text('[data.heart]\nallow = ["alice"]\n[limits]\nmax_seconds = "2 h"\n')
    assert command("policy", "--config", str(tmp_path / "node.toml"), "--json") == 0
    permitted = json.loads(capsys.readouterr().out)
    assert permitted["data heart"] == "for alice, in runs called anything"
    said = {name.removeprefix("limit "): value for name, value in permitted.items() if name.startswith("limit ")}
    assert said == {
        "max_seconds": "2 hours",
        "max_memory": "none",
        "cache": "10.7 GB",
        "journal": "67.1 MB",
        "states": "90 days",
        "warm": "2 processes",
        "idle": "10 minutes",
    }


def test_a_run_is_judged_for_its_data_set(tmp_path: Path) -> None:
    new_project(tmp_path / "judged")
    (tmp_path / "node.toml").write_text('[data.heart]\nallow = ["alice"]\n[data.lung]\n')
    app = describe(Project.find(tmp_path / "judged"))
    run = wire.Run(owner="bob", app=wire.App(name=app.name, version=app.version, digest=app.digest))
    settings = node_config(tmp_path / "node.toml", name="berlin")
    for dataset, words in {
        "heart": "does not let 'bob' use data set 'heart'",
        "lung": "",
        "liver": "has no data set 'liver'",
        "": "has several data sets, and the run names none",
    }.items():
        run.dataset = dataset
        found = judged(run, settings, [str(tmp_path / "judged")])
        assert [kind for kind, _ in found] == (["train", "evaluate"] if words else [])
        assert all(words in refusal.message for _, refusal in found)


@pytest.mark.skipif(os.name != "posix", reason="there is no umask")
@pytest.mark.parametrize(
    ("umask", "run_as", "kept"),
    [(0o000, "", 0o022), (0o077, "", 0o077), (0o000, "nobody", 0o022), (0o077, "nobody", 0o022)],
)
def test_nobody_else_writes_a_nodes_files_and_the_apps_user_reads_them(umask: int, run_as: str, kept: int) -> None:
    before = os.umask(umask)
    try:
        keep_from_others(run_as)
    finally:
        found = os.umask(before)
    assert found == kept


def test_labels_are_pairs() -> None:
    assert labels_of(["country=de", "size=a=b"]) == {"country": "de", "size": "a=b"}
    with pytest.raises(UsageError, match="country=de"):
        labels_of(["country"])


@pytest.mark.parametrize(
    ("kind", "content", "said"),
    [
        ("status", {"status": "waiting", "reason": "for berlin"}, "waiting: for berlin"),
        (
            "round",
            {"round": 1, "cohort": 2, "folded": 2, "failed": 0, "loss": 0.5},
            "round 1  2 of 2 clients  loss 0.5000",
        ),
        ("exchange", {"round": 1, "cohort": 2}, "round 1 asks 2 clients"),
        ("failure", {"client": "a", "message": "it raised", "again": True}, "a failed, and is asked again: it raised"),
        (
            "failure",
            {"client": "a", "round": 2, "message": "it raised", "traceback": "Traceback:\n  File x\n"},
            "a failed in round 2: it raised\n    Traceback:\n      File x",
        ),
        ("output", {"client": "server", "text": "hello"}, "server: hello"),
        ("output", {"client": "a", "round": 2, "text": "one\ntwo\n"}, "a printed in round 2:\n    one\n    two"),
        ("answers", {"done": 1, "cohort": 2}, ""),
    ],
)
def test_events_are_lines(kind: str, content: dict[str, Any], said: str) -> None:
    assert event_line(kind, content) == said


def test_rounds_that_are_known_are_counted() -> None:
    assert round_line({"round": 1, "cohort": 2, "folded": 1}, 9) == "round 1/9  1 of 2 clients"


@pytest.mark.parametrize(("off", "status"), [(0.0, "ok"), (250.0, "ok"), (-3600.0, "bad"), (400.0, "bad")])
def test_a_clock_may_be_off_by_five_minutes(off: float, status: str) -> None:
    assert look_at_clock(1e9, 1e9 + off, 1e9 + off).status == status


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("{0}/app.py", ("client =", 'raise OSError("no luck")\nclient ='), "raised OSError: no luck"),
        ("{0}/app.py", ("import numpy", "import no_such_thing\nimport numpy"), "no module 'no_such_thing'"),
        ("pyproject.toml", (":client", ":cilent"), "has no 'cilent'"),
        ("pyproject.toml", ("seed = 1", 'seed = "one"'), "seed is 'one'"),
        ("pyproject.toml", ("seed = 1", "sede = 1"), "a key 'sede'"),
    ],
)
def test_the_doctor_looks_into_the_app(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str, change: tuple[str, str], said: str
) -> None:
    name = f"looked{uuid.uuid4().hex[:8]}"
    new_project(tmp_path / name)
    assert doctor(app=[str(tmp_path / name)]) == 0
    for module in [module for module in sys.modules if module.partition(".")[0] == name]:
        del sys.modules[module]
    broken = tmp_path / name / file.format(name)
    text = broken.read_text(encoding="utf-8")
    broken.write_text(text.replace(*change), encoding="utf-8")
    assert broken.read_text(encoding="utf-8") != text
    capsys.readouterr()
    assert doctor(app=[str(tmp_path / name)]) == 1
    shown = capsys.readouterr().out
    assert said in shown
    assert "What to do: " in shown


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('nmae = "berlin"', "no key 'nmae'"),
        ('[data.heart]\npassword = "env:NO_SUCH_VARIABLE"', "data set 'heart': setting 'password' refers to"),
        ('[data.heart]\npassword = "file:/no/such/file"', "cannot be read: No such file"),
        ('run_as = "no-such-user"', "no user 'no-such-user'"),
    ],
)
def test_the_doctor_looks_into_a_config(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    (tmp_path / "node.toml").write_text(text, encoding="utf-8")
    assert doctor(config=tmp_path / "node.toml", json=True) == 1
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    wrong = [record for record in found if record["status"] == "bad"]
    assert [record["check"] for record in wrong] == ["node.toml"]
    assert said in wrong[0]["what"]
    assert wrong[0]["advice"]


@pytest.mark.parametrize("listed", ["{name}", "{digest}", "{digest:.12}", "another"])
def test_the_doctor_says_which_app_a_policy_lets_nobody_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], listed: str
) -> None:
    """As where it names the beginning of a digest, which is what lines of a log show."""
    name = f"permitted{uuid.uuid4().hex[:8]}"
    new_project(tmp_path / name)
    digest = describe(Project.find(tmp_path / name), handlers=()).digest.hex()
    apps = listed.format(name=name, digest=digest)
    (tmp_path / "node.toml").write_text(f'[policy]\napps = ["{apps}"]\n', encoding="utf-8")
    wrong = apps not in (name, digest)
    assert doctor(config=tmp_path / "node.toml", app=[str(tmp_path / name)]) == wrong
    said = capsys.readouterr().out
    assert (f"bad      policy: it does not let the app '{name}' run" in said) == wrong
    assert (f"by its whole digest, {digest}" in said) == wrong


def test_the_doctor_looks_at_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "node").mkdir()
    (tmp_path / "node" / "node.key").write_text("secret")
    (tmp_path / "node" / "node.key").chmod(0o644)
    assert doctor(dir=tmp_path / "node", app=[str(tmp_path / "no-app")], json=True) == 1
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    wrong = {record["check"]: record["advice"] for record in found if record["status"] == "bad"}
    assert wrong["key file"].startswith("chmod 600")
    assert wrong["app"]


def test_the_doctor_reads_a_nodes_journal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal = OwnersJournal(tmp_path / "journal", largest=1 << 20)
    journal.append([{"number": number, "event": "asked"} for number in (1, 2, 3)])
    journal.close()
    assert doctor(dir=tmp_path) == 0
    assert "its lines, the last of which is number 3, are as they were written" in capsys.readouterr().out
    (file,) = (tmp_path / "journal").iterdir()
    file.write_bytes(file.read_bytes().replace(b'"number":2', b'"number":7'))
    assert doctor(dir=tmp_path) == 1
    assert "line 2 is damaged" in capsys.readouterr().out


def test_the_doctor_says_that_it_looked_at_no_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor() == 0
    assert "warning  address: nobody is logged in here" in capsys.readouterr().out
    assert doctor(dir=tmp_path) == 0
    assert "nobody is logged in" not in capsys.readouterr().out


def test_the_doctor_sees_that_a_directory_cannot_be_written_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: not (Path(path) == tmp_path and mode & os.W_OK))
    assert doctor(dir=tmp_path) == 1
    assert f"bad      directory: {tmp_path} cannot be written to by this user" in capsys.readouterr().out


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_node_whose_directory_cannot_be(tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str) -> None:
    new_project(tmp_path / "placed")
    (tmp_path / "file").touch()
    words = ("node", "umbel://localhost:1", "--name", "lyon", "--app", str(tmp_path / "placed"))
    assert command(*words, "--dir", str(tmp_path / place)) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"umbel: {tmp_path / place}: ")
    assert second == "What to do: check the path and its permissions"


def test_a_directory_that_is_no_nodes_has_no_journal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("node", "log", "--dir", str(tmp_path)) == 1
    assert f"there is no node in {tmp_path}" in capsys.readouterr().err


def test_a_node_whose_directory_is_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new_project(tmp_path / "moved")
    assert command("node", "--name", "lyon", "--app", str(tmp_path / "moved")) == 1
    said = capsys.readouterr().err
    assert "has not joined" in said
    assert f"are not in {tmp_path / '.local/state/umbel/nodes/lyon'}, its --dir" in said


def test_an_authority_that_is_no_certificate_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new_project(tmp_path / "trusting")
    (tmp_path / "ca.pem").write_text("no certificate", encoding="utf-8")
    address = str(Address("localhost", 1, secret=bytes(16)))
    words = ("node", address, "--name", "lyon", "--app", str(tmp_path / "trusting"), "--ca", str(tmp_path / "ca.pem"))
    assert command(*words) == 1
    assert capsys.readouterr().err.startswith(
        f"umbel: {tmp_path / 'ca.pem'} holds no certificate\nWhat to do: give --ca"
    )


def test_what_is_called_like_a_directory_may_be_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    new_project(tmp_path / "myfed")
    assert command("show", "myfed") == 1
    assert "myfed is not the directory of a run" in capsys.readouterr().err
    at_a_server = ("--on", str(Address("localhost", 1, secret=bytes(16))))
    assert command("show", "myfed", *at_a_server) == 1
    assert "nobody listens" in capsys.readouterr().err
    assert command("show", ".", *at_a_server) == 1
    assert ". is not the directory of a run" in capsys.readouterr().err


def test_a_directory_that_does_not_say_of_which_run_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "remote.json").write_text("{", encoding="utf-8")
    assert command("show", str(tmp_path)) == 1
    assert "remote.json cannot be read" in capsys.readouterr().err


def test_a_list_that_is_cut_short_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("walk") == 2
    first, _ = capsys.readouterr().err.splitlines()
    assert not first.endswith(",")  # but with ", ...", where the version of cyclopts gives a list


def test_what_is_printed_can_be_copied(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("new", str(tmp_path / "two words" / "copied")) == 0
    assert f"To simulate it: umbel run '{tmp_path}/two words/copied'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("expires", 0.0, "expires=never"),
        ("expires", 1e9, f"expires={clock(1e9)}"),
        ("labels", {"country": "de", "size": "large"}, "labels=country=de,size=large"),
        ("labels", {}, "labels=none"),
        ("rename", "paris", "rename=paris"),
    ],
)
def test_details_of_the_audit_trail_are_for_people(name: str, value: Any, said: str) -> None:
    assert detail(name, value) == said


def test_a_node_reads_its_address_where_nobody_sees_it(tmp_path: Path) -> None:
    config = tmp_path / "node.toml"
    config.write_text(f'[policy]\ncode_from_server = true\napps = ["{"ab" * 32}"]\n', encoding="utf-8")
    command = [sys.executable, "-c", "from umbel.cli import main; main()", "node", "--name", "lyon"]
    done = subprocess.run(
        [*command, "--dir", str(tmp_path / "lyon"), "--config", str(config)],
        env={**os.environ, "UMBEL_TICKET": "umbel://localhost:1/short"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "cut off" in done.stderr
