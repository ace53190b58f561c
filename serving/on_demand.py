"""On-demand features as answers have them: columns that functions return, and what becomes of those that fail."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from core.on_demand import OnDemandFeature, fits
from serving.ready import NULL_VALUE, PRESENT

INVALID = "INVALID"
FAILED = "\0failed"
"""Instead of a value where a function has raised: no text of a feature begins with a zero byte and is served."""


class Computed(NamedTuple):
    """A column.

    Attributes:
        statuses: ``INVALID`` where the function failed, was too late or returned something else than it declares.
    """

    values: list[Any]
    statuses: list[str]


class Functions(Protocol):
    """Runs functions of on-demand features."""

    async def compute(
        self, group: str, feature: OnDemandFeature, columns: Mapping[str, Sequence[Any]], *, deadline_ms: int
    ) -> Computed:
        """Return a feature's column; one call per row of the given columns."""
        ...


def judge(feature: OnDemandFeature, values: Sequence[Any]) -> Computed:
    """Return the column of what a function has returned for each row, ``FAILED`` where it has raised."""
    column: list[Any] = []
    statuses = []
    for value in values:
        if value == FAILED or not fits(value, feature.returns):
            column.append(None)
            statuses.append(INVALID)
            continue
        served = feature.default if value is None else value
        column.append(served)
        statuses.append(NULL_VALUE if served is None else PRESENT)
    return Computed(column, statuses)


def invalid(rows: int) -> Computed:
    """Return the column of a function that has returned nothing."""
    return Computed([None] * rows, [INVALID] * rows)
