"""What the two long-running programs say: a calm line for each thing that happens, or a JSON object."""

from __future__ import annotations

import logging
import re
import time
from typing import Any, final

_EVENT = re.compile(r"([a-z][a-z-]*[a-z]): ?")


@final
class _Lines(logging.Handler):
    """Writes what is logged to standard output."""

    def __init__(self, *, json: bool) -> None:
        super().__init__(logging.INFO)
        self._json = json

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        from umbel.cli.printing import note

        try:
            say(record.getMessage(), json=self._json, level=record.levelname.lower(), moment=record.created)
            if record.exc_info and record.exc_info[0] is not None:
                note(logging.Formatter().formatException(record.exc_info))
        except (OSError, ValueError):  # nobody reads any more; the program goes on
            return


def say(text: str, *, json: bool, level: str = "info", moment: float | None = None, **fields: Any) -> None:
    """Say what happened.

    Args:
        text: it, perhaps with the name of the event in front: "node-enrolled: berlin".
        json: as JSON.
        level: "info", "warning" or "error".
        moment: seconds since 1970; None: now.
        fields: what programs want to know beside the text.
    """
    from umbel.cli.printing import below, clock, give, line

    moment = time.time() if moment is None else moment
    if json:
        event = _EVENT.match(text)
        given = {"event": event[1], "message": text[event.end() :]} if event else {"event": "said", "message": text}
        give({"time": moment, "level": level, **given, **fields})
    else:
        line(f"{clock(moment)}  {'' if level == 'info' else f'{level}: '}{below(text)}")


def log_to_lines(*, json: bool) -> None:
    """From now on, write down what Umbel logs."""
    logger = logging.getLogger("umbel")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.handlers[:] = [_Lines(json=json)]


__all__ = ["log_to_lines", "say"]
