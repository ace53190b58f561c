"""Explaining what is made on demand: the value and its inputs as one read gives them, at one instant.

Nothing of it is stored that could be shown, so the read itself is what is shown.
"""

import math
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

import orjson

from core.errors import RequestError
from core.values import ValueType
from serving.answers.read_plans import ComputedRead, ReadPlan
from serving.answers.requests import FeaturesRequest
from serving.models import Definition, Input, OnDemandExplanation
from serving.statuses import INVALID, NOT_FOUND, NULL_VALUE

Answer = Callable[[FeaturesRequest], bytes | Coroutine[Any, Any, bytes]]


async def explain_on_demand(
    reference: str, key: Mapping[str, str], plan: ReadPlan, definition: Definition, answer: Answer
) -> OnDemandExplanation:
    """Return the value that a read gives now, with the inputs that it was made of.

    Args:
        reference: ``group:feature`` or ``source:value``.
        key: Columns as they stand in a URL: keys, and what else the request has.
        plan: Of a read of that alone.
        definition: What it means.
        answer: Answers reads.

    Raises:
        RequestError: A column is missing, unknown, or has another type.
        StoreError: The record failed.
    """
    read = plan.computed[0] if plan.computed else None
    row = _typed(plan.columns, key)
    references = list(read.feature.features.values()) if read is not None else []
    # An input may stand twice, for two parameters; it is read once.
    asked = list(dict.fromkeys([*references, reference]))
    answered = answer(
        FeaturesRequest({name: [value] for name, value in row.items()}, features=asked, full_feature_names=True)
    )
    told = orjson.loads(answered if isinstance(answered, bytes) else await answered)
    results = dict(zip(asked, told["results"][-len(asked) :], strict=True))
    status = results[reference]["statuses"][0]
    inputs = [_input(name, of, results[of]) for name, of in (read.feature.features if read else {}).items()]
    inputs += [
        Input(name=name, feature=None, value=row[name], status="PRESENT")
        for name in (read.feature.request if read else ())
    ]
    return OnDemandExplanation(
        feature=reference,
        key=row,
        value=results[reference]["values"][0],
        status=status,
        why=_why(read, inputs, status),
        instant_ms=told["metadata"]["instant_ms"],
        definition=definition,
        inputs=inputs,
    )


def _typed(kinds: Mapping[str, ValueType], key: Mapping[str, str]) -> dict[str, Any]:
    for name in key:
        if name not in kinds:
            raise RequestError(400, f"{name[:64]!r} is no column of it; it takes {', '.join(kinds)}")
    if missing := [name for name in kinds if name not in key]:
        raise RequestError(400, f"{missing[0]!r} is missing; it takes {', '.join(kinds)}")
    return {name: _value(name, key[name], kind) for name, kind in kinds.items()}


def _value(name: str, text: str, kind: ValueType) -> Any:
    """Return the value that a text in a URL stands for."""
    if kind is ValueType.STR:
        return text
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        value = None
    fits = {
        ValueType.INT: type(value) is int,
        ValueType.FLOAT: type(value) in (int, float) and math.isfinite(value),
        ValueType.BOOL: type(value) is bool,
    }
    if not fits.get(kind, False):
        raise RequestError(400, f"{name}: expected {kind.value}, got {text[:64]!r}")
    return value


def _input(name: str, of: str, result: Mapping[str, Any]) -> Input:
    return Input(name=name, feature=of, value=result["values"][0], status=result["statuses"][0])


def _why(read: ComputedRead | None, inputs: Sequence[Input], status: str) -> str:
    if read is None:
        return {
            INVALID: "The source failed, was too late, or returned something else; the log says which.",
            NOT_FOUND: "The source knows nothing of this key.",
            NULL_VALUE: "The source knows the key, and has no value for it.",
        }.get(status, "It was fetched for this question; it is stored nowhere.")
    if status == INVALID and (bad := [one.name for one in inputs if one.status == INVALID]):
        return f"{bad[0]} could not be had, so the function was not called."
    return {
        INVALID: "The function failed, was too late, or returned something else; the log says which.",
        NULL_VALUE: "The function returned None, and the feature has no default.",
    }.get(status, f"{read.feature.text} was computed for this question; it is stored nowhere.")
