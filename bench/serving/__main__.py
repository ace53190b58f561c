"""``make bench-serving``: requests per second of one core, ours beside Feast's in one run; last, one line of JSON.

Cases take turns, each server has its own core and the load generator the other; medians of the rounds count. Then rows
expire under the readers of four workers, as in ``make bench-faults``: how often is each read in the record?
"""

import asyncio
import json
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

from bench.faults.expiry import EXPIRIES, PROCESSES, READERS, count_loads
from bench.faults.ground import open_ground
from bench.serving.domain import USERS
from bench.serving.load import Load, bodies, pace, saturate
from bench.serving.servers import FEASTS, OURS, feast, freshet, wait_idle
from core.errors import ConfigurationError

_SERVER_CORE, _LOAD_CORE = 0, 1
_SHARE = 0.7


def main(rounds: int = 3, seconds: int = 5) -> None:
    """Measure.

    Args:
        rounds: How often each case is measured.
        seconds: How long each time.
    """
    loads: defaultdict[str, list[Load]] = defaultdict(list)
    try:
        with tempfile.TemporaryDirectory() as directory:
            _measure(Path(directory), loads, rounds=rounds, seconds=seconds)
    except ConfigurationError as error:
        sys.exit(f"bench: {error}")
    rps = {case: round(statistics.median(load.rps for load in some)) for case, some in loads.items()}
    Console(width=100).print(_table(loads, rps))
    with open_ground(serving=PROCESSES) as ground:
        expiry = asyncio.run(count_loads(ground, readers=READERS, expiries=EXPIRIES))
    figures = {
        "local_1_rps": rps["local, 1 entity"],
        "local_100_rps": rps["local, 100 entities"],
        "redis_1_rps": rps["redis, 1 entity"],
        "redis_100_rps": rps["redis, 100 entities"],
        "x_feast_1": round(rps["local, 1 entity"] / rps["feast, 1 entity"], 1),
        "x_feast_100": round(rps["local, 100 entities"] / rps["feast, 100 entities"], 1),
        "p99_ms_at_70": round(statistics.median(load.p99_ms for load in loads["local, 1 entity, at 70 %"]), 2),
        "loads_per_expiry": round(expiry.mean, 2),
        "failed": sum(load.failed for case, some in loads.items() if "feast" not in case for load in some),
    }
    sys.stdout.write(json.dumps(figures) + "\n")
    sys.exit(figures["failed"] > 0)


def _measure(directory: Path, loads: dict[str, list[Load]], *, rounds: int, seconds: int) -> None:
    with (
        freshet(directory, core=_SERVER_CORE, other=_LOAD_CORE, copies=True) as local,
        freshet(directory, core=_SERVER_CORE, other=_LOAD_CORE, copies=False) as remote,
        feast(directory, core=_SERVER_CORE) as peer,
    ):
        for _ in range(rounds):
            for entities in (1, 100):
                of_ours, of_feast = (bodies(asked, users=USERS, entities=entities) for asked in (OURS, FEASTS))
                told = f"{entities} {'entity' if entities == 1 else 'entities'}"
                ask = _asker(seconds, connections=32 if entities == 1 else 8)
                loads[f"local, {told}"].append(ask(local, of_ours))
                if entities == 1:
                    rate = int(loads[f"local, {told}"][-1].rps * _SHARE)
                    loads[f"local, {told}, at 70 %"].append(
                        pace(local, of_ours[0], rps=rate, connections=16, seconds=seconds, core=_LOAD_CORE)
                    )
                loads[f"redis, {told}"].append(ask(remote, of_ours))
                loads[f"feast, {told}"].append(ask(peer, of_feast))


def _asker(seconds: int, *, connections: int) -> Callable[[str, list[bytes]], Load]:
    def ask(base_url: str, wanted: list[bytes]) -> Load:
        wait_idle(_SERVER_CORE)
        # The first requests bring copies into place and are nobody's figure.
        saturate(base_url, wanted, connections=connections, seconds=1, core=_LOAD_CORE)
        return saturate(base_url, wanted, connections=connections, seconds=seconds, core=_LOAD_CORE)

    return ask


def _table(loads: dict[str, list[Load]], rps: dict[str, int]) -> Table:
    table = Table(title="50 features in 5 groups")
    for name in ("case", "requests/s", "least - most", "p50 ms", "p99 ms", "failed", "x Feast"):
        table.add_column(name, no_wrap=True, justify="left" if name == "case" else "right")
    for case, some in loads.items():
        each = sorted(load.rps for load in some)
        _, told = case.split(", ", 1)
        peer = rps.get(f"feast, {told}")
        table.add_row(
            case,
            f"{rps[case]:,}",
            f"{each[0]:,.0f} - {each[-1]:,.0f}",
            f"{statistics.median(load.p50_ms for load in some):.2f}",
            f"{statistics.median(load.p99_ms for load in some):.2f}",
            str(sum(load.failed for load in some)),
            f"{rps[case] / peer:.1f}" if peer else "",
        )
    return table


if __name__ == "__main__":
    typer.run(main)
