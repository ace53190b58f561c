"""``freshet cache``: choose policies and sizes by what one's own reads would have met."""

import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import plotext
import typer
from rich.console import Console
from rich.table import Table

from app.settings import load_settings
from core.definitions import FeatureGroup, ServingPolicy
from core.errors import ConfigurationError
from core.windows import seconds
from serving.cache_model import Access, Outcome, Sizes, run_model
from serving.reads_log import FIELDS

cli = typer.Typer(no_args_is_help=True, help="What caches are worth: replay a log of reads against policies.")
out = Console()

_TIERS = ("local", "redis", "record")
_ROW_BYTES = 500
_SCALES = (1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 2, 4)
_MB = 1 << 20


@cli.callback()
def cache() -> None:
    """Choose policies and sizes by what one's own reads would have met."""


@cli.command()
def simulate(
    log: Annotated[Path, typer.Argument(help="CSV with time_ms,op,group,key,bytes; FRESHET_READS_LOG writes one.")],
    *,
    share: Annotated[float, typer.Option(min=1e-6, max=1, help="Of all keys that are in the log.")] = 1.0,
    local_mb: Annotated[float, typer.Option(min=0, help="Copies in each worker.")] = 64,
    redis_mb: Annotated[float, typer.Option(min=0, help="All Redis servers.")] = 1024,
    workers: Annotated[int, typer.Option(min=1, help="Workers that aggregate and serve.")] = 1,
    soft_ttl_s: Annotated[float | None, typer.Option(min=0, help="Instead of what the groups declare.")] = None,
    hard_ttl_s: Annotated[float | None, typer.Option(min=0, help="Instead of what the groups declare.")] = None,
    record_price: Annotated[float, typer.Option(help="US$ per million reads of the record.")] = 0.25,
    redis_price: Annotated[float, typer.Option(help="US$ per GB and month of Redis.")] = 10.0,
    json_: Annotated[bool, typer.Option("--json", help="One JSON object instead of tables.")] = False,
) -> None:
    """Replay a log against the policies of the definitions, and tell what each tier would have answered."""
    groups = {
        group.name: _with(group, soft_ttl_s=soft_ttl_s, hard_ttl_s=hard_ttl_s)
        for group in load_settings().load_registry().groups
    }
    accesses = list(_read(log, groups))
    if not any(not one.is_write for one in accesses):
        raise ConfigurationError(f"{log} has no reads: each line is time_ms,op,group,key,bytes, op is read or write")
    sizes = _sizes(local_mb, redis_mb, workers, share)
    outcome = run_model(groups, sizes, accesses)
    days = max((accesses[-1].time_ms - accesses[0].time_ms) / 86_400_000, 1 / 86_400)
    figures = _figures(outcome, days=days, share=share, record_price=record_price, redis_price=redis_price)
    curve = [
        (local_mb * scale, run_model(groups, _sizes(local_mb * scale, redis_mb, workers, share), accesses))
        for scale in _SCALES
    ]
    figures["local_curve"] = [
        {"local_mb": megabytes, **{tier: round(one.share(tier), 4) for tier in _TIERS}} for megabytes, one in curve
    ]
    if json_:
        out.print_json(json.dumps(figures))
        return
    out.print(_table(outcome))
    for name, value in figures.items():
        if name != "local_curve":
            out.print(f"{name.replace('_', ' '):>28}  {value:,}", highlight=False)
    out.print(_plot([(megabytes, one.share("local")) for megabytes, one in curve]), highlight=False, markup=False)


def _with(group: FeatureGroup, *, soft_ttl_s: float | None, hard_ttl_s: float | None) -> FeatureGroup:
    policy: ServingPolicy = group.serving
    if soft_ttl_s is not None:
        policy = replace(policy, soft_ttl=seconds(soft_ttl_s))
    if hard_ttl_s is not None:
        policy = replace(policy, hard_ttl=seconds(hard_ttl_s))
    return replace(group, serving=policy)


def _sizes(local_mb: float, redis_mb: float, workers: int, share: float) -> Sizes:
    # A sample of the keys needs as small a share of the memory.
    return Sizes(int(local_mb * _MB * share), int(redis_mb * _MB * share), workers)


def _read(path: Path, groups: dict[str, FeatureGroup]) -> Iterator[Access]:
    """Yield the lines of a log; a read is as large as the row's last write, where the log knows it."""
    known: dict[tuple[str, str], int] = {}
    try:
        with path.open(newline="") as file:
            for number, line in enumerate(csv.DictReader(file), start=2):
                yield _access(line, known, groups, where=f"{path}, line {number}")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from None


def _access(
    line: dict[str, Any], known: dict[tuple[str, str], int], groups: dict[str, FeatureGroup], *, where: str
) -> Access:
    try:
        time_ms, op, group, key = int(line["time_ms"]), line["op"], line["group"], line["key"]
        size = int(line["bytes"]) if line.get("bytes") else known.get((group, key), _ROW_BYTES)
    except (KeyError, TypeError, ValueError):
        raise ConfigurationError(f"{where}: expected {','.join(FIELDS)}") from None
    if op not in ("read", "write"):
        raise ConfigurationError(f"{where}: op is read or write, not {op!r}")
    if group not in groups:
        raise ConfigurationError(f"{where}: no group {group!r}; FRESHET_REGISTRY names the definitions")
    known[group, key] = size
    return Access(time_ms, group, key, op == "write", size)


def _figures(outcome: Outcome, *, days: float, share: float, record_price: float, redis_price: float) -> dict[str, Any]:
    record_reads = sum(counter["record"] for counter in outcome.tiers.values()) / share
    redis_gb = outcome.redis_peak / share / (1 << 30)
    return {
        "reads": outcome.reads,
        "days": round(days, 3),
        **{f"{tier}_share": round(outcome.share(tier), 4) for tier in _TIERS},
        "copies_too_old": outcome.ends["local"],
        "cached_rows_too_old": outcome.ends["redis"],
        "local_mb_peak": round(outcome.local_peak / share / _MB, 3),
        "redis_mb_peak": round(outcome.redis_peak / share / _MB, 3),
        "record_reads_per_day": round(record_reads / days),
        "record_usd_per_month": round(record_reads / days * 30 / 1e6 * record_price, 2),
        "redis_usd_per_month": round(redis_gb * redis_price, 2),
    }


def _table(outcome: Outcome) -> Table:
    table = Table("group", "reads", *_TIERS, title="answered by")
    for column in table.columns[1:]:
        column.justify = "right"
    for group, counter in sorted(outcome.tiers.items()):
        total = counter.total()
        table.add_row(group, f"{total:,}", *(f"{counter[tier] / total:.1%}" for tier in _TIERS))
    return table


def _plot(curve: list[tuple[float, float]]) -> str:
    """Return a chart of the share of reads that copies answer, by their size."""
    plotext.clear_figure()
    plotext.theme("clear")
    plotext.plotsize(72, 16)
    plotext.title("% of reads answered by copies, by MB of copies in each worker")
    plotext.bar([f"{megabytes:g}" for megabytes, _ in curve], [100 * share for _, share in curve])
    plotext.ylim(0, 100)
    chart: str = plotext.uncolorize(plotext.build())
    return chart
