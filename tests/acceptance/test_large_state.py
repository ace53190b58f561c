"""A worker that keeps its tables on disk: what it serves does not depend on what becomes of that disk."""

import json
import os
import signal
from collections import Counter
from itertools import count

from app.worker_process import WorkerProcess, start_worker
from tests.acceptance.conftest import environment_of, free_port, read_values, until
from tests.acceptance.kafka import now_ms

USERS = range(1, 501)
CLICKS = "user_engagement:clicks_1h"


def test_a_worker_with_its_tables_on_disk_is_killed_and_goes_on_exactly(services, sender, tmp_path):
    """
    Its disk is no copy of anything: the next worker removes what is there and restores all from the changelogs.
    """
    tables, counts = tmp_path / "tables", Counter[int]()
    numbers = count()
    environment = environment_of(services) | {
        "FRESHET_TABLES": "disk",
        "FRESHET_TABLES_DIR": str(tables),
        "FRESHET_INSTANCE": "one",
        "FRESHET_SESSION_TIMEOUT_MS": "6000",
    }

    def start(number: int) -> WorkerProcess:
        return start_worker(environment, web_port=free_port(), log=tmp_path / f"{number}.log")

    def click(*users: int) -> None:
        fields = {"video_id": 1, "tab": 0, "time_ms": now_ms()}
        sender.send(
            "clicks",
            *(json.dumps({"event_id": f"e{next(numbers)}", "user_id": user} | fields).encode() for user in users),
        )
        counts.update(users)

    def are_counted(worker: WorkerProcess) -> bool:
        return read_values(worker.base_url, {"user_id": list(USERS)}, CLICKS) == [[counts[user] for user in USERS]]

    worker = start(1)
    try:
        worker.wait_ready()
        click(*USERS, *USERS[:50])
        until(lambda: are_counted(worker), "all are counted")
        click(*USERS[::2])
        os.killpg(worker.process.pid, signal.SIGKILL)
        worker.process.wait()
        left = {path.name for path in (tables / "worker-0").iterdir()}

        worker = start(2)
        worker.wait_ready()
        click(*USERS[::3])
        until(lambda: are_counted(worker), "all are counted once")
        assert left == {"0"}
        assert {path.name for path in tables.iterdir()} == {"worker-0", "worker-0.lock"}
        assert {path.name for path in (tables / "worker-0").iterdir()} == left
        worker.process.terminate()
        worker.wait_end(deadline_s=15)
        assert [path.name for path in tables.iterdir()] == ["worker-0.lock"]
    finally:
        worker.stop()
