from __future__ import annotations

import base64
import tomllib
from pathlib import Path

import pytest

from umbel.errors import UsageError
from umbel.node.config import DEFAULT, NodeConfig, Policy, config_of, read_config, read_site

KEY = "ed25519:" + base64.b64encode(bytes(range(32))).decode()


def parsed(text: str) -> NodeConfig:
    return config_of(tomllib.loads(text))


def test_an_empty_file_is_the_default() -> None:
    config = parsed("")
    assert config == NodeConfig()
    assert list(config.data) == [DEFAULT]
    assert config.policy == Policy()


def test_all_that_can_be_said() -> None:
    config = parsed(
        f"""
        name = "berlin"
        slots = 2
        threads = 4
        devices = "cuda:0"
        run_as = "nobody"
        [labels]
        country = "de"
        beds = 300
        [data.heart]
        allow = ["alice"]
        allow_runs = ["heart-*"]
        path = "/data/heart.csv"
        password = "file:/run/secrets/db"
        nested = {{ user = "env:DB_USER", ports = [1, 2.5] }}
        [data.lung]
        [policy]
        apps = ["myfed"]
        signers = ["{KEY}"]
        submitters = ["alice", "bob"]
        kinds = ["evaluate"]
        code_from_server = false
        max_model_bytes = "1.5 GB"
        max_update_bytes = "512 MiB"
        output = false
        [limits]
        max_seconds = "2 h"
        max_memory = "4 GB"
        cache = 1000
        journal = "1 MB"
        states = "30 d"
        warm = 3
        idle = "5 min"
        """
    )
    assert (config.name, config.slots, config.threads, config.run_as) == ("berlin", 2, 4, "nobody")
    assert config.labels == {"country": "de", "beds": "300"}
    heart = config.data["heart"]
    assert heart.allow == ("alice",)
    assert heart.runs == ("heart-*",)
    assert heart.settings["password"] == "file:/run/secrets/db"
    assert heart.settings["nested"] == {"user": "env:DB_USER", "ports": [1, 2.5]}
    assert config.policy.signers == (bytes(range(32)),)
    assert config.policy.max_model_bytes == 1_500_000_000
    assert config.policy.max_update_bytes == 512 << 20
    assert not config.policy.output
    assert config.limits.max_seconds == 7200
    assert config.limits.states == 30 * 86400
    assert config.limits.idle == 300


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name = 'Berlin'", "node.toml name: 'Berlin' is not"),
        ("slots = 0", "node.toml slots: 0 is not"),
        ("slots = true", "node.toml slots: True is not"),
        ("slots = 257", "node.toml slots: 257 is not a whole number from 1 to 256"),
        (f"threads = {10**20}", "node.toml threads: 1"),
        ("".join(f"[data.d{i}]\n" for i in range(257)), "node.toml [data] has 257 data sets, and a node at most 256"),
        ("slot = 1", "node.toml has no key 'slot'"),
        ("data = 1", "node.toml [data] is a number"),
        ("[data.heart]\nallow = 'alice'", "node.toml [data.heart] allow: 'alice' is not"),
        ("[data.heart]\npath = 'env:'", "node.toml [data.heart] path: 'env:' refers to nothing"),
        ("[data.heart]\nsince = 2020-01-01", "node.toml [data.heart] since: 2020-01-01 is a date"),
        ("[data.'a b']\n", "node.toml [data.a b]: a data set cannot be called so"),
        ("[policy]\nkinds = ['trian']", "node.toml [policy] kinds"),
        ("[policy]\nsigners = ['abc']", "node.toml [policy] signers"),
        ("[policy]\ncode_from_server = true", "nothing says whose code may come"),
        ("[policy]\nmax_model_bytes = '4 XB'", "node.toml [policy] max_model_bytes: '4 XB' is not"),
        ("[limits]\nmax_memory = -1", "node.toml [limits] max_memory"),
        ("[limits]\nmax_seconds = '1 year'", "node.toml [limits] max_seconds"),
        ("[labels]\na = [1]", "node.toml [labels] a"),
    ],
)
def test_what_makes_no_sense_is_named(text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        parsed(text)
    assert words in caught.value.what


def test_nobody_may_be_said_too() -> None:
    config = parsed("[policy]\nsubmitters = []\napps = []")
    assert config.policy.submitters == ()
    assert config.policy.apps == ()


def test_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text('name = "a"')
    assert read_config(tmp_path / "node.toml").name == "a"
    (tmp_path / "site.toml").write_text('path = "x"\npassword = "env:P"')
    assert read_site(tmp_path / "site.toml").settings == {"path": "x", "password": "env:P"}
    (tmp_path / "node.toml").write_bytes(b'\xef\xbb\xbfname = "b"\r\n')  # as editors on Windows write it
    assert read_config(tmp_path / "node.toml").name == "b"
    (tmp_path / "node.toml").write_bytes('name = "a"  # Charité'.encode("latin-1"))
    with pytest.raises(UsageError, match="save it as UTF-8"):
        read_config(tmp_path / "node.toml")
    with pytest.raises(UsageError, match="cannot be read"):
        read_config(tmp_path / "none.toml")
    (tmp_path / "node.toml").write_text("name = ")
    with pytest.raises(UsageError, match="is no TOML"):
        read_config(tmp_path / "node.toml")
