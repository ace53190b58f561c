"""``make fuzz-http``: broken and described requests, clients that go away and clients that dribble, at a real worker.

The last line is one line of JSON; it ends with 1 if the worker failed, hung, or answered with another's values.
"""

import asyncio
import json
import random
import sys
import tempfile
from pathlib import Path

import typer

from tests.edge.cancelled import cancel_requests
from tests.edge.schema import ask_as_described
from tests.edge.slow import dribble
from tests.edge.sockets import send_bytes
from tests.edge.worker import open_worker, port_of

_SLOW_S = 10.0
"""Long enough to see what it costs others that they are closed."""
_CLOSED_S = 15.0
"""A few seconds more than the deadline of a request: this process dribbles a thousand of them itself."""


def main(cases: int = 50_000, cancelled: int = 100_000, slow: int = 1_000, seed: int = 0) -> None:
    """Try the edge.

    Args:
        cases: Requests, half of them as described and half of them broken on the wire.
        cancelled: Requests whose client goes away.
        slow: Connections that dribble.
        seed: The same seed gives the same requests; 0 draws one.
    """
    seed = seed or random.SystemRandom().randrange(1, 1 << 32)
    print(f"fuzz-http: seed {seed}", flush=True)
    with tempfile.TemporaryDirectory() as directory, open_worker(Path(directory)) as worker:
        port = port_of(worker)
        sockets = asyncio.run(send_bytes(port, cases - cases // 2, seed))
        print(f"{sockets.cases:,} broken requests", flush=True)
        gone = asyncio.run(cancel_requests(port, cancelled, seed))
        print(f"{gone.cancelled:,} cancelled requests", flush=True)
        dribbled = asyncio.run(dribble(port, slow, _SLOW_S))
        print(f"{dribbled.connections:,} slow connections", flush=True)
        described = ask_as_described(worker.base_url, cases // 2, seed)
        is_alive, log = worker.is_alive, worker.log.read_text(errors="replace")
    for finding in (*sockets.findings, *described.findings):
        print(finding)
    figures = {
        "cases": sockets.cases + described.cases,
        "server_errors": sockets.errors + described.errors,
        "hangs": sockets.hangs + described.hangs,
        "undescribed": described.undescribed,
        "cancelled": gone.cancelled,
        "answered": gone.answered,
        "foreign": gone.foreign,
        "failed": dict(gone.failed),
        "slow": dribbled.connections,
        "slow_closed_s": round(dribbled.closed_s, 1),
        "p99_ms": round(dribbled.p99_ms, 1),
        "p99_beside_slow_ms": round(dribbled.p99_beside_ms, 1),
        "statuses": dict(sorted(described.statuses.items())),
        "wire_statuses": dict(sorted(sockets.statuses.items())),
        "never_right": described.never_right,
        "traces": log.count("Traceback"),
        "seed": seed,
    }
    print(json.dumps(figures))
    wrong = ("server_errors", "hangs", "undescribed", "foreign", "failed", "never_right", "traces")
    is_answered = sockets.statuses[200] and sockets.statuses[400] and gone.answered
    is_closed = dribbled.closed_s < _CLOSED_S
    sys.exit(not (is_alive and is_answered and is_closed) or any(figures[name] for name in wrong))


if __name__ == "__main__":
    typer.run(main)
