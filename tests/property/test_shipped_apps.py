"""Nothing that is unsigned, wrongly signed or of another digest ever lies where a node would run it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.apps.projects import APP, contents, write_wheel
from umbel import wire
from umbel.apps.digest import digest_of_directory
from umbel.apps.project import Project
from umbel.errors import AppError, FormatError
from umbel.node.config import Dataset, Policy
from umbel.node.policy import comes_along, judge
from umbel.node.shipped import ShippedApps

NAME = "myfed"
KEYS = [Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in range(3)]
PUBLIC = [key.public_key().public_bytes_raw() for key in KEYS]
INFO, DATA = f"{NAME}_dist-1.0.dist-info", f"{NAME}_dist-1.0.data"
HONEST = contents(NAME)
COVERED = {f"{NAME}/__init__.py", f"{NAME}/data.txt"}
HARMLESS = {  # not covered by the digest, and never unpacked
    "honest": HONEST,
    "compiled": HONEST | {f"{NAME}/__pycache__/__init__.cpython-311.pyc": b"evil", f"{NAME}/__init__.pyc": b"evil"},
    "hidden": HONEST | {f"{NAME}/.evil/x.py": b"evil"},
    "scripts": HONEST | {f"{DATA}/scripts/evil": b"evil", f"{INFO}/evil.py": b"evil"},
}
HARMFUL = {
    "changed": contents(NAME, app=APP + "\nevil = 1\n"),
    "more": HONEST | {f"{NAME}/evil.py": b"evil"},
    "less": {name: content for name, content in HONEST.items() if not name.endswith("data.txt")},
    "renamed": {name.replace("data.txt", "date.txt"): content for name, content in HONEST.items()},
    "beside": HONEST | {"numpy.py": b"evil"},
    "beside, as a package": HONEST | {"sitecustomize/__init__.py": b"evil"},
    "beside, as data": HONEST | {f"{DATA}/purelib/evil.py": b"evil"},
    "a path file": HONEST | {"evil.pth": b"import evil"},
    "a module, too": HONEST | {f"{NAME}.py": b"evil"},
    "another": contents("other"),
}
ALL = HARMLESS | HARMFUL


def built(files: dict[str, bytes]) -> bytes:
    with tempfile.TemporaryDirectory() as place:
        return write_wheel(Path(place), NAME, files).read_bytes()


WHEELS = {name: built(files) for name, files in ALL.items()}
with tempfile.TemporaryDirectory() as place:
    (Path(place) / "a.whl").write_bytes(WHEELS["honest"])
    DIGEST = Project.find(Path(place) / "a.whl").digest


@st.composite
def signatures(draw: st.DrawFn) -> tuple[wire.Signature, bool]:
    """A signature, and whether it is right."""
    who, name = draw(st.integers(0, 2)), draw(st.text(max_size=5))
    of = draw(st.sampled_from([DIGEST] * 6 + [bytes(32)]))
    prefix = draw(st.sampled_from([b"umbel-app-signature-1\n"] * 6 + [b"umbel.v1 session\n"]))
    made = wire.Signature(key=PUBLIC[who], name=name, signature=KEYS[who].sign(prefix + of + name.encode()))
    right = of == DIGEST and prefix.startswith(b"umbel-app")
    match draw(st.sampled_from(["as it is"] * 9 + ["flip", "key", "name"])):
        case "flip":
            bit = draw(st.integers(0, 511))
            changed = bytearray(made.signature)
            changed[bit // 8] ^= 1 << bit % 8
            made.signature, right = bytes(changed), False
        case "key":
            made.key, right = PUBLIC[(who + 1) % 3], False
        case "name":
            made.name, right = name + "!", False
    return made, right


def check_taken(kind: str, asked: wire.App) -> None:
    """A wheel is refused, or no more of it is unpacked than the digest covers."""
    with tempfile.TemporaryDirectory() as place:
        there, wheel = Path(place) / "apps", Path(place) / "blob"
        wheel.write_bytes(WHEELS[kind])
        try:
            taken = ShippedApps(there, "berlin").take(asked, wheel)
        except (AppError, FormatError) as error:
            assert kind in HARMFUL, error
            assert not there.exists() or list(there.iterdir()) == []
            assert str(place) not in str(error)
            return
        assert kind in HARMLESS
        assert taken.app.digest == digest_of_directory(taken.source, NAME) == DIGEST
        files = {path.relative_to(taken.source).as_posix() for path in taken.source.rglob("*") if path.is_file()}
        assert files == COVERED | {f"{INFO}/METADATA"}
        assert not any(b"evil" in (taken.source / name).read_bytes() for name in files)


@pytest.mark.parametrize("kind", ALL)
def test_every_kind_of_wheel(kind: str) -> None:
    check_taken(kind, wire.App(name=NAME, digest=DIGEST, object=f"{NAME}:client"))


@given(
    kind=st.sampled_from(["honest"] * 6 + list(ALL)),
    signed=st.lists(signatures(), max_size=3),
    trusted=st.lists(st.sampled_from(PUBLIC), max_size=2),
    apps=st.one_of(st.none(), st.lists(st.sampled_from([NAME, DIGEST.hex(), "00" * 32]), max_size=2)),
    lets=st.sampled_from([True] * 5 + [False]),
    target=st.sampled_from([f"{NAME}:client"] * 5 + [f"{NAME}.inner:app", "os:system", "", "numpy:client", "myfed2:x"]),
)
def test_what_runs_is_what_somebody_trusted_has_signed(
    *,
    kind: str,
    signed: list[tuple[wire.Signature, bool]],
    trusted: list[bytes],
    apps: list[str] | None,
    lets: bool,
    target: str,
) -> None:
    asked = wire.App(name=NAME, version="1.0", digest=DIGEST, object=target, signatures=[one for one, _ in signed])
    asked.wheel.size = len(WHEELS[kind])
    task = wire.Task(kind="train", name="train", submitter="alice", run_name="trial", app=asked)
    named = tuple(apps) if apps is not None else None
    policy = Policy(code_from_server=lets, signers=tuple(trusted), apps=named)
    refusal = judge(task, None, Dataset(name="default"), policy, node="berlin")
    may = (
        lets
        and target.startswith((f"{NAME}:", f"{NAME}."))
        and all(right for _, right in signed)
        and (DIGEST.hex() in (apps or []) or any(one.key in trusted for one, _ in signed))
    )
    assert (refusal is None) == may, refusal
    if refusal is not None:
        return
    assert comes_along(task, None, policy)
    check_taken(kind, asked)


@given(st.data())
def test_damage_on_the_way_is_never_unpacked(data: st.DataObject) -> None:
    content = bytearray(WHEELS["honest"])
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    asked = wire.App(name=NAME, digest=DIGEST, object=f"{NAME}:client")
    with tempfile.TemporaryDirectory() as place:
        wheel = Path(place) / "blob"
        wheel.write_bytes(content)
        try:
            taken = ShippedApps(Path(place) / "apps", "berlin").take(asked, wheel)
        except (AppError, FormatError):
            return
        assert digest_of_directory(taken.source, NAME) == DIGEST
