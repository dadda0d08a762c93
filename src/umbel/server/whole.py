"""What is done to its end, though who asked for it goes meanwhile: what was written down is to take effect, too."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from umbel.errors import UmbelError

logger = logging.getLogger("umbel")
P = ParamSpec("P")
T = TypeVar("T")
_left: set[asyncio.Task[Any]] = set()  # the event loop itself does not keep tasks


def whole(do: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Have what `do` begins be done to its end: a connection that breaks cancels its calls, at any moment.

    Args:
        do: changes the store, and then what the server has in memory.
    """

    @wraps(do)
    async def done(*args: P.args, **kwargs: P.kwargs) -> T:
        task = asyncio.create_task(do(*args, **kwargs), name=do.__qualname__)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.done():
                _left.add(task)
                task.add_done_callback(_over)
            raise

    return done


def _over(task: asyncio.Task[Any]) -> None:
    _left.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, UmbelError):
        logger.error("call-failed: %s, whose caller has gone", task.get_name(), exc_info=error)


__all__ = ["whole"]
