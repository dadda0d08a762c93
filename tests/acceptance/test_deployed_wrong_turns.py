"""Each wrong turn says what happened and what to do now, and ``umbel doctor`` finds it too."""

from __future__ import annotations

import json
import shutil
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import umbel
from tests.acceptance.deployed import AN_HOUR_AHEAD, Federation, Program, federation
from tests.unit.link.authority import make_authority
from umbel.apps.load import load_client, load_server
from umbel.errors import QuorumMissed
from umbel.link.address import Address
from umbel.server.certificates import Authority


@pytest.fixture(scope="module")
def fed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    made = federation(tmp_path_factory.mktemp("wrong"))
    try:
        made.node("berlin")
        yield made
    finally:
        made.close()


def join(fed: Federation, address: str, directory: Path) -> str:
    """What a node says that cannot join."""
    done = fed(
        *("node", address, "--name", "paris", "--app", str(fed.app), "--dir", str(directory)),
        status=1,
    )
    assert "Traceback" not in done.stderr
    assert "What to do: " in done.stderr
    return done.stderr


def diagnosis(fed: Federation, *arguments: str) -> str:
    """What the doctor says who finds something wrong."""
    done = fed("doctor", *arguments, status=1)
    assert "Traceback" not in done.stderr
    wrong = [line for line in done.stdout.splitlines() if line.startswith("bad")]
    assert wrong
    assert "What to do: " in done.stdout
    return done.stdout


def closed_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


def test_all_is_well(fed: Federation) -> None:
    assert "Nothing is wrong" in fed("doctor", "--app", str(fed.app)).stdout
    findings = fed.records("doctor", fed.token)
    assert {"address", "port", "certificate", "token", "clock"} <= {finding["check"] for finding in findings}
    odd = [finding["check"] for finding in findings if finding["status"] != "ok"]
    assert set(odd) <= {"node"}  # of other tests, and away


def test_an_address_that_is_cut_off(fed: Federation, tmp_path: Path) -> None:
    said = join(fed, fed.ticket[:-7], tmp_path / "node")
    assert "cut off" in said
    assert "copy the whole line" in said
    assert "cut off" in diagnosis(fed, fed.ticket[:-7])
    assert "cut off" in fed("login", fed.token[:60], status=1).stderr


def test_a_wrong_ticket(fed: Federation, tmp_path: Path) -> None:
    wrong = str(replace(Address.parse(fed.ticket), secret=bytes(16)))
    assert "ticket" in join(fed, wrong, tmp_path / "node")
    assert "ticket" in diagnosis(fed, wrong)


def test_a_ticket_that_has_expired(fed: Federation, tmp_path: Path) -> None:
    expired = fed.records("ticket", "create", "--expires", "0.01s")[0]
    assert expired["expires"] <= time.time()
    assert "expired" in join(fed, expired["address"], tmp_path / "node")


def test_a_ticket_that_is_used_up(fed: Federation, tmp_path: Path) -> None:
    once = fed.records("ticket", "create", "--uses", "1")[0]
    with fed.program(
        *("node", once["address"], "--name", "oslo", "--app", str(fed.app), "--dir", str(tmp_path / "one"))
    ) as program:
        program.wait_for("connected: ")
    assert "used" in join(fed, once["address"], tmp_path / "two")


def test_a_token_that_is_not_good(fed: Federation, tmp_path: Path) -> None:
    expired = fed.records("token", "create", "eve", "--expires", "0.01s")[0]["address"]
    assert "token 'eve' has expired" in fed("login", expired, status=1).stderr
    assert "bad      token: token 'eve' has expired" in diagnosis(fed, expired)
    revoked = fed.records("token", "create", "bob")[0]["address"]
    fed("token", "revoke", "bob")
    assert "bad      token: token 'bob' was revoked" in diagnosis(fed, revoked)


def test_a_ticket_and_a_token_are_taken_for_each_other(fed: Federation, tmp_path: Path) -> None:
    assert "umbel login" in join(fed, fed.token, tmp_path / "node")
    said = fed("login", fed.ticket, status=1).stderr
    assert "umbel node" in said
    assert "Traceback" not in said


