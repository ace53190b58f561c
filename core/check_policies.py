"""Checking how groups are read and written: times, shares, what goes together. Pure; ``core.check`` puts it together.

What cannot be is an error; what nobody can want, or hardly anybody, is a warning.
"""

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import timedelta
from itertools import chain
from typing import Any

from core.definitions import FeatureGroup, ServingPolicy, WritePolicy
from core.problems import Problem, check_flag, check_span, suggestion
from core.windows import days, hours, seconds

TIERS = ("local", "remote", "direct")
ON_FAILURE = ("null", "default")
TTL_MAX = days(3650)
EVERY_MAX = hours(1)
BETA_MAX = 16
HELD_BYTES_MAX = 16 * 1024
"""Rows that may become larger are too large to be held by every worker: 64 MB hold 4,000 of them."""
_SOFT_MIN = seconds(1)


def check_policies(where: str, group: FeatureGroup, *, row_bytes: int) -> Iterator[Problem]:
    """Report a group's policies, but for what depends on its features' meaning.

    Args:
        where: The group's place.
        group: The group.
        row_bytes: Its worst row, as it is usual.
    """
    problems = {field: list(found) for field, found in _check_values(where, group.serving).items()}
    yield from chain.from_iterable(problems.values())
    yield from check_span(where, "every", group.writing.every, most=EVERY_MAX)
    wrong = {field for field, found in problems.items() if found}
    yield from _warn(where, group.serving, group.writing, row_bytes=row_bytes, wrong=wrong)


def _check_values(where: str, serving: ServingPolicy) -> dict[str, Iterable[Problem]]:
    """Return the problems of each field."""
    return {
        "tier": _check_choice(where, f"there is no tier {serving.tier!r}", serving.tier, TIERS),
        "soft_ttl": check_span(where, "soft_ttl", serving.soft_ttl, most=TTL_MAX),
        "hard_ttl": _check_hard_ttl(where, serving),
        "negative_ttl": _check_span_or_none(where, "negative_ttl", serving.negative_ttl or None),
        "max_age": _check_span_or_none(where, "max_age", serving.max_age),
        "jitter": _check_number(where, "jitter", serving.jitter, most=0.9),
        "early_refresh": _check_number(where, "early_refresh", serving.early_refresh, most=BETA_MAX),
        "preload": check_flag(where, "preload", serving.preload),
        "on_failure": _check_choice(where, f"on_failure is {serving.on_failure!r}", serving.on_failure, ON_FAILURE),
    }


def _check_choice(where: str, reason: str, value: Any, choices: Sequence[str]) -> Iterator[Problem]:
    if value not in choices:
        yield Problem(where, reason, remedy=suggestion(str(value), choices))


def _check_span_or_none(where: str, what: str, span: Any) -> list[Problem]:
    return [] if span is None else check_span(where, what, span, most=TTL_MAX)


def _check_hard_ttl(where: str, serving: ServingPolicy) -> Iterator[Problem]:
    wrong = check_span(where, "hard_ttl", serving.hard_ttl, most=TTL_MAX)
    yield from wrong
    if wrong or check_span(where, "soft_ttl", serving.soft_ttl, most=TTL_MAX):
        return
    if serving.hard_ttl < serving.soft_ttl:
        remedy = "give it at least soft_ttl: a copy is refreshed first and dropped later"
        yield Problem(where, "hard_ttl is shorter than soft_ttl", remedy=remedy)


def _check_number(where: str, what: str, value: Any, *, most: float) -> Iterator[Problem]:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or not 0 <= value <= most:
        yield Problem(where, f"{what} is {value!r}", remedy=f"give a number from 0 to {most:g}")


def _warn(
    where: str, serving: ServingPolicy, writing: WritePolicy, *, row_bytes: int, wrong: Collection[str]
) -> Iterator[Problem]:
    """Warn of what does not go together, as far as it can be told beside fields that are wrong."""

    def right(*fields: str) -> bool:
        return not any(field in wrong for field in fields)

    def warning(reason: str, remedy: str) -> Problem:
        return Problem(where, reason, remedy=remedy, severity="warning")

    tier = serving.tier if right("tier") else None
    if tier and right("preload") and serving.preload and tier != "local":
        yield warning(f'preload does nothing with tier="{tier}"', 'leave it out, or take tier="local"')
    if tier == "direct":
        if right("early_refresh") and serving.early_refresh:
            yield warning('early_refresh does nothing with tier="direct": there are no copies', "leave it out")
        # Its rows would be written to where nobody looks for them.
        if writing.cached:
            remedy = "write WritePolicy.around(): what is written to Redis is read by nobody there"
            yield warning('tier="direct" with rows that are written to Redis', remedy)
        return
    if tier == "local" and row_bytes > HELD_BYTES_MAX:
        reason = f'tier="local" with rows of up to {row_bytes:,} bytes, which every worker would hold'
        yield warning(reason, f'take tier="remote", or keep rows under {HELD_BYTES_MAX:,} bytes')
    if tier == "local" and right("soft_ttl") and serving.soft_ttl < _SOFT_MIN:
        reason = f'tier="local" with a soft_ttl of {_seconds(serving.soft_ttl)}: copies end before they are of use'
        yield warning(reason, 'take tier="remote", or a soft_ttl from 1 s on')
    if right("negative_ttl", "hard_ttl") and serving.negative_ttl > serving.hard_ttl:
        reason = "negative_ttl is longer than hard_ttl: that there is no row would be believed longer than any row is"
        yield warning(reason, "give it at most hard_ttl")


def _seconds(span: timedelta) -> str:
    return f"{span.total_seconds():g} s"
