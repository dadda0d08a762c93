"""``umbel config``: each setting, and where it came from."""

from __future__ import annotations

from umbel.cli.reach import Json


def config(app: str = ".", *, json: Json = False) -> None:
    """Show the settings of an app and of its runs, each with where it came from; and the app's digest.

    Args:
        app: its directory, its wheel, or the name of an installed one.
        json: print a JSON object a line.
    """
    from umbel.apps.project import Project
    from umbel.cli.printing import give, line, table
    from umbel.cli.run import settings_of

    project = Project.find(app)
    settings = settings_of(project, {})
    digest = project.digest.hex()
    if json:
        give({"app": project.package, "version": project.version, "digest": digest, "source": str(project.source)})
        for name, value, source in settings.rows():
            give({"setting": name, "value": value, "source": source})
        return
    line(f"{project.package} {project.version}".rstrip() + f" in {project.source}")
    line(f"digest {digest}")
    line("")
    table(
        ("setting", "value", "from"),
        [(name, "" if value in (None, (), {}) else str(value), source) for name, value, source in settings.rows()],
    )


__all__ = ["config"]
