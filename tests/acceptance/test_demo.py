"""The demo as a user runs it: a command in some directory, its figures, and nothing left of it afterwards."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from demo.figures import read_figures
from tests.acceptance.conftest import free_port, until

FRESHET = Path(sys.executable).with_name("freshet")
MARK = "TEST_RUN"
STOP_DEADLINE_S = 3.0
FIGURES = {
    "events", "applied", "duplicates", "late", "dead_letters", "values_checked", "values_wrong", "events_per_s",
    "freshness_ms_p50", "freshness_ms_p99", "read_ms_p50", "read_ms_p99",
}  # fmt: skip


class Run:
    """A started demo whose processes bear a mark, so that each is found, whoever its parent is by then."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.directory = directory
        self.port = free_port()
        self._mark = uuid.uuid4().hex
        scratch = directory.with_name(f"{directory.name}-tmp")
        directory.mkdir()
        scratch.mkdir()
        self.scratch = scratch
        # A session of its own, so that the signal of a test reaches this process alone, as Ctrl-C does its children.
        self.process = subprocess.Popen(
            [FRESHET, "demo", *arguments],
            cwd=directory,
            env={**os.environ, MARK: self._mark, "TMPDIR": str(scratch), "FRESHET_WEB_PORT": str(self.port)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def processes(self) -> Iterator[psutil.Process]:
        """Yield what runs of it."""
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self._mark and process.status() != psutil.STATUS_ZOMBIE:
                    yield process
            except (psutil.Error, OSError):
                continue

    def worker(self) -> psutil.Process | None:
        """Return the process of the worker, if it runs."""
        return next((one for one in self.processes() if "app.worker" in one.cmdline()), None)

    def is_loading(self) -> bool:
        """Whether the worker has counted a good many events: the busiest moment to be stopped in."""
        worker = self.worker()
        try:
            port = worker.environ()["FRESHET_WEB_PORT"] if worker is not None else self.port
            return read_figures(f"http://127.0.0.1:{port}").accounted > 1_000
        except OSError:
            assert self.process.poll() is None, self.process.communicate()
            return False

    def left(self) -> list[str]:
        """Return what a run left behind: processes, files."""
        files = [path for place in (self.directory, self.scratch) for path in place.rglob("*")]
        return [" ".join(one.cmdline()) for one in self.processes()] + list(map(str, files))

    def end(self) -> None:
        """End whatever is left."""
        for one in self.processes():
            one.kill()
        self.process.communicate()


@pytest.fixture
def start(tmp_path):
    runs = []

    def start(*arguments: str) -> Run:
        runs.append(Run(tmp_path / f"run{len(runs)}", *arguments))
        return runs[-1]

    yield start
    for run in runs:
        run.end()


def test_the_demo_serves_every_value_right_and_leaves_nothing_behind(start):
    """
    The one figure that matters is zero: of all values that two days of real events touch, none is wrong.
    """
    run = start("--exit", "--json")

    out, err = run.process.communicate(timeout=120)

    figures = json.loads(out)
    assert run.process.returncode == 0
    assert [line.split()[0] for line in dict.fromkeys(err.splitlines())][-3:] == ["playing", "reading", "done"]
    assert err.startswith("Starting ")
    assert "loading two days of events: " in err
    assert len(out.splitlines()) == 1
    assert set(figures) == FIGURES
    assert {name: figures[name] for name in list(figures)[:7]} == {
        "events": 52_473,
        "applied": 51_781,
        "duplicates": 692,
        "late": 0,
        "dead_letters": 0,
        "values_checked": 498_751,
        "values_wrong": 0,
    }
    assert figures["events_per_s"] > 0
    for name in ("freshness_ms", "read_ms"):
        assert 0 < figures[f"{name}_p50"] <= figures[f"{name}_p99"]
    assert run.left() == []


def test_ctrl_c_stops_everything_within_three_seconds(start):
    """
    In the middle of the load too, when the worker has most to do; no process, no file is left.
    """
    run = start()
    until(run.is_loading, "the load has begun", deadline_s=30)
    names = " ".join(" ".join(one.cmdline()) for one in run.processes())
    running = json.loads((run.directory / ".freshet" / "running.json").read_text())

    pressed = time.monotonic()
    run.process.send_signal(signal.SIGINT)
    out, err = run.process.communicate(timeout=30)
    stopped_s = time.monotonic() - pressed

    assert all(name in names for name in ("freshet", "services.embedded", "app.worker"))
    assert running["base_url"] == f"http://127.0.0.1:{run.port}"
    assert (run.process.returncode, err) == (130, "")
    assert "loading two days of events: " in out
    assert f"curl -s http://127.0.0.1:{run.port}/get-online-features" in out
    assert stopped_s < STOP_DEADLINE_S
    assert run.left() == []


def test_a_demo_that_is_killed_takes_its_processes_along(start):
    """
    After kill -9 nobody is there to clean up: each process notices by itself that it is alone.
    """
    run = start()
    until(run.is_loading, "the load has begun", deadline_s=30)
    assert len(list(run.processes())) >= 3

    run.process.kill()
    run.process.wait()

    until(lambda: not list(run.processes()), "every process has ended", deadline_s=5)
    assert list(run.scratch.iterdir()) == []


def test_services_that_die_end_the_demo_with_a_reason(start):
    """
    The screen stood still for ever: no event came, and everything that still ran said that it was well.
    """
    run = start()
    until(run.is_loading, "the load has begun", deadline_s=30)
    (services,) = [one for one in run.processes() if "services.embedded" in one.cmdline()]

    services.kill()
    _, err = run.process.communicate(timeout=30)

    assert run.process.returncode == 2
    assert err.startswith("freshet: the embedded broker and Redis are gone: their process ended with status -9")
    assert "Traceback" not in err
    until(lambda: run.left() == [], "nothing is left", deadline_s=5)


def test_a_worker_that_dies_ends_the_demo_with_its_log(start):
    """
    Whoever runs the demo is told that the worker is gone and what it said last; requests that were cut off besides
    came first once, as a trace.
    """
    run = start("--exit")
    until(run.is_loading, "the load has begun", deadline_s=30)
    worker = run.worker()
    assert worker is not None

    worker.kill()
    out, err = run.process.communicate(timeout=30)

    assert (run.process.returncode, out) == (2, "")
    assert "\nfreshet: the worker ended in the middle of the demo" in err
    assert "partitions taken over" in err
    assert "Traceback" not in err
    assert run.left() == []
