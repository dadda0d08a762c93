"""``umbel sign``: keys of signers, and who has signed a wheel."""

from __future__ import annotations

from pathlib import Path

from cyclopts import App

from umbel.cli.reach import Json

sign_app = App(name="sign", help="Sign the wheel of an app, make a key to sign with, or see who has signed one.")


@sign_app.default
def sign(wheel: Path, *, key: Path, name: str = "", json: Json = False) -> None:
    """Sign the wheel of an app. The signatures, also those of others, lie beside it: WHEEL.sig.

    Args:
        wheel: the app's.
        key: the file with the signer's key, as `umbel sign key` made it.
        name: what the signer is called, for people; it is signed, too.
        json: print one JSON object.
    """
    from umbel.apps.project import Project
    from umbel.apps.signature import show_key, verify
    from umbel.apps.signature import sign as sign_wheel
    from umbel.cli.printing import give, line

    project = Project.find(_wheel(wheel))
    assert project.wheel is not None
    project.wheel.check_alone(project.package)
    path = sign_wheel(wheel, key, name=name)
    mine = verify(path, project.digest)[-1]  # the latest stands last
    if json:
        give({"path": str(path), "digest": project.digest.hex(), "key": show_key(mine.key), "name": mine.name})
        return
    line(f"Signed {project.package} {project.version}".rstrip() + f", digest {project.digest.hex()}")
    line(f"by {show_key(mine.key)} {mine.name}".rstrip())
    line(f"The signature is in {path}; it must lie beside the wheel wherever that goes.")


@sign_app.command
def key(path: Path, *, json: Json = False) -> None:
    """Make a signer's key, and print its public part, which owners of data name in their node.toml.

    Args:
        path: of the new file, which is the signer's alone; one that is there is never overwritten.
        json: print one JSON object.
    """
    from umbel.apps.signature import make_key, show_key
    from umbel.cli.printing import give, line, note

    public = show_key(make_key(path))
    if json:
        give({"path": str(path), "key": public})
        return
    line(public)
    note(f"The key is in {path}: keep it to yourself. Owners who trust it write into [policy] of node.toml:")
    note(f'signers = ["{public}"]')


@sign_app.command
def check(wheel: Path, *, json: Json = False) -> int:
    """Say which app a wheel is, and who has signed it; the exit status is 1 if nobody has, or a signature is wrong.

    Args:
        wheel: the app's.
        json: print one JSON object.
    """
    from umbel.apps.project import Project
    from umbel.apps.signature import SUFFIX, show_key, verify
    from umbel.cli.printing import give, line, table

    project = Project.find(_wheel(wheel))
    assert project.wheel is not None
    project.wheel.check_alone(project.package)
    path = wheel.with_name(wheel.name + SUFFIX)
    found = verify(path, project.digest) if path.exists() else ()
    if json:
        signed = [{"key": show_key(one.key), "name": one.name} for one in found]
        app = {"app": project.package, "version": project.version, "digest": project.digest.hex()}
        give({**app, "signatures": signed})
    else:
        line(f"{project.package} {project.version}".rstrip() + f", digest {project.digest.hex()}")
        if found:
            table(("signed by", "who calls itself"), [(show_key(one.key), one.name) for one in found])
        else:
            line("Nobody has signed it.")
    return 0 if found else 1


def _wheel(path: Path) -> Path:
    """The path, if it is that of a wheel.

    Raises:
        UsageError: it is not.
    """
    from umbel.errors import UsageError

    if path.suffix != ".whl":
        raise UsageError(
            f"{path} is no wheel", advice=f"build one, then sign that: pip wheel --no-deps -w dist {path.absolute()}"
        )
    return path


__all__ = ["sign_app"]
