"""``freshet cache``: choose policies and sizes by what one's own reads would have met."""

import io
import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from app.cache_log import read_logs
from app.cache_report import (
    MB,
    TIERS,
    Bill,
    chart,
    figures_of,
    groups_table,
    policies_table,
    told_length,
    too_short,
    with_policy,
)
from app.settings import load_settings
from serving.cache_model import Sizes, run_model

cli = typer.Typer(no_args_is_help=True, help="Tell what caches are worth, by a log of reads.")
out = Console()

_SCALES = (1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 2, 4)
_PICTURE_COLUMNS = 108


@cli.callback()
def cache() -> None:
    """Choose policies and sizes by what one's own reads would have met."""


@cli.command()
def simulate(
    log: Annotated[
        list[Path],
        typer.Argument(
            help="CSV with the header time_ms,op,group,key,bytes; FRESHET_READS_LOG writes one. Several are merged.",
        ),
    ],
    *,
    share: Annotated[float, typer.Option(min=1e-6, max=1, help="Of all keys that are in the log.")] = 1.0,
    local_mb: Annotated[float, typer.Option(min=0, help="Copies in each worker.")] = 64,
    redis_mb: Annotated[float, typer.Option(min=0, help="All Redis servers.")] = 1024,
    workers: Annotated[int, typer.Option(min=1, help="Of the role all, when the log was written.")] = 1,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            help="To compare with what is declared: soft_ttl_s=300,tier=direct,write=around; repeat for more."
        ),
    ] = None,
    record_price: Annotated[float, typer.Option(help="US$ per million reads of the record.")] = 0.25,
    redis_price: Annotated[float, typer.Option(help="US$ per GB and month of Redis.")] = 10.0,
    json_: Annotated[bool, typer.Option("--json", help="One JSON object instead of tables.")] = False,
    picture: Annotated[Path | None, typer.Option(help="Save tables and chart as an SVG.")] = None,
) -> None:
    """Replay logs of reads against policies, those declared and others.

    Tells what each tier would have answered, and what it costs.
    """
    groups = {group.name: group for group in load_settings().load_registry().groups}
    accesses = read_logs(log, groups)
    sizes = _sizes(local_mb, redis_mb, workers, share)
    days = max((accesses[-1].time_ms - accesses[0].time_ms) / 86_400_000, 1 / 86_400)
    bill = Bill(days, share, record_price, redis_price)
    declared = run_model(groups, sizes, accesses)
    policies = {"declared": figures_of(declared, bill)}
    met = sorted({one.group for one in accesses})
    for text in policy or ():
        changed = {name: with_policy(groups[name], text) for name in met}
        policies[text] = figures_of(run_model(changed, sizes, accesses), bill)
    curve = [
        (megabytes, run_model(groups, _sizes(megabytes, redis_mb, workers, share), accesses))
        for megabytes in dict.fromkeys(local_mb * scale for scale in _SCALES)
    ]
    warning = too_short(days)
    if json_:
        told = {"reads": declared.reads, "days": round(days, 3), **policies.pop("declared"), "policies": policies}
        told["warnings"] = [warning] if warning else []
        told["local_curve"] = [
            {"local_mb": megabytes, **{tier: round(one.share(tier), 4) for tier in TIERS}} for megabytes, one in curve
        ]
        out.print_json(json.dumps(told))
        return
    shown = [
        f"{declared.reads:,} reads in {told_length(days)}",
        *([Text(f"warning: {warning}", style="yellow")] if warning else []),
        groups_table(declared),
        policies_table(policies),
        chart([(megabytes, one.share("local")) for megabytes, one in curve]),
    ]
    out.print(*shown, sep="\n", highlight=False, markup=False)
    if picture is not None:
        screen = Console(record=True, width=_PICTURE_COLUMNS, file=io.StringIO())
        screen.print(*shown, sep="\n", highlight=False, markup=False)
        screen.save_svg(str(picture), title="freshet cache simulate")


def _sizes(local_mb: float, redis_mb: float, workers: int, share: float) -> Sizes:
    # A sample of the keys needs as small a share of the memory.
    return Sizes(int(local_mb * MB * share), int(redis_mb * MB * share), workers)
