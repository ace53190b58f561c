"""The torture: a producer, a fleet of workers, readers, and everything breaks; afterwards everything must be exact.

``python -m tests.chaos.torture --kills 200 --faults 100 --minutes 60 --seed 1``. The run ends when it has reached all
of its targets. Its last line is one line of JSON; it ends with status 1 if anything was wrong, and keeps its logs then.
"""

import argparse
import asyncio
import logging
import os
import random
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from services.server_process import free_ports
from tests.chaos.checks import Checks
from tests.chaos.faults import Faults
from tests.chaos.findings import Findings
from tests.chaos.fleet import Fleet
from tests.chaos.ground import Ground, open_ground
from tests.chaos.kills import Killer
from tests.chaos.ledger import LedgerProducer
from tests.chaos.producer import LEDGER, PACE, SILENT
from tests.chaos.readers import Readers
from tests.chaos.recovery import Probe

_SILENCE_S = 330.0
_POLL_S = 0.1
_TOLD_EVERY_S = 30.0
_PRODUCER_LOG = "producer.log"
_LOG_TAIL = 1_000


@dataclass(frozen=True, slots=True)
class Targets:
    """What a run must have done before it ends.

    Attributes:
        round_s: Time from one check to the next.
        quiet_share: Share of that time in which there are kills alone, so that the time to recover is theirs.
        pause_s: Bounds of the time between two kills in the rest of it.
    """

    kills: int
    faults: int
    minutes: float
    events: int
    seed: int
    workers: int = 3
    brokers: int = 3
    round_s: float = 300.0
    quiet_share: float = 0.35
    pause_s: tuple[float, float] = (3.0, 7.0)
    events_per_s: float = 0.0

    @property
    def pace(self) -> float:
        """Records per second: so many that there are enough after half of the time."""
        return self.events_per_s or max(self.events / max(self.minutes * 60, 1) * 1.4, 100.0)


