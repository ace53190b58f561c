"""What a simulated log of reads tells: figures of one policy, and tables and a chart for people. Pure."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

from rich.bar import Bar
from rich.table import Table

from core.check_policies import check_policies
from core.definitions import FeatureGroup
from core.errors import ConfigurationError
from core.windows import seconds
from serving.cache_model import Outcome

TIERS = ("local", "redis", "record")
MB = 1 << 20
_DIGITS_MAX = 12
_DAYS_MIN = 1 / 24
_BAR_COLUMNS = 50

_FIGURES = {
    "local_share": ("answered by copies", "{:.1%}"),
    "redis_share": ("answered by Redis", "{:.1%}"),
    "record_share": ("answered by the record", "{:.1%}"),
    "copies_too_old": ("copies too old when read", "{:,}"),
    "cached_rows_too_old": ("rows of Redis too old", "{:,}"),
    "loads_per_expiry": ("loads per expiry", "{:.2f}"),
    "loads_per_expiry_unshared": ("… if none were shared", "{:.2f}"),
    "copy_age_s_p50": ("age of copies, p50, s", "{:,}"),
    "copy_age_s_p99": ("age of copies, p99, s", "{:,}"),
    "stale_share_if_untold": ("stale if no change was told", "{:.1%}"),
    "stale_s_p99_if_untold": ("… by at most (p99), s", "{:,}"),
    "local_mb_peak": ("MB of copies", "{:,.2f}"),
    "redis_mb_peak": ("MB of Redis", "{:,.2f}"),
    "record_reads_per_day": ("reads of the record a day", "{:,}"),
    "record_usd_per_month": ("US$ a month: record", "{:,.2f}"),
    "redis_usd_per_month": ("US$ a month: Redis", "{:,.2f}"),
}
"""Names of the figures for people, and how each is written."""


@dataclass(frozen=True, slots=True)
class Bill:
    """What a log stands for, and what things cost.

    Attributes:
        days: That the log is long.
        share: Of all keys that are in it.
        record_price: US$ per million reads of the record.
        redis_price: US$ per GB and month of Redis.
    """

    days: float
    share: float
    record_price: float
    redis_price: float


def with_policy(group: FeatureGroup, text: str) -> FeatureGroup:
    """Return a group with another policy, told as ``soft_ttl_s=300,tier=direct,write=around``.

    Raises:
        ConfigurationError: There is no such policy, or it cannot be, as ``freshet check`` tells it.
    """
    for part in text.split(","):
        changed = _change(group, *part.partition("=")[::2])
        if changed is None:
            raise ConfigurationError(
                f"--policy {text}: {part!r} is none; write soft_ttl_s=300, hard_ttl_s=86400, tier=local, remote or "
                f"direct, write=through or around, several with commas"
            )
        group = changed
    # How large its rows are matters to warnings alone.
    for problem in check_policies(f"group {group.name}", group, row_bytes=0):
        if problem.severity == "error":
            raise ConfigurationError(f"--policy {text}: {problem.where}: {problem.reason}; {problem.remedy}")
    return group


def _change(group: FeatureGroup, name: str, value: str) -> FeatureGroup | None:
    serving = group.serving
    match name, value:
        case "tier", "local" | "remote" | "direct" as tier:
            return replace(group, serving=replace(serving, tier=tier))
        case "write", "through" | "around":
            return replace(group, writing=replace(group.writing, cached=value == "through"))
        case "soft_ttl_s", _ if _is_number(value):
            return replace(group, serving=replace(serving, soft_ttl=seconds(float(value))))
        case "hard_ttl_s", _ if _is_number(value):
            return replace(group, serving=replace(serving, hard_ttl=seconds(float(value))))
    return None


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdecimal() and text.isascii() and len(text) <= _DIGITS_MAX


def figures_of(outcome: Outcome, bill: Bill) -> dict[str, Any]:
    """Return the figures of one policy."""
    record_reads = sum(counter["record"] for counter in outcome.tiers.values()) / bill.share / bill.days
    redis_gb = outcome.redis_peak / bill.share / (1 << 30)
    ends = outcome.ends.total()
    return {
        **{f"{tier}_share": round(outcome.share(tier), 4) for tier in TIERS},
        "copies_too_old": outcome.ends["local"],
        "cached_rows_too_old": outcome.ends["redis"],
        "loads_per_expiry": 1.0 if ends else None,
        "loads_per_expiry_unshared": round(outcome.loads.total() / ends, 3) if ends else None,
        "copy_age_s_p50": percentile(outcome.ages, 0.5),
        "copy_age_s_p99": percentile(outcome.ages, 0.99),
        "stale_share_if_untold": round(outcome.untold.total() / outcome.reads, 4),
        "stale_s_p99_if_untold": percentile(outcome.untold, 0.99),
        "local_mb_peak": round(outcome.local_peak / bill.share / MB, 3),
        "redis_mb_peak": round(outcome.redis_peak / bill.share / MB, 3),
        "record_reads_per_day": round(record_reads),
        "record_usd_per_month": round(record_reads * 30 / 1e6 * bill.record_price, 2),
        "redis_usd_per_month": round(redis_gb * bill.redis_price, 2),
    }


def percentile(counts: Counter[int], share: float) -> int | None:
    """Return the least value that so large a share of what was counted is not above, or None of nothing.

    >>> percentile(Counter({1: 98, 5: 1, 9: 1}), 0.99), percentile(Counter(), 0.5)
    (5, None)
    """
    values = sorted(counts)
    reached = accumulate(counts[value] for value in values)
    wanted = share * counts.total()
    return next((value for value, number in zip(values, reached, strict=True) if number >= wanted), None)


def groups_table(outcome: Outcome) -> Table:
    """Return which tier has answered the reads of each group."""
    table = _table("group", "reads", *TIERS, title="answered by, as declared")
    for group, counter in sorted(outcome.tiers.items()):
        total = counter.total()
        table.add_row(group, f"{total:,}", *(f"{counter[tier] / total:.1%}" for tier in TIERS))
    return table


def policies_table(policies: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return policies beside each other, a figure in each line."""
    heads = [_head(name) for name in policies]
    table = _table("", *heads, title="by policy")
    for figure, (name, form) in _FIGURES.items():
        told = [one[figure] for one in policies.values()]
        table.add_row(name, *("-" if value is None else form.format(value) for value in told))
    return table


