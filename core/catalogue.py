"""The catalogue: what features there are, for people. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from core.definitions import (
    Aggregate,
    Change,
    Feature,
    FeatureGroup,
    OnDemandFeature,
    OnDemandGroup,
    OnDemandSource,
    Registry,
)
from core.models import columns_of
from core.plans import parts_of, plan_group, served_name
from core.values import ValueType
from core.windows import Window


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """One served feature.

    Attributes:
        feature: Name under which it is served.
        keys: Key columns of the entity, in their order.
        default: What is served for a key that nothing is known of: a count of nothing is 0, whatever its default.
        window: ``1h``, ``7d``, ``all``.
        sources: Topics that it is computed from.
        definition: What is computed, as one would write it.
        python_function: Whether an arbitrary Python function takes part, which nothing can check or translate.
        dedupe_note: What its users must know about repeated events, or empty.
    """

    group: str
    feature: str
    entity: str = field(kw_only=True)
    keys: tuple[str, ...] = field(kw_only=True)
    value_type: ValueType = field(kw_only=True)
    unit: str = field(kw_only=True)
    default: Any = field(kw_only=True)
    window: str = field(kw_only=True)
    sources: tuple[str, ...] = field(kw_only=True)
    definition: str = field(kw_only=True)
    owner: str = field(kw_only=True)
    description: str = field(kw_only=True)
    python_function: bool = field(kw_only=True)
    dedupe_note: str = field(kw_only=True)


def catalogue(registry: Registry) -> list[CatalogueEntry]:
    """Return every served feature, in the order in which the definitions stand.

    Raises:
        DefinitionError, ValueError, KeyError: The definitions have problems; ``core.check`` tells them.
    """
    entries = []
    for group in registry.groups:
        plan = plan_group(group)
        empty = dict(zip((served.name for served in plan.features), plan.empty, strict=True))
        entries += [entry for feature in group.features for entry in _entries(group, feature, empty)]
    entries += [entry for source in registry.on_demand_sources for entry in _source_entries(source)]
    stored = {(entry.group, entry.feature): entry for entry in entries}
    return entries + [
        _on_demand_entry(group, feature, [stored[_split(reference)] for reference in feature.features.values()])
        for group in registry.on_demand
        for feature in group.features
    ]


def value_type(feature: Aggregate) -> ValueType:
    """Return the type of the values that a feature aggregates; an event itself counts as an int.

    Raises:
        DefinitionError: The expression does not fit the source's model.
    """
    value = feature.aggregation.value
    return ValueType.INT if value is None else value.type_in(columns_of(feature.source.model))


def result_type(feature: Feature) -> ValueType:
    """Return the type of what a feature serves.

    Raises:
        DefinitionError: As ``value_type``.
    """
    if isinstance(feature, Aggregate):
        return feature.aggregation.result_type(value_type(feature))
    return ValueType.FLOAT


def _entries(group: FeatureGroup, feature: Feature, empty: Mapping[str, Any]) -> Iterator[CatalogueEntry]:
    parts = _parts(group, feature)
    sources = {part.source.topic: part.source for part in parts}
    without_id = [topic for topic, source in sources.items() if source.event_id is None]
    for span in feature.over:
        window = Window.of(span)
        name = served_name(feature, window)
        yield CatalogueEntry(
            group.name,
            name,
            entity=group.entity.name,
            keys=tuple(group.entity.keys),
            value_type=result_type(feature),
            unit=feature.unit,
            default=empty[name],
            window=window.label,
            sources=tuple(sources),
            definition=_definition(feature),
            owner=group.owner,
            description=feature.description,
            python_function=False,
            dedupe_note=_dedupe_note(without_id),
        )


def _on_demand_entry(
    group: OnDemandGroup, feature: OnDemandFeature, inputs: Sequence[CatalogueEntry]
) -> CatalogueEntry:
    return CatalogueEntry(
        group.name,
        feature.name,
        entity=", ".join(dict.fromkeys(entry.entity for entry in inputs)),
        keys=tuple(dict.fromkeys(key for entry in inputs for key in entry.keys)),
        value_type=feature.returns,
        unit=feature.unit,
        default=feature.default,
        window="on demand",
        sources=tuple(dict.fromkeys(source for entry in inputs for source in entry.sources)),
        definition=feature.text,
        owner=group.owner,
        description=feature.description,
        python_function=True,
        dedupe_note="",
    )


def _source_entries(source: OnDemandSource) -> Iterator[CatalogueEntry]:
    for name, kind in source.returns.items():
        yield CatalogueEntry(
            source.name,
            name,
            entity=source.entity.name,
            keys=tuple(source.entity.keys),
            value_type=kind,
            unit="",
            default=None,
            window="on demand",
            sources=(),
            definition=f"{source.fetch.__name__}({', '.join(source.entity.keys)})",
            owner=source.owner,
            description=source.description,
            python_function=True,
            dedupe_note="",
        )


def _split(reference: str) -> tuple[str, str]:
    group, _, feature = reference.partition(":")
    return group, feature


def _parts(group: FeatureGroup, feature: Feature) -> list[Aggregate]:
    by_name = {other.name: other for other in group.features if isinstance(other, Aggregate)}
    return [by_name[name] for name in parts_of(feature)]


def _definition(feature: Feature) -> str:
    if isinstance(feature, Aggregate):
        condition = f" where {feature.where.text}" if feature.where is not None else ""
        return f"{feature.aggregation.text}{condition}"
    if isinstance(feature, Change):
        return f"{feature.of} per time / {feature.of} per time over {Window.of(feature.against).label} - 1"
    return f"{feature.numerator} / {feature.denominator}"


def _dedupe_note(topics_without_id: list[str]) -> str:
    if not topics_without_id:
        return ""
    return f"{', '.join(topics_without_id)}: no event id, so an event that its producer repeats counts twice"
