"""A peer's run: its script in an environment of the peers' own, in a process of its own on one core."""

import json
import os
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from bench.w1 import Spent
from tests.feast.environment import locked_python

_HERE = Path(__file__).parent
_DEADLINE_S = 600


class PeerError(Exception):
    """A peer did not come to its end."""


@dataclass(frozen=True, slots=True)
class PeerRun:
    """What a peer told of its run.

    Attributes:
        seconds: From the first event to the last.
        cpu_s: CPU time in between, of all its threads.
        answers: By user.
    """

    seconds: float
    cpu_s: float
    peak_bytes: int
    answers: dict[int, Spent]


@cache
def peers_python() -> Path:
    """Return the interpreter of their environment: 200 MB, a minute if it must be made."""
    return locked_python("peers", _HERE / "requirements.lock")


def run_peer(script: str, variant: str, *, broker: str, topic: str, events: int, window_ms: int, core: int) -> PeerRun:
    """Run a peer over a topic.

    Args:
        script: Its module here.
        variant: What the script takes as its second argument.
        broker: ``host:port``.
        topic: Of purchases.
        events: How many are in it.
        window_ms: Start of the window to answer for.
        core: That it is pinned to.

    Raises:
        PeerError: It failed or took too long; the message has the end of what it said.
    """
    with tempfile.TemporaryDirectory() as directory:
        job = {"broker": broker, "topic": topic, "events": events, "window_ms": window_ms, "directory": directory}
        log = Path(directory) / "log"
        with log.open("wb") as complaints:
            process = subprocess.Popen(
                [peers_python(), _HERE / f"{script}.py", json.dumps(job), variant],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=complaints,
                cwd=directory,
            )
            # Before it has threads: they inherit it.
            os.sched_setaffinity(process.pid, {core})
            try:
                told = process.communicate(timeout=_DEADLINE_S)[0].decode(errors="replace").strip()
            except subprocess.TimeoutExpired as error:
                raise PeerError(f"{script} {variant}: not done after {_DEADLINE_S} s") from error
            finally:
                process.kill()
                process.wait()
        try:
            return _parse(told.splitlines()[-1])
        except (IndexError, ValueError, KeyError) as error:
            raise PeerError(f"{script} {variant}: {log.read_text(errors='replace')[-2_000:]}{told[-500:]}") from error


def _parse(line: str) -> PeerRun:
    told: dict[str, Any] = json.loads(line)
    answers = {int(user): Spent(*answer) for user, answer in told["answers"].items() if answer is not None}
    return PeerRun(told["seconds"], told["cpu_s"], told["peak_bytes"], answers)
