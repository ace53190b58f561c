"""A worker whose edge is tried: every user's number is the user, so an answer that belongs to somebody else is seen."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from app.worker_process import WorkerProcess, start_worker
from bench.serving.servers import push_rows
from bench.serving.wire import request
from services.server_process import free_ports

FEATURE = "g0:g0_items_1h"


@contextmanager
def open_worker(directory: Path) -> Iterator[WorkerProcess]:
    """Run a worker with everything embedded and without local copies: each read waits for Redis, and may be cancelled."""
    (port,) = free_ports(1)
    environment = {
        "FRESHET_REGISTRY": "bench.serving.domain:REGISTRY",
        "FRESHET_LOCAL_BYTES_MAX": "0",
        "FRESHET_PAGE_PORT": "0",
    }
    worker = start_worker(environment, web_port=port, log=directory / "worker.log")
    try:
        worker.wait_ready(deadline_s=60)
        push_rows(worker.base_url)
        yield worker
    finally:
        worker.stop()


def port_of(worker: WorkerProcess) -> int:
    """Return where a worker listens."""
    return int(worker.base_url.rpartition(":")[2])


def request_of(user: int) -> bytes:
    """Return a request for a user's number, as it stands on the wire."""
    return request([user], [FEATURE])


def is_of(user: int, body: bytes) -> bool:
    """Whether an answer is the user's."""
    told: dict[str, Any] = json.loads(body)
    asked, number = (result["values"] for result in told["results"])
    return asked == [user] and number == [user]
