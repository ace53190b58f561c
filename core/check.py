"""Checking definitions: every problem at once, each with its place, reason and remedy. Pure; nothing is raised.

One function per kind of definition: groups and services here, features in ``core.check_features``, entities and
sources in ``core.check_sources``, how groups are read and written in ``core.check_policies``, canaries in
``core.check_canary``.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from core.canary import tells_soon
from core.check_canary import check_canary
from core.check_features import check_aggregate, check_change, check_ratio, is_model, served_names
from core.check_on_demand import check_on_demand, check_on_demand_source, on_demand_names
from core.check_policies import check_policies
from core.check_sources import check_entity, check_key_types, check_one_meaning, check_source
from core.definitions import (
    Aggregate,
    Change,
    Entity,
    Feature,
    FeatureGroup,
    FeatureService,
    OnDemandGroup,
    OnDemandSource,
    Ratio,
    Registry,
    Source,
)
from core.problems import (
    Problem,
    check_clashes,
    check_listed,
    check_name,
    check_whole_number,
    listed,
    suggestion,
)
from core.row_size import ROW_BYTES_MAX, WorstRow, worst_row
from core.text_size import undeclared_fields
from core.values import TEXT_BYTES_MAX
from core.windows import ALL_TIME

__all__ = ["Problem", "check_registry"]

_FIELDS: Mapping[str, type] = {
    "groups": FeatureGroup,
    "services": FeatureService,
    "on_demand": OnDemandGroup,
    "on_demand_sources": OnDemandSource,
}
_CONTRIBUTORS = 3

T = TypeVar("T")


def check_registry(registry: Registry) -> list[Problem]:
    """Return all problems of the definitions; without an error among them they can run."""
    groups = [group for group in listed(registry.groups) if isinstance(group, FeatureGroup)]
    on_demand = [group for group in listed(registry.on_demand) if isinstance(group, OnDemandGroup)]
    on_demand_sources = [source for source in listed(registry.on_demand_sources) if isinstance(source, OnDemandSource)]
    services = [service for service in listed(registry.services) if isinstance(service, FeatureService)]
    feeds = [(group.entity, source) for group in groups for source in _sources(group) if _has_entity(group)]
    entities = _distinct(group.entity for group in groups if _has_entity(group))
    sources = _distinct(source for group in groups for source in _sources(group))
    problems = [
        *check_listed("registry", "groups", registry.groups),
        *_check_fields(registry),
        *check_clashes("group", [group.name for group in groups]),
        *check_clashes("service", [service.name for service in services]),
        *check_clashes("on-demand group", [group.name for group in on_demand]),
        *check_clashes("on-demand source", [source.name for source in on_demand_sources]),
        *check_one_meaning(entities, sources),
        *check_key_types(feeds),
    ]
    for entity in entities:
        problems += check_entity(entity)
    for source in sources:
        problems += check_source(source, [entity for entity, fed_by in feeds if fed_by is source])
        if is_model(source.model):
            problems += check_canary(source, _watching(source, groups))
    for group in groups:
        problems += _check_group(group)
    keys = {entity.name: listed(entity.keys) for entity in entities}
    taken = {group.name for group in groups} | {group.name for group in on_demand}
    for fetched in on_demand_sources:
        problems += check_on_demand_source(fetched, taken, keys)
    served = {str(group.name): _served(group) for group in groups}
    served |= {source.name: list(source.returns) for source in on_demand_sources}
    for demanded in on_demand:
        problems += check_on_demand(demanded, served)
    known = served | {group.name: on_demand_names(group) for group in on_demand}
    for service in services:
        problems += _check_service(service, groups, known)
    return list(dict.fromkeys(problems))


def _check_fields(registry: Registry) -> Iterator[Problem]:
    """Report what stands in another field of the registry than where it belongs."""
    for field, kind in _FIELDS.items():
        value = getattr(registry, field)
        if value:
            yield from check_listed("registry", field, value)
        for other in listed(value):
            if isinstance(other, kind):
                continue
            right = next((name for name, of in _FIELDS.items() if isinstance(other, of)), None)
            remedy = f"move it to {right}" if right is not None else f"give {kind.__name__}(...)"
            name = getattr(other, "name", repr(other))
            yield Problem("registry", f"{field} holds the {type(other).__name__} {name}", remedy=remedy)


def _check_group(group: FeatureGroup) -> Iterator[Problem]:
    where = f"group {group.name}"
    yield from check_name(where, group.name)
    if not _has_entity(group):
        yield Problem(where, f"{group.entity!r} is no entity", remedy="give the Entity itself")
    yield from check_listed(where, "features", group.features)
    yield from _check_features(where, group)
    yield from _check_served_names(where, group)
    sound = [feature for feature in _features(group) if isinstance(feature, Aggregate) and _is_sound(feature)]
    ratios = sum(len(served_names(feature)) for feature in _features(group) if isinstance(feature, Ratio | Change))
    worst = worst_row(sound, ratios=ratios)
    yield from check_policies(where, group, row_bytes=worst.row_bytes)
    yield from _check_max_age(where, group)
    yield from _check_row_size(where, group, sound, worst, ratios=ratios)


def _check_features(where: str, group: FeatureGroup) -> Iterator[Problem]:
    features = _features(group)
    for feature in listed(group.features):
        if isinstance(feature, Aggregate):
            yield from check_aggregate(f"{where}, feature {feature.name}", feature)
        elif isinstance(feature, Ratio):
            yield from check_ratio(f"{where}, feature {feature.name}", feature, features)
        elif isinstance(feature, Change):
            yield from check_change(f"{where}, feature {feature.name}", feature, features)
        else:
            remedy = "write aggregate(...), latest(...), Ratio(...) or Change(...)"
            yield Problem(where, f"{feature!r} is no feature", remedy=remedy)


def _check_served_names(where: str, group: FeatureGroup) -> Iterator[Problem]:
    features = _features(group)
    names = [str(feature.name) for feature in features]
    keys = listed(group.entity.keys) if _has_entity(group) else ()
    # A name that stands twice is reported as such, not again with each window.
    served = [(feature, name) for feature in features for name in served_names(feature)]
    yield from check_clashes(f"{where}, feature", names)
    yield from check_clashes(
        f"{where}, feature", [name for feature, name in served if names.count(str(feature.name)) == 1]
    )
    for feature, name in served:
        place = f"{where}, feature {feature.name}"
        if name in keys:
            yield Problem(place, f"{name} is a key of {group.entity.name} too", remedy="rename the feature")
        if not check_name(place, feature.name):
            yield from check_name(place, name)


def _check_max_age(where: str, group: FeatureGroup) -> Iterator[Problem]:
    windowed = [
        feature.name for feature in _features(group) if any(span is not ALL_TIME for span in listed(feature.over))
    ]
    if group.serving.max_age is not None and windowed:
        reason = f"max_age is for states, and windows decay by themselves: {', '.join(map(str, windowed))}"
        yield Problem(where, reason, remedy="leave max_age out, or give the states a group of their own")


def _check_row_size(
    where: str, group: FeatureGroup, sound: Sequence[Aggregate], worst: WorstRow, *, ratios: int
) -> Iterator[Problem]:
    wrong = check_whole_number(where, "row_bytes_max", group.row_bytes_max, least=1, most=ROW_BYTES_MAX)
    yield from wrong
    if wrong or worst.row_bytes <= group.row_bytes_max:
        yield from _check_long_texts(where, sound, worst, ratios=ratios)
        return
    largest = ", ".join(f"{name} {size:,}" for name, size in list(worst.parts.items())[:_CONTRIBUTORS])
    reason = f"its worst row has {worst.row_bytes:,} bytes, the limit is {group.row_bytes_max:,}; most are of {largest}"
    smaller = "take fewer windows or smaller states (n, values_max, counters, precision, buckets)"
    remedy = f"{smaller}, divide the group in two, or raise row_bytes_max"
    yield Problem(where, reason, remedy=remedy)


def _check_long_texts(where: str, features: Sequence[Aggregate], usual: WorstRow, *, ratios: int) -> Iterator[Problem]:
    """Warn of a row that no store would take if texts were as long as they may be."""
    worst = worst_row(features, ratios=ratios, text_bytes_max=TEXT_BYTES_MAX)
    if worst.row_bytes <= ROW_BYTES_MAX:
        return
    causes = [name for name, size in worst.parts.items() if size > usual.parts[name]][:_CONTRIBUTORS]
    fields = [
        f"{feature.source.model.__name__}.{name}"
        for feature in features
        if feature.name in causes and feature.aggregation.value is not None
        for name in undeclared_fields(feature.aggregation.value, feature.source.model)
    ]
    reason = (
        f"its worst row has {worst.row_bytes:,} bytes if each text in {', '.join(causes)} is as long as "
        f"it may be; above {ROW_BYTES_MAX:,} DynamoDB refuses it, and the worker ends"
    )
    told = ", ".join(dict.fromkeys(fields))
    remedy = f"declare max_length for {told}, or make it a Literal" if told else "give their fields a lower max_length"
    yield Problem(where, reason, remedy=remedy, severity="warning")


def _check_service(
    service: FeatureService, groups: Sequence[FeatureGroup], known: Mapping[str, Sequence[str]]
) -> Iterator[Problem]:
    where = f"service {service.name}"
    yield from check_name(where, service.name)
    if not listed(service.groups) and not listed(service.features):
        yield Problem(where, "nothing is in it", remedy="list groups, or features as group:feature")
    for group in listed(service.groups):
        if not any(group is other for other in groups):
            if isinstance(group, OnDemandGroup | OnDemandSource):
                remedy = f'name what is wanted of it: features=("{group.name}:...",)'
                yield Problem(where, f"{group.name} is made on demand, and groups are stored ones", remedy=remedy)
                continue
            name = group.name if isinstance(group, FeatureGroup) else repr(group)
            yield Problem(where, f"the group {name} is not in the registry", remedy="list it in the registry too")
    for reference in listed(service.features):
        group_name, colon, feature = str(reference).partition(":")
        if not colon:
            yield Problem(where, f"{reference!r} names no group", remedy="write group:feature")
        elif group_name not in known:
            yield Problem(where, f"{reference}: there is no such group", remedy=suggestion(group_name, known))
        elif feature not in known[group_name]:
            remedy = suggestion(feature, known[group_name])
            yield Problem(where, f"{reference}: there is no such feature", remedy=remedy)


def _watching(source: Source, groups: Sequence[FeatureGroup]) -> dict[str, list[Aggregate]]:
    """Return the sound features over a source, of those groups that are published soon enough to tell of a canary."""
    soon = filter(tells_soon, groups)
    fed = {str(group.name): [one for one in _features(group) if isinstance(one, Aggregate)] for group in soon}
    return {name: [one for one in mine if one.source is source and _is_sound(one)] for name, mine in fed.items()}


def _served(group: FeatureGroup) -> list[str]:
    return [name for feature in _features(group) for name in served_names(feature)]


def _features(group: FeatureGroup) -> list[Feature]:
    return [feature for feature in listed(group.features) if isinstance(feature, Aggregate | Ratio | Change)]


def _sources(group: FeatureGroup) -> list[Source]:
    # Not group.sources: it knows one source per topic, and takes for granted that all are well made.
    sources = (feature.source for feature in _features(group) if isinstance(feature, Aggregate))
    return _distinct(source for source in sources if isinstance(source, Source))


def _has_entity(group: FeatureGroup) -> bool:
    return isinstance(group.entity, Entity)


def _is_sound(feature: Aggregate) -> bool:
    return isinstance(feature.source, Source) and is_model(feature.source.model) and not check_aggregate("", feature)


def _distinct(items: Iterable[T]) -> list[T]:
    return list({id(item): item for item in items}.values())
