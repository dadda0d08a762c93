from __future__ import annotations

import base64
import json
import os
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.apps.projects import APP, contents, write_wheel
from umbel.apps.describe import describe
from umbel.apps.project import Project
from umbel.apps.signature import make_key, read_key, show_key, sign, sign_digest, signers, verify
from umbel.errors import BadSignature, UsageError

NAME = "myfed"


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    return write_wheel(tmp_path, NAME, contents(NAME))


@pytest.fixture
def key(tmp_path: Path) -> Path:
    make_key(tmp_path / "key.pem")
    return tmp_path / "key.pem"


def test_a_key_is_for_its_owner_alone_and_never_overwritten(tmp_path: Path) -> None:
    public = make_key(tmp_path / "key.pem")
    if sys.platform != "win32":
        assert (tmp_path / "key.pem").stat().st_mode & 0o777 == 0o600
    assert len(public) == 32
    with pytest.raises(UsageError, match=r"key\.pem is there already"):
        make_key(tmp_path / "key.pem")
    assert sign_digest(bytes(32), tmp_path / "key.pem").key == public


@given(st.binary(min_size=32, max_size=32))
def test_a_key_is_read_as_it_is_shown(key: bytes) -> None:
    assert show_key(key) == "ed25519:" + base64.b64encode(key).decode()
    assert read_key(f" {show_key(key)}\n") == key


@pytest.mark.parametrize("text", ["", "ed25519:", "ed25519:AAAA", "ed25519:?", show_key(bytes(32))[8:]])
def test_what_is_no_key(text: str) -> None:
    with pytest.raises(UsageError, match="is no signer"):
        read_key(text)


def test_the_signed_bytes_are_those_that_are_documented(key: Path) -> None:
    made = sign_digest(b"d" * 32, key, name="Zoë")
    signed = b"umbel-app-signature-1\n" + b"d" * 32 + "Zoë".encode()
    Ed25519PublicKey.from_public_bytes(made.key).verify(made.signature, signed)


def test_a_wheel_is_signed_by_several(wheel: Path, key: Path, tmp_path: Path) -> None:
    other = make_key(tmp_path / "other.pem")
    digest = Project.find(wheel).digest
    assert signers(wheel, digest) == ()
    path = sign(wheel, key, name="builder")
    assert path == wheel.with_name(wheel.name + ".sig")
    sign(wheel, tmp_path / "other.pem", name="reviewer")
    sign(wheel, key, name="builder, again")
    assert {(each.key == other, each.name) for each in verify(wheel, digest)} == {
        (True, "reviewer"),
        (False, "builder, again"),
    }
    assert other in signers(wheel, digest)
    app = describe(Project.find(wheel))
    assert app.signers == signers(wheel, digest)
    assert describe(Project.find(wheel).unpacked(tmp_path / "apps"), handlers=()).signers == app.signers


def test_another_app_has_no_signature_of_this_one(wheel: Path, key: Path, tmp_path: Path) -> None:
    path = sign(wheel, key)
    other = write_wheel(tmp_path / "other", NAME, contents(NAME, app=APP + "\n"))
    path.rename(other.with_name(other.name + ".sig"))
    with pytest.raises(BadSignature, match="is about the app with digest") as caught:
        describe(Project.find(other))
    assert Project.find(other).digest.hex() in caught.value.what


def test_a_signature_that_was_changed_is_named(wheel: Path, key: Path) -> None:
    path = sign(wheel, key, name="builder")
    content = json.loads(path.read_text())
    content["signatures"][0]["name"] = "somebody else"
    path.write_text(json.dumps(content))
    with pytest.raises(BadSignature, match=r"the signature of ed25519:.* 'somebody else' is wrong"):
        signers(wheel, Project.find(wheel).digest)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "nonsense",
        '{"digest": "zz"}',
        '{"digest": "00", "signatures": [{}]}',
        '{"digest": 3}',
        "[" * 10**5,
    ],
)
def test_what_holds_no_signatures(wheel: Path, text: str) -> None:
    wheel.with_name(wheel.name + ".sig").write_text(text)
    with pytest.raises(BadSignature, match=r"\.sig holds no signatures that can be read"):
        signers(wheel, bytes(32))


def test_there_is_no_signature(wheel: Path) -> None:
    with pytest.raises(BadSignature, match=r"there is no signature .*\.whl\.sig"):
        verify(wheel, bytes(32))


@given(st.integers(0, 63), st.integers(0, 7))
def test_no_bit_of_a_signature_may_change(tmp_path_factory: pytest.TempPathFactory, byte: int, bit: int) -> None:
    directory = tmp_path_factory.mktemp("signed")
    make_key(directory / "key.pem")
    made = sign_digest(bytes(32), directory / "key.pem", name="n")
    changed = bytearray(made.signature)
    changed[byte] ^= 1 << bit
    row = {"key": show_key(made.key), "name": "n", "signature": base64.b64encode(changed).decode()}
    (directory / "a.whl.sig").write_text(json.dumps({"digest": bytes(32).hex(), "signatures": [row]}))
    with pytest.raises(BadSignature, match="is wrong"):
        verify(directory / "a.whl.sig", bytes(32))


def test_what_is_no_key_file(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text("nonsense")
    with pytest.raises(UsageError, match="holds no signing key"):
        sign_digest(bytes(32), tmp_path / "key.pem")
    with pytest.raises(UsageError, match="holds no signing key"):
        sign_digest(bytes(32), tmp_path / f"none-{os.getpid()}.pem")
