"""The guard ends the process, so most of this runs in one of its own."""

import asyncio
import subprocess
import sys
import textwrap

import pytest

from agents.guard import EXIT_STATUS, guarded


def run(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60, check=False
    )


async def test_a_result_passes():
    """
    The guard is in the way of every event.
    """

    async def work() -> int:
        return 7

    assert await guarded(work(), what="work") == 7


async def test_cancellation_passes():
    """
    It is how a worker stops and how a take-over that is out of date ends.
    """
    task = asyncio.create_task(guarded(asyncio.Event().wait(), what="work"))
    await asyncio.sleep(0)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


def test_an_unknown_error_ends_the_process_at_once():
    """
    Faust acknowledges an event whose agent raised: what is not acknowledged is replayed (PROTOCOL, P8). So neither
    handlers nor exit hooks may run, which would commit.
    """
    ended = run("""
        import asyncio, atexit, logging
        from agents.guard import guarded

        logging.basicConfig(format="%(levelname)s %(message)s")
        atexit.register(print, "exit hooks ran")

        async def work():
            raise LookupError("nobody expected this")

        async def main():
            try:
                await guarded(work(), what="dispatch")
            except BaseException:
                print("it left the guard")
            finally:
                print("something stopped in order")

        asyncio.run(main())
    """)

    assert (ended.returncode, ended.stdout) == (EXIT_STATUS, "")
    assert "CRITICAL unknown error in dispatch\nTraceback" in ended.stderr
    assert ended.stderr.endswith("freshet: worker ends: dispatch: LookupError: nobody expected this\n")


def test_the_last_words_are_not_lost_in_a_buffer():
    """
    A handler that collects messages has collected the reason too.
    """
    ended = run("""
        import logging, logging.handlers, sys
        from agents.guard import die

        handler = logging.handlers.MemoryHandler(1000, flushLevel=100, target=logging.StreamHandler(sys.stdout))
        logging.getLogger().addHandler(handler)
        logging.getLogger().warning("before")
        die("a reason")
    """)

    assert (ended.returncode, ended.stdout) == (EXIT_STATUS, "before\nworker ends: a reason\n")
