"""Checking one feature: its windows, its expressions and types, its default. Pure; ``core.check`` puts it together."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from core.aggregations import Aggregation, Count, Latest, Sum
from core.catalogue import result_type
from core.check_constants import check_constants
from core.definitions import Aggregate, Change, Feature, Ratio, Source
from core.errors import DefinitionError
from core.expressions import Expr
from core.models import columns_of
from core.plans import served_name
from core.problems import Problem, check_listed, check_name, listed, suggestion
from core.values import ValueType
from core.windows import ALL_TIME, Window

_PYTHON_TYPES: Mapping[ValueType, tuple[type, ...]] = {
    ValueType.INT: (int,),
    ValueType.FLOAT: (int, float),
    ValueType.STR: (str,),
    ValueType.BOOL: (bool,),
    ValueType.LIST: (list, tuple),
}


def is_model(model: Any) -> bool:
    """Whether it is a pydantic model, as every source needs one."""
    return isinstance(model, type) and issubclass(model, BaseModel)


def windows_of(feature: Feature) -> list[Window]:
    """Return the windows of a feature that can be, the others left out."""
    return [window for span in listed(feature.over) if isinstance(window := _window(span), Window)]


def served_names(feature: Feature) -> list[str]:
    """Return the names under which a feature is served over the windows that can be."""
    return [served_name(feature, window) for window in windows_of(feature)]


def check_aggregate(where: str, feature: Aggregate) -> list[Problem]:
    """Report all problems of an aggregate."""
    problems = [*check_name(where, feature.name), *_check_over(where, feature)]
    source: Any = feature.source
    if not isinstance(source, Source):
        return [*problems, Problem(where, f"{source!r} is no source", remedy="give the Source itself")]
    if not is_model(source.model):
        return problems  # It is reported once, with the source.
    problems += _check_aggregation(where, feature)
    if feature.where is not None:
        problems += _check_condition(where, feature.where, source.model)
    return problems


def check_ratio(where: str, ratio: Ratio, features: Sequence[Feature]) -> list[Problem]:
    """Report all problems of a ratio.

    Args:
        where: The ratio's place.
        ratio: The ratio.
        features: All features of its group.
    """
    problems = [*check_name(where, ratio.name), *_check_over(where, ratio)]
    problems += _check_default(where, ratio.default, ValueType.FLOAT)
    by_name = {feature.name: feature for feature in features if feature is not ratio}
    for role, name in (("numerator", ratio.numerator), ("denominator", ratio.denominator)):
        problems += _check_part(where, role, name, ratio, by_name)
    return problems


def check_change(where: str, change: Change, features: Sequence[Feature]) -> list[Problem]:
    """Report all problems of a change.

    Args:
        where: The change's place.
        change: The change.
        features: All features of its group.
    """
    problems = [*check_name(where, change.name), *_check_over(where, change)]
    problems += _check_default(where, change.default, ValueType.FLOAT)
    by_name = {feature.name: feature for feature in features if feature is not change}
    subject = by_name.get(change.of)
    if not isinstance(subject, Aggregate) or not isinstance(subject.aggregation, Count | Sum):
        reason = f"{change.of} is no count and no sum of this group, so it has no rate"
        rated = [other for other in by_name.values() if isinstance(other, Aggregate)]
        names = [other.name for other in rated if isinstance(other.aggregation, Count | Sum)]
        return [*problems, Problem(where, reason, remedy=suggestion(str(change.of), names))]
    against = _window(change.against)
    if isinstance(against, ValueError) or against.size_ms == 0:
        reason = f"against is {change.against!r}, no window with a length"
        return [*problems, Problem(where, reason, remedy="give a window longer than those of over")]
    remedy = f"compare windows that are shorter than {against.label}"
    long = [window.label for window in windows_of(change) if not 0 < window.size_ms < against.size_ms]
    problems += [Problem(where, f"{label} is not shorter than {against.label}", remedy=remedy) for label in long]
    needed = [] if long else [*windows_of(change), against]
    return problems + _check_windows(where, f"its subject {subject.name}", needed, subject)


def check_expression(where: str, expression: Any, model: type[BaseModel]) -> tuple[list[Problem], ValueType | None]:
    """Report an expression's problems, or return its type.

    Returns:
        Either problems, or no problem and the type.
    """
    if not isinstance(expression, Expr):
        return [Problem(where, f"{expression!r} is no expression", remedy='name a field with col("...")')], None
    columns = columns_of(model)
    unknown = sorted(expression.columns() - columns.keys())
    if unknown:
        return [_unknown_column(where, name, model, columns) for name in unknown], None
    try:
        own = expression.type_in(columns)
    except DefinitionError as error:
        return [Problem(where, str(error), remedy="give the operator operands of types that it takes")], None
    problems = check_constants(where, expression, model)
    return problems, None if problems else own


def _window(span: Any) -> Window | ValueError:
    try:
        return Window.of(span)
    except ValueError as error:
        return error
    except TypeError:
        return ValueError(f"{span!r} is no window")


def _check_over(where: str, feature: Feature) -> Iterator[Problem]:
    yield from check_listed(where, "over", feature.over)
    for span in listed(feature.over):
        window = _window(span)
        if isinstance(window, ValueError):
            remedy = "use minutes(...), hours(...) or days(...) from 5 minutes to 90 days, or ALL_TIME"
            yield Problem(where, str(window), remedy=remedy)


def _check_aggregation(where: str, feature: Aggregate) -> list[Problem]:
    aggregation: Any = feature.aggregation
    if not isinstance(aggregation, Aggregation):
        return [Problem(where, f"{aggregation!r} is no aggregation", remedy="write it with brackets, as in Count()")]
    problems = _check_settings(where, feature)
    if aggregation.value is None and isinstance(aggregation, Count):
        return [*problems, *_check_default(where, feature.default, ValueType.INT)]
    wrong, own = check_expression(where, aggregation.value, feature.source.model)
    problems += wrong
    if own is None:
        return problems
    if own not in aggregation.accepts:
        kind, allowed = type(aggregation).__name__, ", ".join(sorted(kind.value for kind in aggregation.accepts))
        remedy = f"give it a value of type {allowed}"
        return [*problems, Problem(where, f"{kind} cannot take {own.value} ({aggregation.text})", remedy=remedy)]
    return [*problems, *_check_default(where, feature.default, aggregation.result_type(own))]


def _check_settings(where: str, feature: Aggregate) -> list[Problem]:
    aggregation = feature.aggregation
    if isinstance(aggregation, Latest) and any(span is not ALL_TIME for span in listed(feature.over)):
        remedy = "use latest(...), or Last for the last value within a window"
        return [Problem(where, "Latest is a state and has no window", remedy=remedy)]
    return aggregation.problems(where)


def _check_condition(where: str, condition: Any, model: type[BaseModel]) -> list[Problem]:
    problems, own = check_expression(where, condition, model)
    if own not in (None, ValueType.BOOL):
        remedy = 'compare it with something, as in col("kind") == "like"'
        return [Problem(where, f"{condition!r} is no condition", remedy=remedy)]
    return problems


def _check_default(where: str, default: Any, own: ValueType) -> list[Problem]:
    finite = not isinstance(default, float) or math.isfinite(default)
    if default is None or (type(default) in _PYTHON_TYPES[own] and finite):
        return []
    remedy = f"give a default of type {own.value}, or none"
    return [Problem(where, f"the default {default!r} is no {own.value}", remedy=remedy)]


def _check_part(where: str, role: str, name: str, ratio: Ratio, by_name: Mapping[str, Feature]) -> Iterator[Problem]:
    part, feature = f"the {role} {name}", by_name.get(name)
    if not isinstance(feature, Aggregate):
        kind = "a ratio itself" if isinstance(feature, Ratio) else "a change" if isinstance(feature, Change) else None
        reason = f"{part} is {kind or 'no feature of this group'}"
        aggregates = [other.name for other in by_name.values() if isinstance(other, Aggregate)]
        yield Problem(where, reason, remedy=suggestion(str(name), aggregates))
        return
    own = _type_or_none(feature)
    if own is not None and not own.is_number:
        yield Problem(where, f"{part} is a {own.value}", remedy="divide numbers only")
    yield from _check_windows(where, part, windows_of(ratio), feature)


def _check_windows(where: str, part: str, needed: Sequence[Window], feature: Aggregate) -> list[Problem]:
    missing = ", ".join(window.label for window in needed if window not in windows_of(feature))
    remedy = f"add it to the windows of {feature.name}"
    return [Problem(where, f"{part} has no window {missing}", remedy=remedy)] if missing else []


def _type_or_none(feature: Aggregate) -> ValueType | None:
    """Return a part's type, or None if it has problems of its own, which are reported with it."""
    if check_aggregate("", feature):
        return None
    return result_type(feature)


def _unknown_column(where: str, name: str, model: type[BaseModel], columns: Mapping[str, ValueType]) -> Problem:
    if name in model.model_fields:
        reason = f"the field {name} of {model.__name__} has a type that expressions cannot read"
        return Problem(where, reason, remedy="use a field of type int, float, str, bool or a list of these")
    return Problem(where, f"{model.__name__} has no field {name}", remedy=suggestion(name, columns))
