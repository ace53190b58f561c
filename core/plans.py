"""Plans: definitions compiled once, so that no event and no read interprets them again.

A slot is one aggregation over one source, value and condition; features that differ only in their window share it.
A resolution is a tile size with the slots that some window of that size needs. The fingerprint is a hash of the
meaning alone: names, entity, sources, expressions, aggregations, windows; not of order, description, owner or policy.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, NamedTuple

from core.aggregations import Aggregation
from core.definitions import Aggregate, Change, Feature, FeatureGroup, Ratio, Source
from core.expressions import Explode, col
from core.models import columns_of
from core.rows import FINGERPRINT_BYTES
from core.windows import Window, to_ms


@dataclass(frozen=True, slots=True)
class Slot:
    """What one state of a tile holds.

    Attributes:
        value: Text of the aggregated expression, or None where the event itself is counted.
        where: Text of the condition, or None.
    """

    source: str
    aggregation: Aggregation
    value: str | None
    where: str | None


@dataclass(frozen=True, slots=True)
class Resolution:
    """All tiles of one size.

    Attributes:
        tile_ms: Size of a tile, 0 for all time.
        size_max_ms: Longest window that is made of them, 0 for all time.
        slots: The states of a tile, in canonical order.
        windows: The windows made of them.
    """

    tile_ms: int
    size_max_ms: int
    slots: tuple[Slot, ...]
    windows: tuple[Window, ...]

    def oldest_kept(self, instant_ms: int) -> int:
        """Return the oldest tile that may still be needed at an instant or after; one tile longer than it is.

        >>> Resolution(300_000, 3_600_000, (), ()).oldest_kept(4_199_999)
        0
        >>> Resolution(300_000, 3_600_000, (), ()).oldest_kept(4_200_000)
        1
        """
        return (instant_ms - self.size_max_ms) // self.tile_ms - 1 if self.tile_ms else 0


@dataclass(frozen=True, slots=True)
class Step:
    """What an event of a source does to a row: one aggregation of one value, in every resolution that has it.

    Attributes:
        places: Per resolution that has it: number of the resolution, number of the slot.
    """

    aggregation: Aggregation
    value: str | None
    where: str | None
    places: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class ServedFeature:
    """One served value.

    Attributes:
        resolution: Number of its resolution, for a ratio or change that of its parts.
        slot: Number of its slot in the resolution, for a ratio that of the numerator, for a change that of its subject.
        denominator: Number of the denominator's slot, or None if it is no ratio.
        default: Served instead of null.
    """

    name: str
    window: Window
    resolution: int
    slot: int
    denominator: int | None
    default: Any
    definition: Feature

    @property
    def empty(self) -> Any:
        """What is served for a key that nothing is known of."""
        if not isinstance(self.definition, Aggregate):
            return self.default
        value = self.definition.aggregation.result(self.definition.aggregation.zero())
        return self.default if value is None else value


@dataclass(frozen=True, slots=True)
class WindowPlan:
    """One window of one resolution, ready to be merged.

    Attributes:
        resolution: Number of the resolution.
        slots: Numbers, in the resolution, of the states that are merged.
        outputs: Per feature of the window: place among the row's values, number of its slot in the resolution, that of
            its denominator or None, default.
    """

    window: Window
    resolution: int
    slots: tuple[int, ...]
    outputs: tuple[tuple[int, int, int | None, Any], ...]


class ChangePlan(NamedTuple):
    """One change, computed from two other values of the row.

    Attributes:
        place: Its place among the row's values.
        now: Place of its subject over the window.
        usual: Place of its subject over the longer window.
        times: How many of the window make up the longer one.
        default: Served instead of null.
    """

    place: int
    now: int
    usual: int
    times: float
    default: Any


@dataclass(frozen=True, slots=True, eq=False)
class GroupPlan:
    """A group, ready to be computed and served; a plan is equal to itself alone.

    Attributes:
        fingerprint: 8 bytes.
        features: In the order of their names: the order of a row's values.
        empty: What is served for a key that nothing is known of, in the features' order.
        windows: The windows of all resolutions.
        changes: What is computed from the values of the windows.
        steps: Per source what each of its events does.
    """

    group: FeatureGroup
    fingerprint: bytes
    resolutions: tuple[Resolution, ...]
    features: tuple[ServedFeature, ...]
    empty: tuple[Any, ...]
    windows: tuple[WindowPlan, ...]
    changes: tuple[ChangePlan, ...]
    steps: Mapping[str, tuple[Step, ...]]

    @property
    def name(self) -> str:
        """The group's name."""
        return self.group.name


