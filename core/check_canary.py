"""Checking canaries: whether each is an event, and which groups could tell that it came. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from uuid import uuid4

from pydantic import ValidationError

from core.canary import adds, canary_event
from core.definitions import Aggregate, OneOf, Source
from core.errors import EventError
from core.problems import Problem

_ENDS = (0, -1)
"""Which of the values of a ``OneOf`` are looked at."""


def check_canary(source: Source, fed: Mapping[str, Sequence[Aggregate]]) -> Iterator[Problem]:
    """Report all problems of a source's canary.

    Args:
        source: One with a pydantic model.
        fed: By the name of each group that would be watched, its sound aggregates over the source.
    """
    where = f"source {source.topic}, canary"
    if source.canary is None:
        return
    if told := {source.event_time, source.event_id} & set(source.canary):
        yield Problem(where, f"{min(map(str, told))} is in it", remedy="leave it out: each canary has its own")
        return
    for name, value in source.canary.items():
        if isinstance(value, OneOf) and not (isinstance(value.values, Sequence) and len(value.values)):
            yield Problem(where, f"{name} is one of no values", remedy="give some, as OneOf(range(...))")
            return
    try:
        events = [_event(source, end) for end in _ENDS]
        left_out = [
            (group, mine)
            for group, mine in fed.items()
            if mine and not any(all(adds(one, event) for event in events) for one in mine)
        ]
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        yield Problem(where, f"it is no {source.model.__name__}: {wrong}", remedy="mend these fields")
    except TypeError as error:
        yield Problem(where, f"it is no JSON: {error}", remedy="give numbers, texts, lists and booleans")
    except EventError as error:
        yield Problem(where, f"it would be a dead letter: {error}", remedy="give smaller numbers")
    else:
        yield from (_unwatched(where, group, mine) for group, mine in left_out)


def _event(source: Source, place: int) -> bytes:
    event = canary_event(source, now_ms=0, identity=uuid4(), pick=lambda values: values[place])
    source.model.model_validate_json(event, strict=True)
    return event


def _unwatched(where: str, group: str, features: Sequence[Aggregate]) -> Problem:
    reasons = [
        f"{one.name}'s where is {one.where.text}" if one.where is not None else f"{one.name} has no value of it"
        for one in features
    ]
    reason = f"the group {group} takes nothing of it, so it is not watched: {'; '.join(reasons)}"
    return Problem(where, reason, remedy="give it fields that one of these takes", severity="warning")