def test_the_wrong_authority(fed: Federation, tmp_path: Path) -> None:
    other = Authority.open(tmp_path / "other", ["localhost"], time.time())
    wrong = str(replace(Address.parse(fed.ticket), authority=other.authority_der))
    said = join(fed, wrong, tmp_path / "node")
    assert "authority" in said
    assert "address that the server printed" in said
    assert said.startswith("umbel: "), "gRPC says nothing of its own"
    assert "another authority" in diagnosis(fed, wrong)


def test_the_authority_of_a_company_is_named_once(fed: Federation, tmp_path: Path) -> None:
    company = make_authority()
    for name, content in (("cert", company.certificate), ("key", company.key), ("ca", company.pem)):
        (tmp_path / f"{name}.pem").write_bytes(content)
    brought = ("--cert", str(tmp_path / "cert.pem"), "--key", str(tmp_path / "key.pem"))
    node = ("node", "--name", "bern", "--app", str(fed.app), "--dir", str(tmp_path / "node"))
    with fed.program(
        "server", "--dir", str(tmp_path / "fed"), "--port", "0", "--pages", "", "--json", *brought
    ) as server:
        ready = json.loads(server.wait_for(r'\{"event": "ready".*')[0])
        said = fed(*node, ready["ticket"], status=1).stderr
        assert "name its certificate with --ca" in said
        with fed.program(*node, ready["ticket"], "--ca", str(tmp_path / "ca.pem")) as program:
            program.wait_for("connected: ")
        with fed.program(*node) as program:
            program.wait_for("connected: ")
        assert "lets node bern in" in fed("doctor", "--dir", str(tmp_path / "node")).stdout


def test_another_name_than_that_of_the_certificate(fed: Federation, tmp_path: Path) -> None:
    wrong = str(replace(Address.parse(fed.ticket), host="127.0.0.2"))
    if _answers("127.0.0.2", fed.port):
        assert "another name" in join(fed, wrong, tmp_path / "node")
        assert "not for 127.0.0.2" in diagnosis(fed, wrong)


def _answers(host: str, port: int) -> bool:
    """The server listens on 127.0.0.1 alone; where that is all of 127, the certificate is not for it."""
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


def test_a_port_where_nobody_listens(fed: Federation, tmp_path: Path) -> None:
    wrong = str(replace(Address.parse(fed.ticket), port=closed_port()))
    said = join(fed, wrong, tmp_path / "node")
    assert "nobody listens" in said
    assert "umbel server" in said
    assert "nobody listens" in diagnosis(fed, wrong)


def test_a_name_that_nobody_knows(fed: Federation, tmp_path: Path) -> None:
    wrong = str(replace(Address.parse(fed.ticket), host="there.is.no.such.host.invalid"))
    assert "not known" in join(fed, wrong, tmp_path / "node")
    assert "not known here" in diagnosis(fed, wrong)


def test_what_speaks_no_tls(fed: Federation, tmp_path: Path) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        listening.settimeout(30)
        wrong = str(replace(Address.parse(fed.ticket), host="127.0.0.1", port=listening.getsockname()[1]))
        program = Program(fed.home, "doctor", wrong)
        connection, _ = listening.accept()
        with connection:
            connection.recv(1)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        assert program.ended() == 1
        assert "does not speak TLS" in program.text


def test_a_clock_that_is_off_by_an_hour(fed: Federation, tmp_path: Path) -> None:
    node = fed.node_command("rome", "--dir", str(tmp_path / "rome"))
    with fed.program(*node, program=AN_HOUR_AHEAD) as program:
        said = program.wait_for("clock-off: .*")[0]
        assert "1 hour ahead of that of the server" in said
        assert "NTP" in said
        assert "the clock of node rome is 1 hour ahead of that of the server" in diagnosis(fed)
    said = fed("doctor", program=AN_HOUR_AHEAD, status=1).stdout
    assert "1 hour ahead of that of the server" in said


