"""Kills: a worker is killed at random or at a failpoint, and the time is taken until new events are readable again."""

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from tests.chaos.failpoints import NAMES
from tests.chaos.findings import Findings
from tests.chaos.fleet import Fleet, Slot
from tests.chaos.recovery import Probe

RANDOM = "random"
RECOVERY_LIMIT_S = 90.0
_HIT_S = 15.0
_POLL_S = 0.02
_PAUSE_S = (0.2, 2.0)
_UP_S = 20.0


@dataclass
class Killer:
    """Kills one worker after the other.

    Attributes:
        is_quiet: Whether no other fault is active: only then the recovery is the kill's alone.
        pause_s: Bounds of the time between two kills where there is more than kills.
    """

    fleet: Fleet
    probe: Probe
    findings: Findings
    chance: random.Random
    is_quiet: Callable[[], bool]
    pause_s: tuple[float, float]
    _bag: list[str] = field(default_factory=list)

    async def kill_one(self) -> None:
        """Kill a worker in the next way; wait until it has recovered, or a while where other faults hold it up."""
        slot = await self._wait_for_victim()
        if not self._bag:
            # As many at random as at two failpoints: those hit the same places again and again.
            self._bag = [*NAMES, RANDOM, RANDOM]
            self.chance.shuffle(self._bag)
        way = self._bag.pop()
        was_quiet = self.is_quiet()
        since = await (self._kill_at(slot, way) if way != RANDOM else self._kill(slot))
        if since is None:
            return
        if was_quiet:
            took_s = await self.probe.wait_readable(since, limit_s=RECOVERY_LIMIT_S)
            if self.is_quiet():
                self.findings.recovery_s.append(took_s)
                print(f"{slot.name} killed at {way}, new events readable after {took_s:.2f} s", flush=True)
        else:
            await self._wait(lambda: slot.is_alive, _UP_S)
        await asyncio.sleep(self.chance.uniform(*(_PAUSE_S if was_quiet else self.pause_s)))

    async def _wait_for_victim(self) -> Slot:
        while not self.fleet.alive:  # noqa: ASYNC110  # a process tells nobody that it lives
            await asyncio.sleep(_POLL_S)
        return self.chance.choice(self.fleet.alive)

    async def _kill(self, slot: Slot) -> float | None:
        process = slot.process_name
        self.fleet.kill(slot)
        self.findings.kills += 1
        self.findings.faults["kill"] += 1
        since = time.monotonic()
        await self._wait(lambda: slot.process_name != process or not slot.is_alive, _HIT_S)
        return since

    async def _kill_at(self, slot: Slot, name: str) -> float | None:
        """Arm a failpoint and wait until it is hit; None if it is not, within 15 s."""
        arm, hit = slot.directory / f"arm-{name}", slot.directory / f"hit-{name}"
        hit.unlink(missing_ok=True)
        arm.touch()
        if name == "in_recovery":
            await self._kill(slot)
        if not await self._wait(hit.exists, _HIT_S):
            with suppress(FileNotFoundError):
                arm.unlink()
                return None
        since = time.monotonic()
        self.findings.kills += 1
        self.findings.faults["kill at failpoint"] += 1
        self.findings.failpoints[name] += 1
        return since

    @staticmethod
    async def _wait(condition: Callable[[], bool], limit_s: float) -> bool:
        deadline = time.monotonic() + limit_s
        while not condition():
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(_POLL_S)
        return True
