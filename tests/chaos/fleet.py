"""The fleet: a few workers under fixed names, each started again when it has ended, as a supervisor would."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from app.worker_process import WorkerProcess
from tests.chaos.failpoints import DIRECTORY

RESTART_S, BACK_OFF_S = 0.5, 4.0
"""How long a supervisor waits before it starts a worker again, and how long if that one has ended by itself."""
EXPECTED_ENDS = (
    # By the rig.
    *("SIGKILL", "SIGTERM", "status 0"),
    # Replaced, or started at the same time as another one with new definitions.
    *("the group coordinator refused", "group 'item_activity' was applied", "group 'user_activity' was applied"),
    # At its start, while something that it needs is away.
    *("Kafka at ", "dynamodb table ", "FRESHET_REDIS: ", "FRESHET_RECORD: "),
    # librdkafka 2 ends the process when an administrator's request times out while its connection breaks.
    "SIGABRT: python: rdkafka_queue.h:1086: rd_kafka_enq_once_del_source_return",
)
"""How a worker may end, by the beginning of what it says."""
_POLL_S = 0.05
_STOP_S = 20.0


@dataclass(slots=True)
class Slot:
    """A place in the fleet.

    Attributes:
        name: Of the worker in its group, whichever process it is.
        wanted: Whether there shall be a worker.
        starts: How often one was started: with the name it names a process.
        next_start_at: When another one may be started, in monotonic seconds.
    """

    name: str
    port: int
    directory: Path
    wanted: bool = True
    worker: WorkerProcess | None = None
    starts: int = 0
    next_start_at: float = 0.0

    @property
    def process_name(self) -> str:
        return f"{self.name}-{self.starts}"

    @property
    def is_alive(self) -> bool:
        return self.worker is not None and self.worker.is_alive

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@dataclass
class Fleet:
    """Workers, and who starts them again.

    Attributes:
        settings: ``FRESHET_*`` settings that all have in common.
        exits: How often a process ended, by what it said last or the signal that ended it.
        strange: Ends that no fault explains.
    """

    settings: Mapping[str, str]
    directory: Path
    ports: list[int]
    slots: list[Slot] = field(default_factory=list)
    exits: Counter[str] = field(default_factory=Counter)
    strange: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for number, port in enumerate(self.ports):
            self.add(f"w{number}", port)

    def add(self, name: str, port: int, *, wanted: bool = True) -> Slot:
        """Add a place."""
        home = self.directory / name
        home.mkdir()
        self.slots.append(Slot(name, port, home, wanted))
        return self.slots[-1]

    @property
    def alive(self) -> list[Slot]:
        """Places with a process that runs, or stands still."""
        return [slot for slot in self.slots if slot.is_alive]

    async def supervise(self) -> None:
        """Start what shall run and does not, for ever."""
        while True:
            for slot in self.slots:
                if slot.worker is not None and not slot.worker.is_alive:
                    self._note_end(slot)
                if slot.wanted and slot.worker is None and time.monotonic() > slot.next_start_at:
                    self._start(slot)
            await asyncio.sleep(_POLL_S)

    def kill(self, slot: Slot, number: int = signal.SIGKILL) -> None:
        """Send a signal to a slot's process."""
        if slot.worker is not None:
            slot.worker.process.send_signal(number)

    async def stop(self) -> None:
        """End all workers, in order as far as they can."""
        for slot in self.slots:
            slot.wanted = False
            if slot.is_alive:
                self.kill(slot, signal.SIGCONT)
                self.kill(slot, signal.SIGTERM)
        await asyncio.gather(*(asyncio.to_thread(self._wait, slot) for slot in self.slots if slot.worker is not None))

    def kill_all(self) -> None:
        """End all workers now."""
        for slot in self.slots:
            if slot.worker is not None and slot.worker.is_alive:
                slot.worker.process.kill()
                slot.worker.process.wait()

    @staticmethod
    def _wait(slot: Slot) -> None:
        assert slot.worker is not None
        try:
            slot.worker.process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            slot.worker.process.kill()
            slot.worker.process.wait()

    def _start(self, slot: Slot) -> None:
        slot.starts += 1
        log = slot.directory / f"{slot.process_name}.log"
        environment = {
            **{
                name: value
                for name, value in os.environ.items()
                if not name.startswith("FRESHET_") and name != "PYTHONDONTWRITEBYTECODE"
            },
            **self.settings,
            "FRESHET_INSTANCE": slot.name,
            "FRESHET_WEB_PORT": str(slot.port),
            "FRESHET_EXIT_WITH_PARENT": "true",
            "FRESHET_TABLES": "disk" if slot.starts % 2 else "memory",
            "FRESHET_TABLES_DIR": str(self.directory / "tables"),
            # Compiled once, as in an image, instead of at each start.
            "PYTHONPYCACHEPREFIX": str(self.directory / "bytecode"),
            DIRECTORY: str(slot.directory),
        }
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "faust", "-A", "tests.chaos.worker", "worker", "-l", "info"],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        slot.worker = WorkerProcess(process, slot.base_url, log)

    def _note_end(self, slot: Slot) -> None:
        assert slot.worker is not None
        status = slot.worker.process.returncode
        told = f"status {status}"
        lines = slot.worker.log.read_text(errors="replace").splitlines()
        if status in (-signal.SIGKILL, -signal.SIGTERM):
            told = signal.Signals(-status).name
        elif status < 0:
            told = f"{signal.Signals(-status).name}: {lines[-1][:200] if lines else ''}"
        elif status > 0:
            said = [line for line in lines if "freshet: " in line]
            told = said[-1].partition("freshet: ")[2].removeprefix("worker ends: ") if said else "".join(lines[-1:])
            told = told[:200] or f"status {status}"
        self.exits[told] += 1
        if not told.startswith(EXPECTED_ENDS):
            self.strange.append(f"{slot.process_name} has ended: {told}")
        slot.worker = None
        slot.next_start_at = time.monotonic() + (RESTART_S if status <= 0 else BACK_OFF_S)
