"""Checking on-demand features and sources. Pure."""

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from core.on_demand import OnDemandFeature, OnDemandGroup, OnDemandSource, fits
from core.problems import Problem, check_clashes, check_listed, check_name, check_span, listed, suggestion
from core.values import ValueType
from core.windows import seconds

DEADLINE_MAX = seconds(5)


def check_on_demand(group: OnDemandGroup, served: Mapping[str, Sequence[str]]) -> Iterator[Problem]:
    """Report every problem of a group.

    Args:
        group: The group.
        served: By group of stored features, the names that it serves.
    """
    where = f"on-demand group {group.name}"
    yield from check_name(where, group.name)
    yield from check_span(where, "deadline", group.deadline, most=DEADLINE_MAX)
    yield from check_listed(where, "features", group.features)
    if group.name in served:
        yield Problem(where, "a group of stored features has this name", remedy="rename one of them")
    yield from check_clashes(f"{where}, feature", on_demand_names(group))
    for other in listed(group.features):
        if not isinstance(other, OnDemandFeature):
            yield Problem(where, f"{other!r} is no on-demand feature", remedy="write OnDemandFeature(...)")
    for feature in _features(group):
        yield from _check_feature(f"{where}, feature {feature.name}", feature, served)


def check_on_demand_source(
    source: OnDemandSource, taken: Collection[str], keys: Mapping[str, Sequence[str]]
) -> Iterator[Problem]:
    """Report every problem of a source.

    Args:
        source: The source.
        taken: Names of groups.
        keys: By name of an entity that has stored features, its key columns.
    """
    where = f"on-demand source {source.name}"
    yield from check_name(where, source.name)
    yield from check_span(where, "deadline", source.deadline, most=DEADLINE_MAX)
    if source.name in taken:
        yield Problem(where, "a group has this name", remedy="rename one of them")
    if not source.returns:
        yield Problem(where, "it returns nothing", remedy="name its values with their types")
    for name, kind in source.returns.items():
        yield from check_name(where, name)
        yield from _check_type(where, f"its {name} is", kind)
    entity = str(getattr(source.entity, "name", ""))
    if entity not in keys:
        remedy = "use an entity of a group: its sources tell what its keys are"
        yield Problem(where, f"no group is of the entity {entity or repr(source.entity)}", remedy=remedy)
        return
    if strange := list(_check_is_ours(where, source.fetch)):
        yield from strange
    elif not inspect.iscoroutinefunction(source.fetch):
        yield Problem(where, f"{source.fetch.__qualname__} is not async", remedy="define it with async def")
    elif set(_parameters(source.fetch)) != set(keys[entity]):
        remedy = f"let it take {', '.join(keys[entity])}, each a list"
        yield Problem(where, f"it takes {', '.join(_parameters(source.fetch)) or 'nothing'}", remedy=remedy)


def on_demand_names(group: OnDemandGroup) -> list[str]:
    """Return the names of the features in a group, of those that are some."""
    return [feature.name for feature in _features(group)]


def _features(group: OnDemandGroup) -> list[OnDemandFeature]:
    return [feature for feature in listed(group.features) if isinstance(feature, OnDemandFeature)]


def _check_feature(where: str, feature: OnDemandFeature, served: Mapping[str, Sequence[str]]) -> Iterator[Problem]:
    yield from check_name(where, feature.name)
    if wrong := list(_check_type(where, "it returns", feature.returns)):
        yield from wrong
    elif not fits(feature.default, feature.returns):
        yield Problem(
            where, f"the default {feature.default!r} is no {feature.returns.value}", remedy="give one of that type"
        )
    for name, kind in feature.request.items():
        yield from _check_type(where, f"the request's {name} is", kind)
    yield from _check_function(where, feature)
    if not feature.features:
        yield Problem(where, "it takes no feature", remedy="name one at least: its entity tells whom it is of")
    for reference in feature.features.values():
        group, _, name = str(reference).partition(":")
        if group not in served:
            yield Problem(where, f"{reference}: there is no such group", remedy=suggestion(group, served))
        elif name not in served[group]:
            yield Problem(where, f"{reference}: there is no such feature", remedy=suggestion(name, served[group]))


def _check_function(where: str, feature: OnDemandFeature) -> Iterator[Problem]:
    function = feature.function
    if strange := list(_check_is_ours(where, function)):
        yield from strange
        return
    if inspect.iscoroutinefunction(function):
        yield Problem(
            where, f"{function.__qualname__} is async", remedy="fetch in an OnDemandSource, compute from its values"
        )
    if both := sorted(set(feature.features) & set(feature.request)):
        yield Problem(where, f"{both[0]} is a feature and of the request", remedy="rename one of the parameters")
    wanted = _parameters(function)
    given = {*feature.features, *feature.request}
    if given != set(wanted):
        remedy = f"name each of {', '.join(wanted)} in features or request" if wanted else "give it parameters"
        told = f"{function.__qualname__} takes {', '.join(wanted)} and is given {', '.join(sorted(given))}"
        yield Problem(where, told, remedy=remedy)


def _check_type(where: str, what: str, kind: Any) -> Iterator[Problem]:
    if not isinstance(kind, ValueType) or kind is ValueType.LIST:
        yield Problem(where, f"{what} {kind!r}", remedy="name one of ValueType: INT, FLOAT, STR or BOOL")


def _check_is_ours(where: str, function: Any) -> Iterator[Problem]:
    name = getattr(function, "__qualname__", "")
    if not callable(function) or not name or "<" in name:
        yield Problem(
            where, f"{function!r} is no function of a module", remedy="define it with def, outside of other functions"
        )


def _parameters(function: Callable[..., Any]) -> list[str]:
    return [
        parameter.name
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]
