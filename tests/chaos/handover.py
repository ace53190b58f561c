"""Handing over: a worker joins and leaves under load, again and again, and no partition may stand still for long.

``python -m tests.chaos.handover --times 50``. Its last line is one line of JSON; it ends with status 1 if anything was
wrong: a value, an account, or a partition with work to do whose committed offset stood still for over 10 s.
"""

import argparse
import asyncio
import json
import logging
import os
import secrets
import shutil
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka import KafkaException

from app.kafka.admin import KafkaAdmin
from app.kafka.groups import group_of
from app.settings import Role
from core.errors import BrokerError
from core.topics import repartition_topic
from tests.chaos.domain import REGISTRY
from tests.chaos.faults import KILLED_AFTER_SIGTERM
from tests.chaos.findings import share
from tests.chaos.ground import open_ground
from tests.chaos.log import Logs
from tests.chaos.torture import Targets, Torture

STANDSTILL_MAX_S = 10.0
_EVENTS_PER_S = 150.0
_LOOK_S = 0.25
_STAY_S = 4.0
_READY_S = 60.0

Place = tuple[str, int]


@dataclass
class Standstill:
    """How long partitions stood still that had something to do.

    Attributes:
        longest: By partition, seconds.
    """

    longest: dict[Place, float] = field(default_factory=dict)
    _since: dict[Place, float] = field(default_factory=dict)
    _at: dict[Place, int] = field(default_factory=dict)

    def look(self, now: float, committed: dict[Place, int], ends: dict[Place, int]) -> None:
        """Note where the partitions are."""
        for place, end in ends.items():
            offset = committed.get(place, 0)
            if offset != self._at.get(place) or offset >= end:
                self._at[place], self._since[place] = offset, now
            stood_s = now - self._since.setdefault(place, now)
            self.longest[place] = max(self.longest.get(place, 0.0), stood_s)


class Handover:
    """One run.

    Attributes:
        readable_s: Seconds from each SIGTERM until new events of all partitions were readable.
    """

    def __init__(self, torture: Torture, times: int) -> None:
        self._torture = torture
        self._times = times
        self._spare = torture.fleet.slots[-1]
        self.done = 0
        self.readable_s: list[float] = []
        self.standstill = Standstill()

    async def run(self) -> None:
        """Let a worker come and go, and look on; compare everything after every tenth time."""
        watching: asyncio.Task[None] | None = None
        for number in range(self._times):
            if watching is None:
                self._torture.pace(_EVENTS_PER_S)
                watching = asyncio.create_task(self._watch())
            # Each time another member: nobody waits for the last one to come back.
            self._spare.name = f"spare{number}"
            self._spare.wanted = True
            await self._until_ready()
            await asyncio.sleep(_STAY_S)
            self._spare.wanted = False
            asked_at = time.monotonic()
            readable = asyncio.create_task(self._torture.probe.wait_readable(asked_at, limit_s=_READY_S))
            await self._torture.faults.end(self._spare)
            self.readable_s.append(await readable)
            if self._torture.fleet.exits[KILLED_AFTER_SIGTERM]:
                raise TimeoutError(f"{self._spare.name} does not end in order")
            await asyncio.sleep(_STAY_S)
            self.done += 1
            print(f"{self.done} times, longest standstill {max(self.standstill.longest.values()):.1f} s", flush=True)
            if number % 10 == 9 or number == self._times - 1:
                watching.cancel()
                # If it has ended by itself, its reason ends the run.
                with suppress(asyncio.CancelledError):
                    await watching
                watching = None
                await self._torture.compare()

    async def _until_ready(self) -> None:
        deadline = time.monotonic() + _READY_S
        while time.monotonic() < deadline:
            worker = self._spare.worker
            # It may be given nothing: the first generation with it is what counts.
            if worker is not None and worker.is_alive and await asyncio.to_thread(worker.answers):
                return
            await asyncio.sleep(_LOOK_S)
        raise TimeoutError(f"{self._spare.name} is not ready after {_READY_S:.0f} s")

    async def _watch(self) -> None:
        ground = self._torture.ground
        topics = [*REGISTRY.sources, *map(repartition_topic, REGISTRY.entities)]
        admin, logs = KafkaAdmin(ground.access), Logs(ground.kafka.bootstrap, topics)
        self.standstill = Standstill(self.standstill.longest)
        try:
            while True:
                try:
                    committed = await asyncio.to_thread(admin.offsets, group_of(Role.ALL))
                    ends = await asyncio.to_thread(logs.ends)
                except (BrokerError, KafkaException) as error:
                    print(f"not looked: {error}", flush=True)
                else:
                    self.standstill.look(time.monotonic(), committed, ends)
                await asyncio.sleep(_LOOK_S)
        finally:
            logs.close()


def hand_over(times: int, seed: int, directory: Path) -> dict[str, object]:
    """Run on services of its own in a directory; return the figures."""
    targets = Targets(kills=0, faults=0, minutes=0, events=0, seed=seed, workers=2, brokers=1)
    with open_ground(directory, brokers=targets.brokers) as ground:
        torture = Torture(targets, ground, directory)
        run = Handover(torture, times)
        try:
            asyncio.run(torture.amid(run.run))
        except Exception as error:  # noqa: BLE001  # whatever ends a run is a finding of it
            torture.findings.unexplained += 1
            torture.findings.tell(f"the run ended: {type(error).__name__}: {error}")
        finally:
            torture.fleet.kill_all()
    found = torture.findings
    longest = sorted(run.standstill.longest.values(), reverse=True)
    return {
        "handovers": run.done,
        "standstill_s_max": round(longest[0], 1) if longest else None,
        "sigterm_s_p50": share(sorted(run.readable_s), 0.5),
        "sigterm_s_p99": share(sorted(run.readable_s), 0.99),
        "events": torture.events,
        "answers": found.answers,
        "replays": torture.checks.oracle.replays,
        "lost": found.lost,
        "double": found.double,
        "stale": found.stale,
        "unexplained": found.unexplained,
        "seed": seed,
    }


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 31))
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    logging.disable(logging.CRITICAL)
    directory = Path(tempfile.mkdtemp(prefix="freshet-handover-"))
    figures = hand_over(given.times, given.seed, directory)
    is_wrong = any(figures[name] for name in ("lost", "double", "stale", "unexplained"))
    stood_s = figures["standstill_s_max"]
    is_wrong = is_wrong or not isinstance(stood_s, float) or stood_s > STANDSTILL_MAX_S
    if is_wrong:
        print(f"logs: {directory}", flush=True)
    else:
        shutil.rmtree(directory, ignore_errors=True)
    print(json.dumps(figures), flush=True)
    sys.stdout.flush()
    os._exit(1 if is_wrong else 0)


if __name__ == "__main__":
    main()
