"""A run of the demo in lines, for where no screen can be drawn."""

import time
from collections.abc import Callable

from demo.session import Progress

_EVERY_S = 5.0


class Narration:
    """Tells of a run whenever its phase changes, and every five seconds while it loads."""

    def __init__(self, say: Callable[[str], None], *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._monotonic = monotonic
        self._phase = ""
        self._told_at = 0.0

    def look(self, progress: Progress) -> None:
        """Say what is new. To be called again and again."""
        now, is_new = self._monotonic(), progress.phase != self._phase
        goes_on = progress.phase == "loading" and now - self._told_at >= _EVERY_S
        if progress.phase == "starting" or not (is_new or goes_on):
            return
        self._phase, self._told_at = progress.phase, now
        self._say(_line(progress))


def _line(progress: Progress) -> str:
    done, total = f"{progress.figures.accounted:,}", f"{progress.total:,}"
    match progress.phase:
        case "loading":
            return f"loading two days of events: {done} of {total}"
        case "live":
            return f"playing the last events live; {done} of {total} are there"
        case "checking":
            return "reading every value over HTTP and comparing it with a brute-force count over the raw events"
        case _:
            return "done"
