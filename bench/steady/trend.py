"""Whether memory grows under a load that is served: a line through samples. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import linear_regression

from rich.table import Table

GROWTH_MAX = 0.02
"""Allocators breathe: a line through half an hour of a worker that keeps nothing is off by about so much."""

_MB = 1e6


@dataclass(frozen=True, slots=True)
class Sample:
    """A look at the worker.

    Attributes:
        at_s: Seconds since the first sample.
        rss_bytes: Its resident memory.
        rows: Rows in its tables.
        lag: Records that are written and not yet durable.
    """

    at_s: float
    rss_bytes: int
    rows: int
    lag: int


@dataclass(frozen=True, slots=True)
class Trend:
    """A line through samples.

    Attributes:
        first_mb: The line at the first sample, megabytes.
        last_mb: The line at the last one.
        mb_per_hour: Its slope.
        least_mb: Least that was seen.
        most_mb: Most that was seen.
    """

    first_mb: float
    last_mb: float
    mb_per_hour: float
    least_mb: float
    most_mb: float

    @property
    def growth(self) -> float:
        """Return by which share the line grows from the first sample to the last."""
        return self.last_mb / self.first_mb - 1

    @property
    def is_flat(self) -> bool:
        """Return whether it does not grow, as far as can be told."""
        return self.growth <= GROWTH_MAX


def trend(samples: Sequence[Sample]) -> Trend:
    """Return the line of least squares; it wants two samples.

    >>> trend([Sample(0, 100_000_000, 1, 0), Sample(1800, 101_000_000, 1, 0)])
    Trend(first_mb=100.0, last_mb=101.0, mb_per_hour=2.0, least_mb=100.0, most_mb=101.0)
    """
    used = [sample.rss_bytes / _MB for sample in samples]
    line = linear_regression([sample.at_s for sample in samples], used)
    first, last = (line.intercept + line.slope * sample.at_s for sample in (samples[0], samples[-1]))
    return Trend(*(round(mb, 2) for mb in (first, last, line.slope * 3600, min(used), max(used))))


def is_good(found: Trend, *, lost: int, reads: Mapping[int, int]) -> bool:
    """Return whether memory is flat under a load that was served: what a worker refuses needs no memory.

    Args:
        found: The trend.
        lost: Events that are in no account.
        reads: How many reads there were, by the status of their answers.
    """
    return found.is_flat and lost == 0 and reads.keys() <= {200}


def table(samples: Sequence[Sample]) -> Table:
    """Return a line for each tenth of the time."""
    shown = Table(box=None, header_style="bold")
    for name in ("minute", "MB", "rows", "lag"):
        shown.add_column(name, justify="right")
    for sample in samples[:: max(1, len(samples) // 10)]:
        shown.add_row(
            f"{sample.at_s / 60:.0f}", f"{sample.rss_bytes / _MB:,.1f}", f"{sample.rows:,}", f"{sample.lag:,}"
        )
    return shown


def told(found: Trend) -> str:
    """Return what the line says.

    >>> told(Trend(100.0, 101.0, 2.0, 99.5, 101.5))
    '+2.0 MB an hour, +1.0% from first to last, between 99.5 and 101.5 MB: flat'
    """
    return (
        f"{found.mb_per_hour:+.1f} MB an hour, {found.growth:+.1%} from first to last, "
        f"between {found.least_mb:,.1f} and {found.most_mb:,.1f} MB: {'flat' if found.is_flat else 'it grows'}"
    )