def test_the_app_is_not_at_the_node(fed: Federation, tmp_path: Path) -> None:
    fed("new", str(tmp_path / "elsewhere"))
    with fed.program("run", str(tmp_path / "elsewhere"), "--on", "localhost") as program:
        waits = program.wait_for("run-waits: .*")[0]
    assert "berlin does not have the app 'elsewhere'" in waits
    said = diagnosis(fed, "--app", str(tmp_path / "elsewhere"))
    assert "node berlin does not have elsewhere" in said
    assert "--app" in said
    fed("stop", "elsewhere")


def test_another_version_of_the_app(fed: Federation, tmp_path: Path) -> None:
    changed = tmp_path / fed.package
    shutil.copytree(fed.app, changed)
    module = changed / fed.package / "app.py"
    module.write_text(module.read_text(encoding="utf-8") + "\n# another version\n", encoding="utf-8")
    with fed.program("run", str(changed), "--on", "localhost", "--name", "changed") as program:
        waits = program.wait_for("run-waits: .*")[0]
    mine, its = (fed.records("config", str(app))[0]["digest"] for app in (changed, fed.app))
    assert mine[:12] in waits
    assert its[:12] in waits
    said = diagnosis(fed, "--app", str(changed))
    assert mine in said
    assert its in said
    fed("stop", "changed")


def test_a_policy_that_refuses(fed: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(fed.home))
    config = tmp_path / "node.toml"
    config.write_text('[policy]\nsubmitters = ["alice"]\n', encoding="utf-8")
    node = fed.node("strict", "--config", str(config), "--dir", str(tmp_path / "node"))
    done = fed("run", str(fed.app), "--on", "localhost", "--nodes", "strict", "--name", "refused", status=1)
    assert "takes no runs of 'operator'" in done.stderr
    assert "submitters" in done.stderr
    assert done.stderr.count("client-failed") == 1
    assert node.text.count("task-refused: train in round 1 of 'refused' by operator") == 1
    assert node.text.count("task-refused") == 1
    module = f"{fed.package}.app"
    server, client = load_server(f"{module}:server", path=fed.app), load_client(f"{module}:client", path=fed.app)
    with pytest.raises(QuorumMissed, match="takes no runs of 'operator'") as missed:
        umbel.run(server, client, on=umbel.connect(fed.token, nodes=["strict"]))
    assert "asked" not in missed.value.what
    (failure,) = missed.value.failures
    assert (failure.client, failure.round, failure.kind) == ("strict", 1, "train")
    assert failure.message.startswith("node strict takes no runs of 'operator'")
    (told,) = (line for line in fed.records("logs", "refused") if line["event"] == "failure")
    assert (told["client"], told["round"], told["kind"]) == ("strict", 1, "train")
    judged = fed("policy", "refused", "--config", str(config), "--app", str(fed.app), status=1)
    assert "takes no runs of 'operator'" in judged.stdout
    said = diagnosis(fed, "--config", str(config), "--app", str(fed.app), "--run", "refused")
    assert "takes no runs of 'operator'" in said
    lines = [line["event"] for line in fed.records("node", "log", "--dir", str(tmp_path / "node"))]
    assert lines.count("refused") == 2, "each run is refused once"


def test_labels_of_a_node_that_has_joined(fed: Federation, tmp_path: Path) -> None:
    command = fed.node_command("graz", "--dir", str(tmp_path / "node"), "--label", "country=at")
    for labels in ([], ["--label", "kind=hospital"]):
        with fed.program(*command, *labels) as program:
            program.wait_for("connected: ")
        assert ("labels-not-sent" in program.text) == bool(labels)
    assert "umbel nodes label graz country=at kind=hospital" in program.text


def test_a_node_that_was_renamed(fed: Federation, tmp_path: Path) -> None:
    directory = ("--dir", str(tmp_path / "node"))
    with fed.program(*fed.node_command("linz", *directory)) as program:
        program.wait_for("connected: ")
    assert "the new name is 'a b'" in fed("nodes", "rename", "linz", "a b", status=1).stderr
    assert "umbel node --name steyr --dir" in fed("nodes", "rename", "linz", "steyr").stdout
    said = fed(*fed.node_command("linz", *directory), status=1).stderr
    assert "no node 'linz' is enrolled" in said
    assert "--name that it has there now, and the --dir that it has" in said
    with fed.program("node", "--name", "steyr", "--app", str(fed.app), *directory) as program:
        program.wait_for("connected: ")


