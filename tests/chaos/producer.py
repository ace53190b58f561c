"""The producer, a process of its own: sends traffic at the pace that a file tells, and keeps the ledger.

``python -m tests.chaos.producer <directory> <bootstrap> <seed>``. The file ``pace`` in the directory holds the records
per second, 0 for silence, negative for the end; once it is silent and everything is acknowledged, ``silent`` tells how
many were sent, acknowledged and failed.
"""

import os
import sys
import time
from pathlib import Path

from tests.chaos.ledger import LedgerProducer
from tests.chaos.traffic import Traffic

PACE, SILENT, LEDGER = "pace", "silent", "ledger"
_STEP_S = 0.02


def main(directory: Path, bootstrap: str, seed: int) -> None:
    """Send until told to end, or until the parent is gone."""
    producer, traffic, parent = LedgerProducer(bootstrap, directory / LEDGER), Traffic(seed), os.getppid()
    owed, last, is_told = 0.0, time.monotonic(), False
    while os.getppid() == parent:
        pace = float((directory / PACE).read_text() or 0)
        now = time.monotonic()
        if pace <= 0:
            if not is_told:
                producer.flush()
                told = directory / f"{SILENT}.new"
                told.write_text(f"{producer.sent} {producer.acknowledged} {producer.failed}")
                told.rename(directory / SILENT)
                is_told = True
            if pace < 0:
                return
            owed = 0.0
        else:
            is_told = False
            # After a stall what was missed is not made up for at once.
            owed = min(owed + pace * (now - last), pace)
            while owed >= 1:
                for record in traffic.records(time.time_ns() // 1_000_000):
                    producer.send(record)
                    owed -= 1
        last = now
        producer.poll()
        time.sleep(_STEP_S)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
