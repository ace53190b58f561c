"""On-demand features and sources as answers have them: columns that functions return, and what becomes of failures."""

from collections.abc import Mapping, Sequence
from itertools import compress
from typing import Any, NamedTuple, Protocol

from core.on_demand import OnDemandFeature, OnDemandSource, fits
from core.values import ValueType
from serving.statuses import INVALID, NOT_FOUND, NULL_VALUE, PRESENT

FAILED = "\0failed"
"""Instead of a value where a function has raised: no text of a feature begins with a zero byte and is served."""
ABSENT = "\0absent"
"""Instead of a value of a key that a source knows nothing of."""


class Computed(NamedTuple):
    """A column.

    Attributes:
        statuses: ``INVALID`` where the function failed, was too late or returned something else than it declares.
    """

    values: list[Any]
    statuses: list[str]


class Functions(Protocol):
    """Runs functions of on-demand features and sources."""

    async def compute(
        self, group: str, feature: OnDemandFeature, columns: Mapping[str, Sequence[Any]], *, deadline_ms: int
    ) -> Computed:
        """Return a feature's column; one call per row of the given columns."""
        ...

    async def fetch(
        self, source: OnDemandSource, keys: Mapping[str, Sequence[Any]], *, deadline_ms: int
    ) -> Mapping[str, Computed]:
        """Return a source's columns, by the names of its values; one call for all of the given keys."""
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


def judge_fetched(source: OnDemandSource, columns: Mapping[str, Sequence[Any]]) -> dict[str, Computed]:
    """Return the columns of what a source has returned, ``FAILED`` and ``ABSENT`` among the values."""
    return {name: _judge_fetched(columns[name], kind) for name, kind in source.returns.items()}


def _judge_fetched(values: Sequence[Any], kind: ValueType) -> Computed:
    column: list[Any] = []
    statuses = []
    for value in values:
        is_value = value not in (FAILED, ABSENT) and fits(value, kind)
        column.append(value if is_value else None)
        if is_value:
            statuses.append(NULL_VALUE if value is None else PRESENT)
        else:
            statuses.append(NOT_FOUND if value == ABSENT else INVALID)
    return Computed(column, statuses)


def only_valid(columns: Mapping[str, Sequence[Any]], is_valid: Sequence[bool]) -> dict[str, list[Any]]:
    """Return the columns without the rows that a function must not be given."""
    return {name: list(compress(values, is_valid)) for name, values in columns.items()}


def with_invalid(computed: Computed, is_valid: Sequence[bool]) -> Computed:
    """Return a column that was computed for valid rows alone, with ``INVALID`` in the place of the others."""
    rows = iter(zip(computed.values, computed.statuses, strict=True))
    whole = [next(rows) if valid else (None, INVALID) for valid in is_valid]
    return Computed([value for value, _ in whole], [status for _, status in whole])


def invalid(rows: int) -> Computed:
    """Return the column of a function that has returned nothing."""
    return Computed([None] * rows, [INVALID] * rows)