def test_a_key_that_others_may_read(fed: Federation, tmp_path: Path) -> None:
    directory = tmp_path / "node"
    with fed.program(*fed.node_command("wien", "--dir", str(directory))) as program:
        program.wait_for("connected: ")
    (directory / "node.key").chmod(0o644)
    said = fed("node", "--name", "wien", "--app", str(fed.app), "--dir", str(directory), status=1).stderr
    assert "chmod 600" in said
    assert "chmod 600" in diagnosis(fed, "--dir", str(directory))


def test_a_second_server(fed: Federation, tmp_path: Path) -> None:
    same = fed("server", "--dir", str(fed.root / "server"), "--port", "0", "--pages", "", status=1)
    assert "is in use by another server" in same.stderr
    new = ("server", "--dir", str(tmp_path / "new"), "--host", "127.0.0.1")
    port = fed(*new, "--port", str(fed.port), "--pages", "", status=1)
    pages = fed(*new, "--port", "0", "--pages", f"127.0.0.1:{fed.port}", status=1)
    assert "another program listens at 127.0.0.1" in port.stderr
    assert f"cannot be served on 127.0.0.1:{fed.port}: Address already in use" in pages.stderr
    for done in (same, port, pages):
        happened, advice = done.stderr.splitlines()
        assert happened.startswith("umbel: ")
        assert advice.startswith("What to do: ")


def test_a_database_that_the_environment_names(
    fed: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UMBEL_DATABASE", "postgresql://me:secret@127.0.0.1:1/name")
    start = ("server", "--dir", str(tmp_path / "new"), "--port", "0", "--pages", "")
    copy = ("server", "backup", str(tmp_path / "copy"), "--dir", str(fed.root / "server"))
    for said in (fed(*start, status=1).stderr, fed(*copy, status=1).stderr):
        assert "Connection refused" in said or "pg_dump" in said
        assert "secret" not in said


def test_a_second_node_in_the_directory(fed: Federation, tmp_path: Path) -> None:
    command = fed.node_command("zwei", "--dir", str(tmp_path / "node"))
    with fed.program(*command) as program:
        program.wait_for("connected: ")
        before = (tmp_path / "node" / "node.json").read_text()
        for arguments in (command, fed.node_command("drei", "--dir", str(tmp_path / "node"))):
            said = fed(*arguments, status=1).stderr
            assert f"umbel: {tmp_path / 'node'} is in use by another node\nWhat to do: stop that node" in said
        assert (tmp_path / "node" / "node.json").read_text() == before


def test_a_directory_of_another_federation_uses_no_ticket_up(fed: Federation, tmp_path: Path) -> None:
    for directory in ("other", "other/home"):
        (tmp_path / directory).mkdir()
    other = Federation(tmp_path / "other", tmp_path / "other" / "home")
    try:
        ticket = other.records("ticket", "create")[0]["address"]
        with fed.program(*fed.node_command("rom", "--dir", str(tmp_path / "rom"))) as program:
            program.wait_for("connected: ")
        command = ("node", ticket, "--name", "rom", "--app", str(fed.app), "--dir")
        assert "to a node of another federation" in fed(*command, str(tmp_path / "rom"), status=1).stderr
        with other.program(*command, str(tmp_path / "own")) as program:  # as it was told to
            program.wait_for("connected: ")
    finally:
        other.close()


def test_the_server_is_down(fed: Federation) -> None:
    directory = fed.root / "home" / ".local" / "state" / "umbel" / "nodes" / "berlin"
    assert "is running" in fed("doctor", "--name", "berlin").stdout
    fed.server.close()
    try:
        assert "nobody listens" in diagnosis(fed, "--dir", str(directory))
        done = fed("ls", status=1)
        assert "nobody listens" in done.stderr
        assert "What to do: " in done.stderr
        assert "not shown again" not in fed.server.text
    finally:
        fed.start()
