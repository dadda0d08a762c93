from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

import pytest

from umbel.errors import Rejected
from umbel.server.whole import whole


@pytest.mark.parametrize(("error", "said"), [(ZeroDivisionError(), ["call-failed"]), (Rejected("no"), [])])
def test_what_goes_wrong_when_the_caller_has_gone_is_logged_if_nobody_foresaw_it(
    caplog: pytest.LogCaptureFixture, error: Exception, said: list[str]
) -> None:
    async def story() -> None:
        began, go_on, over = (asyncio.Event() for _ in range(3))

        @whole
        async def fail() -> None:
            began.set()
            await go_on.wait()
            over.set()
            raise error

        calling = asyncio.create_task(fail())
        await began.wait()
        calling.cancel()
        with suppress(asyncio.CancelledError):
            await calling
        go_on.set()
        await over.wait()

    with caplog.at_level(logging.ERROR, "umbel"):
        asyncio.run(story())
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == said


def test_who_waits_is_told_what_went_wrong() -> None:
    @whole
    async def fail() -> None:
        raise Rejected("no")

    with pytest.raises(Rejected, match="no"):
        asyncio.run(fail())
