"""A world: runs a schedule to its end, lets it heal, and tells what is wrong then."""

import asyncio
import random
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from aiokafka import TopicPartition

from core.ports import RowKey
from stores.memory import MemoryStore
from tables.engine import Engine, in_memory
from tests.engines import disk_engine
from tests.simulation.broker import Broker, Item
from tests.simulation.checks import check
from tests.simulation.group import Group
from tests.simulation.loop import StuckError, VirtualLoop
from tests.simulation.network import Network
from tests.simulation.schedule import Arrival, Fault, Schedule
from tests.simulation.worker import INPUTS, Outside, WallClock, Worker

_SETTLE_S = 240.0
_LOOK_S = 1.0
_MEND_S = 7.0
"""More than the time between two looks of a worker at its changelogs: what landed in them late is written again."""

_EXPECTED_ENDS = ("the group coordinator refused",)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a schedule.

    Attributes:
        wrong: What is not as it must be.
        steps: Steps of processes and of the network; between any two of them a process may die.
        trace: Of what arrived when, and of every byte of every log: two runs of one schedule have the same.
        faults: How often each kind of fault came about.
    """

    wrong: tuple[str, ...]
    steps: int
    trace: int
    faults: Counter[str]


async def _open_on_disk() -> Engine:
    return disk_engine()


def run(schedule: Schedule) -> Outcome:
    """Run a schedule."""
    world = World(schedule)
    return world.run()


class World:
    """Everything that lives while a schedule runs."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._loop = loop = VirtualLoop()
        self.wrong: list[str] = []
        chance = random.Random(schedule.seed ^ 0x5EED)  # noqa: S311  # the same every time
        self._network = Network(loop, chance, loss=schedule.loss, late=schedule.late, latest_s=schedule.size.latest_s)
        self._true_clock = WallClock(loop, 0)
        self.outside = Outside(
            loop,
            self._network,
            Broker(),
            Group(loop, INPUTS),
            MemoryStore(self._true_clock),
            MemoryStore(self._true_clock),
            self.wrong,
            _open_on_disk if schedule.on_disk else in_memory,
        )
        self._clocks = [WallClock(loop, skew_ms) for skew_ms in schedule.skews_ms]
        self._workers: list[Worker] = []
        self._started = 0
        self._is_healing = False
        self._faults: Counter[str] = Counter()
        self._back_at: dict[int, float] = {}
        self.lost_copies: dict[RowKey, bytes] = {}

    def run(self) -> Outcome:
        """Run to the end, and check."""
        loop = self._loop
        try:
            loop.run_until(loop.create_task(self._drive()))
            self.wrong += check(self.outside, self._true_clock.now_ms(), lost_copies=self.lost_copies)
        except StuckError as error:
            self.wrong.append(f"it does not end: {error}")
        except Exception as error:  # noqa: BLE001  # whatever it is, its seed must be told
            self.wrong.append(f"{type(error).__name__}: {error}")
        return Outcome(tuple(self.wrong), loop.steps, self._trace(), self._faults)

    def _trace(self) -> int:
        trace = self._network.trace
        for tp, log in sorted(self.outside.broker.logs.items()):
            for entry in log.entries:
                trace = zlib.crc32(f"{tp} {entry.offset} {entry.timestamp}".encode() + (entry.value or b""), trace)
        return trace

    async def _drive(self) -> None:
        loop, schedule = self._loop, self._schedule
        for number in range(schedule.workers):
            self._workers.append(self._new_worker(number))
        for arrival in schedule.arrivals:
            loop.later(arrival.at_s, self._write, arrival)
        for fault in schedule.faults:
            loop.later(fault.at_s, self._fail, fault)
        while loop.time() < schedule.size.heal_s:
            await asyncio.sleep(_LOOK_S)
            self._look_after()
        self._heal()
        await self._settle()

    # -- what happens

    def _write(self, arrival: Arrival) -> None:
        item = Item(None, arrival.value, (), arrival.time_ms)
        self.outside.broker.append(TopicPartition(arrival.topic, arrival.partition), [item])

    def _fail(self, fault: Fault) -> None:
        worker = self._workers[fault.worker]
        if fault.kind in ("kill", "stop", "leave") and not (worker.is_alive and not worker.process.is_stopped):
            return
        self._faults[fault.kind] += 1
        match fault.kind:
            case "kill":
                self._loop.kill(worker.process)
                self._come_back(fault)
            case "stop":
                self._loop.stop_process(worker.process)
                self._loop.later(fault.for_s, self._loop.resume, worker.process)
            case "leave":
                self._loop.start(worker.process, _call(worker.member.leave))
                self._come_back(fault)
            case "cache lost":
                self._network.restart("cache")
                self.lost_copies |= {key: row.value for key, row in self.outside.cache._rows.items()}
                self.outside.cache._rows.clear()
            case "clock jumps":
                self._clocks[fault.worker].skew_ms += 300_000 if fault.for_s < 1 else -300_000
            case "compaction":
                for tp, log in self.outside.broker.logs.items():
                    if tp.topic.endswith(".changelog"):
                        log.compact()
            case _:
                self._network.cut_until[fault.kind.removesuffix(" away")] = self._loop.time() + fault.for_s

    def _come_back(self, fault: Fault) -> None:
        self._back_at[fault.worker] = self._loop.time() + fault.for_s
        self._loop.later(fault.for_s, self._restart, fault.worker)

    def _restart(self, number: int) -> None:
        if not self._workers[number].is_alive:
            self._bury(number)
            self._workers[number] = self._new_worker(number)

    def _look_after(self) -> None:
        """Start again whoever has ended by itself or took its time to leave, as a supervisor does."""
        self.outside.group.expire()
        for number, worker in enumerate(self._workers):
            if not worker.is_alive and (worker.last_words or self._loop.time() > self._back_at.get(number, 0.0)):
                self._restart(number)

    def _bury(self, number: int) -> None:
        words = self._workers[number].last_words
        if words and not words.startswith(_EXPECTED_ENDS):
            self.wrong.append(f"worker {number} has ended: {words}")

    def _new_worker(self, number: int) -> Worker:
        self._started += 1
        worker = Worker(
            self.outside,
            name=f"w{number}.{self._started}",
            number=self._started,
            instance=f"w{number}" if self._schedule.is_static else "",
            clock=self._clocks[number],
        )
        worker.start()
        return worker

    # -- the end

    def _heal(self) -> None:
        self._network.cut_until.clear()
        self._network.loss = self._network.late = 0.0
        for number, worker in enumerate(self._workers):
            if worker.process.is_stopped:
                self._loop.resume(worker.process)
            self._restart(number)

    async def _settle(self) -> None:
        """Wait until there is nothing left to do, and what landed late in the changelogs was seen."""
        until = self._loop.time() + _SETTLE_S
        settled_at = None
        while self._loop.time() < until:
            await asyncio.sleep(_LOOK_S)
            self._look_after()
            if not self._is_settled() or self._loop.time() < self._late_until():
                settled_at = None
            elif settled_at is None:
                settled_at = self._loop.time()
            if settled_at is not None and self._loop.time() - settled_at >= self._mend_s:
                for number in range(len(self._workers)):
                    self._bury(number)
                return
        raise StuckError(f"not settled {_SETTLE_S:.0f} s after everything was well: {self._left()}")

    @property
    def _mend_s(self) -> float:
        return _MEND_S if self._network.was_late else 0.0

    def _late_until(self) -> float:
        return self._late_s if self._is_healing else self._note_late()

    def _note_late(self) -> float:
        self._is_healing = True
        self._late_s = self._network.last_arrival_s
        return self._late_s

    def _is_settled(self) -> bool:
        # What was committed once counts, not what is: a late request may have set that back, which costs nothing but a
        # replay.
        logs = self.outside.broker.logs
        finished = {tp: worker.owned.finished(tp) for worker in self._workers for tp in worker.owned.ready}
        return (
            self.outside.group.is_stable
            and all(self.outside.group.furthest.get(tp, 0) >= logs[tp].end for tp in INPUTS)
            and len(finished) == len(INPUTS)
            and all(end >= logs[tp].end for tp, end in finished.items())
            and all(worker.is_settled for worker in self._workers)
        )

    def _left(self) -> str:
        group, logs = self.outside.group, self.outside.broker.logs
        lag = {
            f"{tp.topic}[{tp.partition}]": logs[tp].end - group.committed.get(tp, 0)
            for tp in INPUTS
            if logs[tp].end > group.committed.get(tp, 0)
        }
        owned = {
            worker.process.name: (worker.is_alive, len(worker.owned.ready), worker.debt.owed)
            for worker in self._workers
        }
        return f"lag {lag}, workers {owned}, group {group.generation} {group.owners}"


async def _call(function: Callable[[], None]) -> None:
    function()