def plan_group(group: FeatureGroup) -> GroupPlan:
    """Compile a group.

    Raises:
        DefinitionError: An expression does not fit its source's model.
        ValueError: A window has no tile.
        KeyError: A ratio names a feature that is not there. ``core.check`` tells all of these in better words.
    """
    aggregates = [feature for feature in group.features if isinstance(feature, Aggregate)]
    windows = {Window.of(span) for feature in aggregates for span in feature.over}
    wanted: dict[int, dict[str, Slot]] = {}
    for feature in aggregates:
        for span in feature.over:
            slot = slot_of(feature)
            wanted.setdefault(Window.of(span).tile_ms, {})[_slot_text(slot)] = slot
    resolutions = tuple(
        Resolution(
            tile_ms,
            max(window.size_ms for window in windows if window.tile_ms == tile_ms),
            tuple(slots[text] for text in sorted(slots)),
            tuple(
                sorted((window for window in windows if window.tile_ms == tile_ms), key=lambda window: window.size_ms)
            ),
        )
        for tile_ms, slots in sorted(wanted.items())
    )
    features = sorted(_serve(group, resolutions), key=lambda feature: feature.name)
    return GroupPlan(
        group,
        _fingerprint(group, features, resolutions),
        resolutions,
        tuple(features),
        tuple(feature.empty for feature in features),
        tuple(_plan_windows(features, resolutions)),
        tuple(_plan_changes(group, features)),
        _steps_by_source(group, resolutions),
    )


def slot_of(feature: Aggregate) -> Slot:
    """Return what a feature keeps in each of its tiles."""
    value = feature.aggregation.value
    return Slot(
        feature.source.topic,
        feature.aggregation,
        value.text if value is not None else None,
        feature.where.text if feature.where is not None else None,
    )


def _plan_windows(features: list[ServedFeature], resolutions: tuple[Resolution, ...]) -> Iterator[WindowPlan]:
    for number, resolution in enumerate(resolutions):
        for window in resolution.windows:
            mine = [
                (place, feature)
                for place, feature in enumerate(features)
                if feature.resolution == number
                and feature.window == window
                and not isinstance(feature.definition, Change)
            ]
            needed = {slot for _, feature in mine for slot in (feature.slot, feature.denominator) if slot is not None}
            outputs = [(place, feature.slot, feature.denominator, feature.default) for place, feature in mine]
            yield WindowPlan(window, number, tuple(sorted(needed)), tuple(outputs))


def _plan_changes(group: FeatureGroup, features: list[ServedFeature]) -> Iterator[ChangePlan]:
    places = {feature.name: place for place, feature in enumerate(features)}
    by_name = {feature.name: feature for feature in group.features}
    for place, feature in enumerate(features):
        change = feature.definition
        if isinstance(change, Change):
            now, usual = feature.window, Window.of(change.against)
            now_place, usual_place = (places[served_name(by_name[change.of], window)] for window in (now, usual))
            yield ChangePlan(place, now_place, usual_place, usual.size_ms / now.size_ms, change.default)


