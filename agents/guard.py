"""The guard: no exception leaves an agent (PROTOCOL, P8).

Faust acknowledges an event whose agent raised, so an error that nobody expected would lose it. Errors that are
expected are dealt with where they happen: bad events are buried, stores are retried in place. Whatever still arrives
here is unknown, and the only safe answer is to end the process: nothing is acknowledged, and a restart replays.
"""

import logging
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, TypeVar

log = logging.getLogger(__name__)

EXIT_STATUS = 70
"""EX_SOFTWARE: tells a supervisor that a restart is the remedy."""

T = TypeVar("T")


def die(reason: str) -> NoReturn:
    """End the process now, without stopping anything in order: what is not acknowledged will be replayed."""
    log.critical("worker ends: %s", reason)
    for handler in logging.getLogger().handlers:
        handler.flush()
    sys.stderr.write(f"freshet: worker ends: {reason}\n")
    sys.stderr.flush()
    os._exit(EXIT_STATUS)


async def guarded(work: Awaitable[T], *, what: str, end: Callable[[str], Any] = die) -> T | None:
    """Await something that must not fail; an unknown error ends the process.

    Cancellation passes: it is how a worker stops and how partitions are given away.

    Args:
        work: What is awaited.
        what: Its name in the last words.
        end: Ends the process; it returns in tests alone, and then nothing is returned.
    """
    try:
        return await work
    except Exception as error:  # the one place, for the reason above
        log.critical("unknown error in %s", what, exc_info=error)
        end(f"{what}: {type(error).__name__}: {error}")
        return None
