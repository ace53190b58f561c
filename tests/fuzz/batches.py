"""Batches: what is drawn from one seed and number, carried through the pipeline, and told in figures."""

import asyncio
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.fakes import Record
from tests.fuzz.damage import read_damaged
from tests.fuzz.payloads import chances, draw_batch
from tests.fuzz.pipeline import carry

BATCH_PAYLOADS = 1_000
_ASK_EVERY = 4
_DAMAGED = 50
_SHOWN_BYTES = 300


@dataclass
class Figures:
    """What became of the payloads of some batches.

    Attributes:
        damaged: How many damaged bytes of our own formats were read beside.
        crashes: What was raised, each with the fewest records that raise it.
        unaccounted: What is wrong of records that did not come out in exactly one right place.
    """

    payloads: int = 0
    dispatched: int = 0
    buried: Counter[str] = field(default_factory=Counter)
    damaged: int = 0
    crashes: list[str] = field(default_factory=list)
    unaccounted: list[str] = field(default_factory=list)

    def add(self, other: "Figures") -> None:
        """Add those of other batches."""
        self.payloads += other.payloads
        self.dispatched += other.dispatched
        self.buried += other.buried
        self.damaged += other.damaged
        self.crashes += other.crashes
        self.unaccounted += other.unaccounted


def run_batch(seed: int, number: int, payloads: int = BATCH_PAYLOADS) -> Figures:
    """Draw a batch and run it; the same arguments give the same batch."""
    chance = chances(f"{seed}/{number}")
    records = draw_batch(chance, payloads)
    figures = Figures(payloads=len(records))
    try:
        outcome = asyncio.run(carry(records, ask_every=_ASK_EVERY))
    except Exception:  # noqa: BLE001  # it is what is looked for
        figures.crashes.append(f"batch {number}: {_told_crash(records)}")
        return figures
    figures.dispatched, figures.buried = outcome.dispatched, outcome.buried
    figures.unaccounted += (f"batch {number}: {told}" for told in outcome.unaccounted)
    if outcome.packs and outcome.changes:
        figures.damaged = 4 * _DAMAGED
        raised = read_damaged(chance, outcome.packs, outcome.changes, times=_DAMAGED)
        figures.crashes += (f"batch {number}: {told}" for told in raised)
    return figures


def shrink(records: Sequence[Record], fails: Callable[[Sequence[Record]], bool]) -> list[Record]:
    """Return few of the records, with which it fails as with all of them."""
    left, size = list(records), len(records) // 2
    while size:
        for start in range(0, len(left), size):
            fewer = left[:start] + left[start + size :]
            if fewer and fails(fewer):
                left = fewer
                break
        else:
            size //= 2
        size = min(size, len(left) // 2)
    return left


def _told_crash(records: Sequence[Record]) -> str:
    fewest = shrink(records, lambda fewer: _crash(fewer) is not None)
    raised = "".join(traceback.format_exception(_crash(fewest), limit=-3))
    shown = "\n".join(
        f"  {record._replace(value=record.value and record.value[:_SHOWN_BYTES])}" for record in fewest[:5]
    )
    return f"{raised}{len(fewest)} records, their values at most {_SHOWN_BYTES} bytes long:\n{shown}"


def _crash(records: Sequence[Record]) -> Exception | None:
    try:
        asyncio.run(carry(records))
    except Exception as error:  # noqa: BLE001  # see above
        return error
    return None
