"""What a run finds, and the line of JSON that it ends with."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import orjson

_TOLD_MAX = 50


@dataclass
class Findings:
    """What a run has done to the platform, and what was wrong then.

    Attributes:
        lost: Events that are in no set or missing from a value.
        double: Events that are in two sets or count twice in a value.
        stale: Rows and answers that are older than they must be, after everything has settled or within one process.
        unexplained: Everything else that is wrong.
        told: A line about each of the first of them.
        answers: Answers that were compared with the oracle.
        recovery_s: Seconds from each kill -9 to the first new event readable, where no other fault was active.
        faults: Faults that were injected, by kind.
        failpoints: Kills at failpoints, by name.
    """

    lost: int = 0
    double: int = 0
    stale: int = 0
    unexplained: int = 0
    told: list[str] = field(default_factory=list)
    answers: int = 0
    kills: int = 0
    recovery_s: list[float] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    failpoints: Counter[str] = field(default_factory=Counter)

    @property
    def is_exact(self) -> bool:
        return not (self.lost or self.double or self.stale or self.unexplained)

    def tell(self, line: str) -> None:
        """Keep a line about something that is wrong."""
        if len(self.told) < _TOLD_MAX:
            self.told.append(line)
            print(f"WRONG {line}", flush=True)

    def line(self, *, events: int, seed: int) -> str:
        """Return the figures as one line of JSON."""
        recovery = sorted(self.recovery_s)
        figures: dict[str, Any] = {
            "kills": self.kills,
            "events": events,
            "lost": self.lost,
            "double": self.double,
            "stale": self.stale,
            "recovery_s_p50": share(recovery, 0.5),
            "recovery_s_p99": share(recovery, 0.99),
            "recoveries": len(recovery),
            "faults": self.faults.total(),
            "fault_kinds": len(self.faults),
            "failpoints": dict(sorted(self.failpoints.items())),
            "answers": self.answers,
            "unexplained": self.unexplained,
            "seed": seed,
        }
        return orjson.dumps(figures).decode()


def share(values: list[float], share: float) -> float | None:
    """Return the value that so large a share of sorted values does not exceed."""
    return round(values[min(int(len(values) * share), len(values) - 1)], 2) if values else None
