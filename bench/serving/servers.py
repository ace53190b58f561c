"""The servers: a worker of ours and Feast's own, each in a process of its own on one core, with as many rows."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil

from app.worker_process import start_worker
from bench.serving.domain import GROUPS, REGISTRY, USERS
from services.server_process import free_ports
from tests.feast.environment import feast_python

_DEADLINE_S = 90.0
_ROWS_PER_PUSH = 500
_POLL_S = 0.2
_LOOK_S, _IDLE_PERCENT = 0.5, 30

OURS: dict[str, Any] = {"feature_service": "all"}
FEASTS: dict[str, Any] = {
    "features": [f"g{group}:g{group}_f{number}" for group in range(GROUPS) for number in range(10)]
}


@contextmanager
def freshet(directory: Path, *, core: int, other: int, copies: bool) -> Iterator[str]:
    """Run a worker with everything embedded; yield where it serves, once it has the rows.

    Args:
        directory: For its log.
        core: That it is pinned to.
        other: That its Redis and broker are pinned to, beside whoever asks.
        copies: Whether it keeps local copies; without, every read goes to Redis.
    """
    (port,) = free_ports(1)
    environment = {
        "FRESHET_REGISTRY": "bench.serving.domain:REGISTRY",
        "FRESHET_LOCAL_BYTES_MAX": str(256 << 20) if copies else "0",
        "FRESHET_PAGE_PORT": "0",
    }
    worker = start_worker(environment, web_port=port, log=directory / f"freshet-{copies}.log")
    try:
        worker.wait_ready(deadline_s=_DEADLINE_S)
        push_rows(worker.base_url)
        process = psutil.Process(worker.process.pid)
        _pin(process, core)
        for child in process.children(recursive=True):
            _pin(child, other)
        yield worker.base_url
    finally:
        worker.stop()


def push_rows(base_url: str) -> None:
    """Push an event of each user, and wait until all can be read."""
    now_ms = time.time_ns() // 1_000_000
    with httpx.Client(base_url=base_url, timeout=30) as client:
        for first in range(0, USERS, _ROWS_PER_PUSH):
            users = list(range(first, min(first + _ROWS_PER_PUSH, USERS)))
            frame = {
                "event_id": [f"e{user}" for user in users],
                "time_ms": [now_ms] * len(users),
                "user_id": users,
                "seconds": [user * 1.5 for user in users],
                "items": users,
            }
            client.post("/push", json={"push_source_name": "visits", "df": frame}).raise_for_status()
        last = REGISTRY.groups[-1].name
        request = {"entities": {"user_id": list(range(USERS))}, "features": [f"{last}:{last}_visits_1h"]}
        deadline = time.monotonic() + _DEADLINE_S
        while set(client.post("/get-online-features", json=request).json()["results"][1]["values"]) != {1}:
            if time.monotonic() > deadline:
                raise TimeoutError("the rows cannot be read")
            time.sleep(_POLL_S)


@contextmanager
def feast(directory: Path, *, core: int) -> Iterator[str]:
    """Run Feast's server on a SQLite online store with as many rows and features; yield where it serves."""
    python = feast_python()
    repository = directory / "feast"
    repository.mkdir()
    subprocess.run(
        [python, Path(__file__).with_name("feast_repo.py"), repository, str(USERS)],
        check=True, timeout=300, capture_output=True,
    )  # fmt: skip
    (port,) = free_ports(1)
    base_url = f"http://127.0.0.1:{port}"
    with (directory / "feast.log").open("wb") as log:
        process = subprocess.Popen(
            [python.with_name("feast"), "-c", repository, "serve", "--host", "127.0.0.1", "--port", str(port),
             "--no-access-log"],
            stdout=log, stderr=log, start_new_session=True, env={**os.environ, "FEAST_USAGE": "False"},
        )  # fmt: skip
    try:
        _wait_for(f"{base_url}/health")
        server = psutil.Process(process.pid)
        for part in (server, *server.children(recursive=True)):
            _pin(part, core)
        yield base_url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def wait_idle(core: int) -> None:
    """Wait until a core has little to do: Feast's server goes on answering after its clients have gone.

    Raises:
        TimeoutError: It does not come to rest.
    """
    deadline = time.monotonic() + _DEADLINE_S
    while psutil.cpu_percent(interval=_LOOK_S, percpu=True)[core] > _IDLE_PERCENT:
        if time.monotonic() > deadline:
            raise TimeoutError(f"core {core} does not come to rest: something else uses it")


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + _DEADLINE_S
    while True:
        try:
            if httpx.get(url, timeout=2).status_code == httpx.codes.OK:
                return
        except httpx.HTTPError:
            pass
        if time.monotonic() > deadline:
            raise TimeoutError(f"{url} does not answer")
        time.sleep(_POLL_S)


def _pin(process: psutil.Process, core: int) -> None:
    """Keep a process and its threads on one core."""
    if sys.platform == "linux":
        for thread in process.threads():
            os.sched_setaffinity(thread.id, {core})