def _steps_by_source(group: FeatureGroup, resolutions: tuple[Resolution, ...]) -> dict[str, tuple[Step, ...]]:
    places: dict[str, dict[str, tuple[Slot, list[tuple[int, int]]]]] = {}
    for number, resolution in enumerate(resolutions):
        for place, slot in enumerate(resolution.slots):
            of_source = places.setdefault(slot.source, {})
            of_source.setdefault(_slot_text(slot), (slot, []))[1].append((number, place))
    return {
        source.topic: tuple(
            Step(slot.aggregation, slot.value, slot.where, tuple(found))
            for slot, found in places[source.topic].values()
        )
        for source in group.sources
    }


def _serve(group: FeatureGroup, resolutions: tuple[Resolution, ...]) -> list[ServedFeature]:
    places = {
        (number, _slot_text(slot)): place
        for number, resolution in enumerate(resolutions)
        for place, slot in enumerate(resolution.slots)
    }
    numbers = {resolution.tile_ms: number for number, resolution in enumerate(resolutions)}
    by_name = {feature.name: feature for feature in group.features if isinstance(feature, Aggregate)}
    served = []
    for feature in group.features:
        for span in feature.over:
            window = Window.of(span)
            number = numbers[window.tile_ms]
            parts = [by_name[name] for name in parts_of(feature)]
            slots = [places[number, _slot_text(slot_of(part))] for part in parts]
            name = served_name(feature, window)
            denominator = slots[1] if len(slots) > 1 else None
            served.append(ServedFeature(name, window, number, slots[0], denominator, feature.default, feature))
    return served


def parts_of(feature: Feature) -> tuple[str, ...]:
    """Return the names of the aggregates that a feature is computed from, its own if it is one."""
    if isinstance(feature, Ratio):
        return feature.numerator, feature.denominator
    return (feature.of if isinstance(feature, Change) else feature.name,)


def served_name(feature: Feature, window: Window) -> str:
    """Return the name under which a feature is served over a window."""
    if isinstance(feature, Aggregate) and not feature.suffixed:
        return feature.name
    return f"{feature.name}_{window.label}"


def _slot_text(slot: Slot) -> str:
    return f"{slot.source}|{slot.aggregation.text}|{slot.where or ''}"


def _fingerprint(group: FeatureGroup, features: list[ServedFeature], resolutions: tuple[Resolution, ...]) -> bytes:
    meaning = {
        "group": group.name,
        "entity": [group.entity.name, list(group.entity.keys), group.entity.partitions],
        "sources": sorted(_source_meaning(group, source) for source in group.sources),
        "slots": [[resolution.tile_ms, [_slot_text(slot) for slot in resolution.slots]] for resolution in resolutions],
        "features": [
            [
                feature.name,
                feature.window.size_ms,
                feature.resolution,
                feature.slot,
                feature.denominator,
                feature.default,
                *([Window.of(feature.definition.against).size_ms] if isinstance(feature.definition, Change) else []),
            ]
            for feature in features
        ],
    }
    return blake2b(json.dumps(meaning, sort_keys=True).encode(), digest_size=FINGERPRINT_BYTES).digest()


def _source_meaning(group: FeatureGroup, source: Source) -> list[Any]:
    """Return what a source means to a group: only of the columns that it reads, so that others may come and go."""
    keys = {name: source.keys.get(name, col(name)) for name in group.entity.keys}
    read: set[str] = set()
    for key in keys.values():
        read |= {key.column} if isinstance(key, Explode) else key.columns()
    for feature in group.features:
        if isinstance(feature, Aggregate) and feature.source.topic == source.topic:
            for expression in (feature.aggregation.value, feature.where):
                read |= expression.columns() if expression is not None else frozenset()
    types = columns_of(source.model)
    return [
        source.topic,
        source.event_time,
        source.event_id or "",
        to_ms(source.lateness),
        to_ms(source.dedupe),
        sorted([name, repr(value)] for name, value in keys.items()),
        sorted([name, types[name].value] for name in read if name in types),
    ]