def _head(policy: str) -> str:
    """Return a policy as the head of its column.

    >>> _head("soft_ttl_s=300,tier=direct").splitlines()
    ['soft 300 s', 'tier direct']
    """
    return re.sub(r"_ttl_s=([\d.]+)", r" \1 s", policy).replace(",", "\n").replace("=", " ")


def chart(curve: list[tuple[float, float]]) -> Table:
    """Return a chart of the share of reads that copies answer, by their size in MB."""
    table = _table("MB", "%", title="% of reads answered by copies, by MB of copies in each worker")
    table.add_column(f"0{100:>{_BAR_COLUMNS - 1}}", width=_BAR_COLUMNS)
    table.columns[0].justify = "right"
    for megabytes, share in curve:
        table.add_row(f"{megabytes:g}", f"{100 * share:.1f}", Bar(1, 0, share, width=_BAR_COLUMNS))
    return table


def told_length(days: float) -> str:
    """Return how long a log is, for people.

    >>> told_length(2.014), told_length(0.02), told_length(0)
    ('2.01 days', '29 minutes', '0 minutes')
    """
    if days >= 1:
        return f"{days:.2f} days"
    return f"{24 * days:.1f} hours" if days >= _DAYS_MIN else f"{24 * 60 * days:.0f} minutes"


def too_short(days: float) -> str | None:
    """Return a warning of a log that says little about days and months, or None."""
    if days >= _DAYS_MIN:
        return None
    return (
        f"the log covers {told_length(days)}: what is read in a day and paid in a month is extrapolated from that; "
        f"log for an hour at least, better for an evening"
    )


def _table(first: str, *heads: str, title: str) -> Table:
    table = Table(first, *heads, title=title, title_justify="left")
    table.columns[0].no_wrap = True
    for column in table.columns[1:]:
        # Where there is little room, the first half of a number would look like one.
        column.justify, column.overflow = "right", "ellipsis"
    return table
