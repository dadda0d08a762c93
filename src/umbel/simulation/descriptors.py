"""The numbers under which a process has files open: the first three have a meaning, and there are only so many."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from umbel.errors import StoreError

_STANDARD = 3  # input, output, errors


def take_standard() -> None:
    """Give closed standard streams the null device, for good.

    Else a file of ours gets such a number, and what is printed, be it by a program that user code starts, goes into it.
    """
    if sys.platform == "win32":  # streams have handles there, and files of ours other ones
        return
    for number in range(_STANDARD):
        try:
            os.fstat(number)
        except OSError:
            file = os.open(os.devnull, os.O_RDWR)
            if file == number:
                os.set_inheritable(file, True)  # as standard streams are: what is started shall not lack it, either
            else:  # another thread has opened a file meanwhile, and it is that one's
                os.close(file)


@contextmanager
def enough() -> Iterator[None]:
    """Say what to do where a process, or the system, may not have more files open.

    Raises:
        StoreError: so it is.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE):
            raise
        raise StoreError(
            f"files that worker processes need cannot be opened: {error.strerror}",
            advice="raise the limit of open files (ulimit -n), use fewer workers, or engine='inline', which needs none",
        ) from error


__all__ = ["enough", "take_standard"]
