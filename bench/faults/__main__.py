"""``make bench-faults``: what readers feel while something is wrong; last, one line of JSON."""

import asyncio
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from bench.faults.away import watch_away
from bench.faults.expiry import EXPIRIES, PROCESSES, READERS, count_loads
from bench.faults.ground import open_ground
from bench.faults.overload import overload
from bench.faults.staleness import measure


def main(
    readers: int = READERS,
    expiries: int = EXPIRIES,
    reads: int = 1_000_000,
    rps: float = 100.0,
    seconds: int = 5,
    only: str = "",
) -> None:
    """Measure.

    Args:
        readers: Connections that always ask while rows expire.
        expiries: How many rows expire one by one.
        reads: Values that are read to see how old they are.
        rps: Requests per second for them, of 100 values each.
        seconds: How long each overload lasts.
        only: Cases with this in their names alone.
    """
    found: dict[str, Any] = {}
    with open_ground(serving=PROCESSES) as ground:
        cases: dict[str, Callable[[], Any]] = {
            "staleness": lambda: asyncio.run(measure(ground, reads=reads, rps=rps)),
            "redis killed": lambda: asyncio.run(watch_away(ground, end=ground.kill_redis, heal=ground.restart_redis)),
            "redis blackholed": lambda: asyncio.run(
                watch_away(ground, end=ground.pause_redis, heal=ground.resume_redis)
            ),
            "expiry": lambda: asyncio.run(count_loads(ground, readers=readers, expiries=expiries)),
        }
        _run(cases, only, found)
    with open_ground(serving=1) as ground:
        cases = {
            "overload, 100 from redis": lambda: overload(ground, entities=100, local=False, seconds=seconds),
            "overload, 1 local": lambda: overload(ground, entities=1, local=True, seconds=seconds),
        }
        _run(cases, only, found)
    Console().print(_table(found))
    sys.stdout.write(json.dumps({case: _rounded(one) for case, one in found.items()}) + "\n")


def _run(cases: Mapping[str, Callable[[], Any]], only: str, found: dict[str, Any]) -> None:
    for case, measured in cases.items():
        if only in case:
            found[case] = measured()
            _tell(case, found)


def _tell(case: str, found: dict[str, Any]) -> None:
    sys.stderr.write(f"{case}: {_rounded(found[case])}\n")


def _rounded(one: Any) -> dict[str, Any]:
    return {name: round(value, 2) if isinstance(value, float) else value for name, value in asdict(one).items()}


def _table(found: dict[str, Any]) -> Table:
    table = Table("case", "figure", "value", title="What readers feel")
    for case, one in found.items():
        for number, (name, value) in enumerate(_rounded(one).items()):
            table.add_row("" if number else case, name, f"{value:,}")
        table.add_section()
    return table


if __name__ == "__main__":
    typer.run(main)