class Torture:
    """One run."""

    def __init__(self, targets: Targets, ground: Ground, directory: Path) -> None:
        self.targets = targets
        self.ground = ground
        self.directory = directory
        self.findings = Findings()
        chance = random.Random(targets.seed)
        self.fleet = Fleet(ground.settings, directory, free_ports(targets.workers))
        self.probes = LedgerProducer(ground.kafka.bootstrap, directory / "probes")
        self.probe = Probe(self.fleet, self.probes)
        self.readers = Readers(self.fleet, self.findings, random.Random(chance.random()))
        self.killer = Killer(
            self.fleet,
            self.probe,
            self.findings,
            random.Random(chance.random()),
            is_quiet=lambda: self._is_quiet,
            pause_s=targets.pause_s,
        )
        self.checks = Checks(ground, self.fleet, self.findings, [directory / LEDGER, directory / "probes"])
        spare = self.fleet.add("spare", *free_ports(1), wanted=False)
        self.faults = Faults(ground, self.fleet, self.checks, self.findings, spare, random.Random(chance.random()))
        self._is_quiet = False
        self._began = time.monotonic()

    @property
    def events(self) -> int:
        """Records in the source logs, as of the last check."""
        return self.checks.oracle.records

    async def run(self) -> None:
        """Torture until all targets are reached."""
        await self.amid(self._until_done)

    async def amid(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do some work amid a fleet, a producer and readers."""
        (self.directory / PACE).write_text("0")
        with (self.directory / _PRODUCER_LOG).open("wb") as log:
            producer = subprocess.Popen(  # noqa: ASYNC220  # it takes no time worth speaking of
                [
                    *(sys.executable, "-m", "tests.chaos.producer", str(self.directory)),
                    *(self.ground.kafka.bootstrap, str(self.targets.seed)),
                ],
                stderr=log,
                start_new_session=True,
            )
        tasks = [asyncio.create_task(self.fleet.supervise()), asyncio.create_task(self._watch(producer))]
        try:
            await self.checks.settle()
            print(f"{self.targets.workers} workers are ready", flush=True)
            tasks += [asyncio.create_task(self.readers.run()), asyncio.create_task(self._tell())]
            await _first(work(), *tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            producer.kill()
            producer.wait()
            await self.fleet.stop()
            self.checks.close()
            self.probes.close()

    async def _watch(self, producer: "subprocess.Popen[bytes]") -> None:
        while producer.poll() is None:  # noqa: ASYNC110  # a process sets no event
            await asyncio.sleep(_POLL_S)
        told = (self.directory / _PRODUCER_LOG).read_text(errors="replace")[-_LOG_TAIL:]
        raise RuntimeError(f"the producer has ended with status {producer.returncode}: {told}")

    async def _until_done(self) -> None:
        while not self._is_done():
            await self._round()

    def _is_done(self) -> bool:
        wanted, found = self.targets, self.findings
        return (
            found.kills >= wanted.kills
            and found.faults.total() >= wanted.faults
            and self.events >= wanted.events
            and time.monotonic() - self._began >= wanted.minutes * 60
        )

    async def _round(self) -> None:
        """Break things for a while, heal them, and look whether everything is exact."""
        self.pace(self.targets.pace)
        wanted = self.targets
        self._is_quiet = wanted.quiet_share > 0
        if wanted.kills:
            await self._repeat(self.killer.kill_one, wanted.round_s * wanted.quiet_share)
        self._is_quiet = False
        storm = [self.killer.kill_one] if wanted.kills else []
        storm += [self.faults.inject_one] if wanted.faults else []
        await asyncio.gather(*(self._repeat(work, wanted.round_s * (1 - wanted.quiet_share)) for work in storm))
        await self.compare()

    async def compare(self) -> None:
        """Let the producer be silent and everything settle, then compare everything."""
        await self._silence()
        began = time.monotonic()
        await self.checks.settle()
        settled = time.monotonic()
        await self.checks.check()
        self.readers.check(self.checks.oracle)
        for end in self.fleet.strange:
            self.findings.unexplained += 1
            self.findings.tell(end)
        self.fleet.strange.clear()
        print(
            f"checked: {self.events} records, {dict(self.checks.oracle.counts)}, {self.findings.answers} answers; "
            f"settled in {settled - began:.1f} s, compared in {time.monotonic() - settled:.1f} s",
            flush=True,
        )

    async def _repeat(self, work: Callable[[], Awaitable[None]], limit_s: float) -> None:
        ends = time.monotonic() + limit_s
        while time.monotonic() < ends and not self._is_nearly_done():
            await work()

    def _is_nearly_done(self) -> bool:
        wanted, found, path = self.targets, self.findings, self.directory / LEDGER
        return (
            found.kills >= wanted.kills
            and found.faults.total() >= wanted.faults
            and time.monotonic() - self._began >= wanted.minutes * 60
            # A line of the ledger has 25 bytes at the least.
            and path.stat().st_size >= wanted.events * 25
        )

    def pace(self, events_per_s: float) -> None:
        """Let the producer send so many records a second from now on."""
        new = self.directory / f"{PACE}.new"
        new.write_text(str(events_per_s))
        new.rename(self.directory / PACE)

    async def _silence(self) -> None:
        """Let the producers send nothing more, and wait until everything they have sent is acknowledged."""
        silent = self.directory / SILENT
        silent.unlink(missing_ok=True)
        self.pace(0)
        await asyncio.to_thread(self.probes.flush)
        deadline = time.monotonic() + _SILENCE_S
        while not silent.exists():
            if time.monotonic() > deadline:
                raise TimeoutError(f"the producer is not silent after {_SILENCE_S:.0f} s")
            await asyncio.sleep(_POLL_S)
        sent, acknowledged, failed = map(int, silent.read_text().split())
        if failed or sent != acknowledged:
            print(f"of {sent} records {acknowledged} were acknowledged and {failed} given up", flush=True)

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(_TOLD_EVERY_S)
            print(
                f"{time.monotonic() - self._began:.0f} s: {self.findings.kills} kills, "
                f"{self.findings.faults.total()} faults, exits {dict(self.fleet.exits)}, "
                f"reads failed {dict(self.readers.failed)}",
                flush=True,
            )


async def _first(work, *tasks) -> None:
    """Wait for some work, or for the first of tasks that should not end."""
    working = asyncio.create_task(work)
    try:
        await asyncio.wait([working, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in (working, *tasks):
            if task.done():
                task.result()
    finally:
        working.cancel()
        with suppress(asyncio.CancelledError):
            await working


def torture(targets: Targets, directory: Path) -> tuple[Findings, str]:
    """Run on services of its own in a directory; return what was found, and the line that says it."""
    with open_ground(directory, brokers=targets.brokers) as ground:
        run = Torture(targets, ground, directory)
        try:
            asyncio.run(run.run())
        except Exception as error:  # noqa: BLE001  # whatever ends a run is a finding of it
            run.findings.unexplained += 1
            run.findings.tell(f"the run ended: {type(error).__name__}: {error}")
        finally:
            run.fleet.kill_all()
        print(f"workers ended: {dict(run.fleet.exits)}", flush=True)
        return run.findings, run.findings.line(events=run.events, seed=targets.seed)


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--events", type=int, default=0, help="least number of events, by default 150 a second")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 31))
    parser.add_argument("--round", type=float, default=300, help="seconds from one check to the next")
    parser.add_argument("--keep", action="store_true", help="keep the logs of a run that was exact too")
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    # The proxy before DynamoDB tells of each connection that is cut.
    logging.disable(logging.CRITICAL)
    targets = Targets(
        kills=given.kills,
        faults=given.faults,
        minutes=given.minutes,
        events=given.events or int(given.minutes * 60 * 150),
        seed=given.seed,
        round_s=given.round,
    )
    directory = Path(tempfile.mkdtemp(prefix="freshet-torture-"))
    kept, line = True, ""
    try:
        findings, line = torture(targets, directory)
        kept = given.keep or not findings.is_exact
    finally:
        if kept:
            print(f"logs: {directory}", flush=True)
        else:
            shutil.rmtree(directory, ignore_errors=True)
    print(line, flush=True)
    sys.stdout.flush()
    os._exit(0 if findings.is_exact else 1)


if __name__ == "__main__":
    main()
