"""How far a restore is, for the log, the metrics and whoever asks a worker why it is not ready."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

log = logging.getLogger(__name__)

_TELL_EVERY_S = 5.0


@dataclass(frozen=True, slots=True)
class RestoreState:
    """A restore at an instant.

    Attributes:
        what: ``rows`` or ``event ids``, or nothing while nothing is restored; the figures are then of the last one.
        records: Records that were read.
        records_per_s: Of them, in a second.
        left_s: Seconds that the rest will take at this rate.
    """

    what: str = ""
    records: int = 0
    records_per_s: float = 0.0
    left_s: float = 0.0


class RestoreProgress:
    """Counts what a restore reads, and logs it every five seconds."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._what = ""
        self._records = self._offsets = self._offsets_all = 0
        self._began_s = self._told_s = self._ended_s = now_s()

    @contextmanager
    def reading(self, what: str, *, offsets: int) -> Iterator[None]:
        """Note that reading begins, and ends; so many offsets lie before it, and perhaps fewer records: compaction."""
        self._what, self._records, self._offsets, self._offsets_all = what, 0, 0, offsets
        self._began_s = self._told_s = self._now_s()
        try:
            yield
            self._tell("restored")
        finally:
            self._ended_s = self._now_s()
            self._what = ""

    def read(self, *, records: int, offsets: int) -> None:
        """Note records that were read, and how many offsets that was."""
        self._records += records
        self._offsets += offsets
        if self._now_s() - self._told_s >= _TELL_EVERY_S:
            self._told_s = self._now_s()
            self._tell("restoring")

    @property
    def state(self) -> RestoreState:
        """How it stands."""
        took_s = (self._now_s() if self._what else self._ended_s) - self._began_s
        left = self._offsets_all - self._offsets if self._what else 0
        return RestoreState(
            self._what,
            self._records,
            self._records / took_s if took_s > 0 else 0.0,
            left * took_s / self._offsets if self._offsets else 0.0,
        )

    def _tell(self, message: str) -> None:
        state = self.state
        log.info(
            message,
            extra={
                "what": state.what,
                "records": state.records,
                "records_per_s": round(state.records_per_s),
                "offsets": f"{self._offsets}/{self._offsets_all}",
                "left_s": round(state.left_s, 1),
            },
        )
