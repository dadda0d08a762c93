"""What an app prints through a pipe, and what of it is logged and told."""

from __future__ import annotations

import asyncio
import os

import pytest

from umbel.apps.output import KEPT, Output


def printed(*pieces: bytes) -> tuple[list[str], str]:
    """The lines that are logged and the end that is told, of what comes in pieces."""
    lines: list[str] = []

    async def read() -> str:
        end, begin = os.pipe()
        output = Output(end, lines.append)
        for piece in pieces:
            os.write(begin, piece)
            while output.read():
                pass
        os.close(begin)
        return output.tail()

    return lines, asyncio.run(read())


@pytest.mark.parametrize("pieces", [1, 7, 1000])
def test_of_a_progress_bar_the_last_is_shown(pieces: int) -> None:
    """As on a terminal; else its thousand stages would leave no room for what is said beside it."""
    bar = b"begins\n" + b"".join(b"\rround 1: %3d%%" % i for i in range(101)) + b"\nends\r\nnot yet"
    size = -(-len(bar) // pieces)
    lines, tail = printed(*(bar[i : i + size] for i in range(0, len(bar), size)))
    assert lines == ["begins", "round 1: 100%", "ends", "not yet"]
    assert tail.splitlines() == lines


def test_a_bar_hides_nothing_that_was_printed_before_it() -> None:
    lines, tail = printed(b"the cause\n", *[b"\r" + b"#" * 99] * (KEPT // 50))
    assert lines == ["the cause", "#" * 99]
    assert tail.splitlines() == ["the cause", "#" * 99]
