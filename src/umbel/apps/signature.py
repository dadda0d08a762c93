"""Signatures of apps: who stands for this code.

A signature is Ed25519 over these bytes:

    "umbel-app-signature-1" and a line feed      22 bytes of ASCII
    the app's digest                             32 bytes
    the signer's name                            UTF-8

It lies beside the wheel as JSON, ``myfed-1.0-py3-none-any.whl.sig``, which several signers may share:

    {"umbel-signatures": 1, "digest": HEX, "signatures": [{"key": "ed25519:BASE64", "name": TEXT, "signature": BASE64}]}
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from umbel.apps.project import Project
from umbel.errors import BadSignature, UsageError
from umbel.store.durable import BINARY, readable_errors, replace_file, write_all

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SUFFIX = ".sig"
_BEGIN = b"umbel-app-signature-1\n"
_SCHEME = "ed25519:"
_KEY = 32  # bytes of a public key
_LONGEST = 1 << 20  # bytes of a file of signatures
_AGAIN = "sign the wheel again, or ask who built it"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """One signer's signature of a digest.

    Attributes:
        key: the signer's public key, 32 bytes.
        name: what the signer calls itself; the signature covers it, and nobody has checked it.
        signature: 64 bytes.
    """

    key: bytes
    name: str
    signature: bytes


def show_key(key: bytes) -> str:
    """A public key as people see it: ``ed25519:BASE64``."""
    return _SCHEME + base64.b64encode(key).decode()


def read_key(text: str) -> bytes:
    """The public key that ``ed25519:BASE64`` stands for, 32 bytes.

    Raises:
        UsageError: it is no such text.
    """
    try:
        key = base64.b64decode(text.strip().removeprefix(_SCHEME), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not text.strip().startswith(_SCHEME) or len(key) != _KEY:
        raise UsageError(f"{text!r} is no signer", advice=f"give a key of 32 bytes as {_SCHEME}BASE64")
    return key


def make_key(path: Path) -> bytes:
    """Make a signing key, in a file that only its owner may read; returns the public key, 32 bytes.

    Raises:
        UsageError: there is a file already.
        StoreError: it cannot be written.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    with readable_errors(path):
        try:
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | BINARY, 0o600)
        except FileExistsError as error:
            raise UsageError(
                f"{path} is there already", advice="give another path; a key is never overwritten"
            ) from error
        try:
            write_all(file, pem)
        finally:
            os.close(file)
    return key.public_key().public_bytes_raw()


def sign_digest(digest: bytes, key: Path, *, name: str = "") -> Signature:
    """Sign a digest with the key in a file.

    Raises:
        UsageError: the file holds no Ed25519 key.
    """
    private = _private_key(key)
    made = private.sign(_signed(digest, name))
    return Signature(key=private.public_key().public_bytes_raw(), name=name, signature=made)


def sign(wheel: Path, key: Path, *, name: str = "") -> Path:
    """Sign a wheel, beside the signatures that it has of others; returns the path of the file of signatures.

    Args:
        wheel: the wheel of an app.
        key: the file with the signer's key.
        name: what the signer calls itself.

    Raises:
        BadSignature: a signature that is there already is wrong.
        FormatError: the wheel is damaged.
        StoreError: the file cannot be written.
        UsageError: the file of the key holds none.
    """
    digest = Project.find(wheel).digest
    made, path = sign_digest(digest, key, name=name), _path(wheel)
    others = [each for each in verify(path, digest) if each.key != made.key] if path.exists() else []
    rows = [
        {"key": show_key(each.key), "name": each.name, "signature": base64.b64encode(each.signature).decode()}
        for each in [*others, made]
    ]
    content = {"umbel-signatures": 1, "digest": digest.hex(), "signatures": rows}
    replace_file(path, (json.dumps(content, indent=1) + "\n").encode())
    return path


def verify(path: Path, digest: bytes) -> tuple[Signature, ...]:
    """The signatures in a file, all of which are right.

    Args:
        path: the file of signatures, or the wheel beside which it lies.
        digest: what they must be signatures of.

    Raises:
        BadSignature: there is no such file, it is of another digest, or a signature is wrong; says which.
    """
    path = path if path.suffix == SUFFIX else _path(path)
    try:
        with path.open("rb") as file:
            content = json.loads(file.read(_LONGEST))
        said = bytes.fromhex(content["digest"])
        found = tuple(_signature(row) for row in content["signatures"])
    except FileNotFoundError as error:
        raise BadSignature(f"there is no signature {path}", advice="copy it beside the wheel, or sign it") from error
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise BadSignature(f"{path} holds no signatures that can be read: {error!r:.200}", advice=_AGAIN) from error
    if said != digest:
        raise BadSignature(
            f"{path} is about the app with digest {said.hex()}, and this one has {digest.hex()}", advice=_AGAIN
        )
    check_right(found, digest, what=str(path))
    return found


def check_right(found: Iterable[Signature], digest: bytes, *, what: str = "the app") -> None:
    """Refuse signatures of which one is wrong.

    Args:
        found: who claims to have signed.
        digest: the app's, 32 bytes.
        what: they came with, for people.

    Raises:
        BadSignature: names the first that is wrong.
    """
    for each in found:
        if not _is_right(each, digest):
            raise BadSignature(f"{what}: the signature of {show_key(each.key)} {each.name!r} is wrong", advice=_AGAIN)


def signers(wheel: Path, digest: bytes) -> tuple[bytes, ...]:
    """The public keys whose signature lies beside a wheel, in order, 32 bytes each; none if there is no such file.

    Raises:
        BadSignature: there is one that is wrong.
    """
    path = _path(wheel)
    return tuple(sorted({each.key for each in verify(path, digest)})) if path.exists() else ()


def _path(wheel: Path) -> Path:
    return wheel.with_name(wheel.name + SUFFIX)


def _signed(digest: bytes, name: str) -> bytes:
    return _BEGIN + digest + name.encode()


def _signature(row: Any) -> Signature:
    name = row["name"]
    if not isinstance(name, str):
        raise TypeError("a name is no text")
    return Signature(key=read_key(row["key"]), name=name, signature=base64.b64decode(row["signature"], validate=True))


def _is_right(signature: Signature, digest: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        key = Ed25519PublicKey.from_public_bytes(signature.key)
        key.verify(signature.signature, _signed(digest, signature.name))
    except (InvalidSignature, ValueError):
        return False
    return True


def _private_key(path: Path) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"{path} holds no signing key: {error}", advice="make one, and give its file") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(f"{path} holds another kind of key", advice="signatures are Ed25519")
    return key


__all__ = [
    "SUFFIX",
    "Signature",
    "check_right",
    "make_key",
    "read_key",
    "show_key",
    "sign",
    "sign_digest",
    "signers",
    "verify",
]
