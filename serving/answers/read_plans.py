"""Read plans: which groups and which of their values answer a request. Made once per request shape, not per request."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from cachebox import LRUCache

from core.definitions import Entity, Registry
from core.errors import RequestError
from core.expressions import Explode
from core.keys import partition_key
from core.models import columns_of, list_item_type
from core.on_demand import OnDemandFeature, OnDemandGroup, OnDemandSource
from core.plans import GroupPlan
from core.topics import row_name
from core.values import ValueType
from serving.answers.ready import has_defaults
from serving.answers.requests import EntityKeys
from serving.tiers.wanted import Terms

_PLANS_MAX = 1_000


@dataclass(frozen=True, slots=True)
class GroupRead:
    """One group of a read.

    Attributes:
        sk: Name of the group's active version.
        places: Which of the row's values are wanted.
        terms: What the group says about copies.
    """

    plan: GroupPlan
    sk: str
    keys: EntityKeys
    places: tuple[int, ...]
    terms: Terms


@dataclass(frozen=True, slots=True, eq=False)
class EntityRead:
    """What a read has of one entity: all groups of it. It is equal to itself alone.

    Attributes:
        types: What each key column's values must be, in the entity's order.
        groups: The groups.
        features: Per answered feature of it, in the answer's order: number of its group here, and of its value in the
            group's rows.
        columns: Where these features stand among all that are answered.
    """

    keys: EntityKeys
    types: tuple[type, ...]
    groups: tuple[GroupRead, ...]
    features: tuple[tuple[int, int], ...]
    columns: tuple[int, ...]

    def row_keys(self, entities: Mapping[str, Sequence[Any]]) -> Sequence[Any] | None:
        """Return what tells the rows of a request apart: the values of the key column, or tuples where there are more.

        None if a column is missing or a value has another type: 1, 1.0 and True would be taken for one.
        """
        columns = [entities.get(name, ()) for name in self.keys.columns]
        for values, kind in zip(columns, self.types, strict=True):
            if set(map(type, values)) != {kind}:
                return None
        return columns[0] if len(columns) == 1 else list(zip(*columns, strict=True))

    def encode(self, row_keys: Sequence[Any]) -> list[str]:
        """Return the encoded keys of some rows, in their order.

        Raises:
            RequestError: One of them can be none.
        """
        names = list(self.keys.columns)
        columns = [row_keys] if len(names) == 1 else list(zip(*row_keys, strict=True))
        return self.keys.encode({name: list(values) for name, values in zip(names, columns, strict=True)})


COMPUTED = -1
"""Instead of a group's number: the value is computed on demand."""

FETCHED = -2
"""Instead of a group's number: the value is fetched on demand."""


@dataclass(frozen=True, slots=True)
class FetchedRead:
    """An on-demand source of a read.

    Attributes:
        names: Which of its values are wanted.
    """

    source: OnDemandSource
    keys: EntityKeys
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ComputedRead:
    """An on-demand feature of a read.

    Attributes:
        inputs: By parameter, number of the group and of its value in it that it is given; or ``FETCHED`` and the
            number among all fetched values.
    """

    group: OnDemandGroup
    feature: OnDemandFeature
    inputs: Mapping[str, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """How a request is answered.

    Attributes:
        groups: Groups that are read, for the answer or as inputs of what is computed.
        fetched: Sources that are asked, likewise.
        computed: What is computed from them.
        references: ``group:feature`` of each answered feature.
        key_columns: Key columns that are answered first.
        names: Names of the features, in the order of the answer.
        feature_names: Names of all columns of the answer.
        order: Per answered feature: number of its group and of its value in it; or ``COMPUTED`` or ``FETCHED``, and its
            number there.
        entities: The same by entity, where all of it comes from rows.
    """

    groups: tuple[GroupRead, ...]
    fetched: tuple[FetchedRead, ...]
    computed: tuple[ComputedRead, ...]
    references: tuple[str, ...]
    key_columns: tuple[str, ...]
    names: tuple[str, ...]
    feature_names: tuple[str, ...]
    order: tuple[tuple[int, int], ...]
    entities: tuple[EntityRead, ...]

    @property
    def is_stored(self) -> bool:
        """Whether all of it comes from rows."""
        return not self.computed and not self.fetched

    @property
    def has_more_than_rows(self) -> bool:
        """Whether there is an answer although no row can be read: values of sources, or defaults."""
        return bool(self.fetched) or any(has_defaults(read.plan) for read in self.groups)

    @property
    def columns(self) -> dict[str, ValueType]:
        """Columns that a request needs, with their types: keys first, then what else is computed from."""
        kinds: dict[str, ValueType] = {}
        for keys in [*(read.keys for read in self.groups), *(read.keys for read in self.fetched)]:
            kinds |= keys.columns
        for computed in self.computed:
            kinds |= computed.feature.request
        return kinds


@dataclass(slots=True)
class _Draft:
    """A plan that is being made.

    Attributes:
        groups: By name of a group, which of its values are wanted.
        fetched: By name of a source, which of its values are wanted.
        computed: Which on-demand features.
    """

    groups: dict[str, list[int]] = field(default_factory=dict)
    fetched: dict[str, list[str]] = field(default_factory=dict)
    computed: list[tuple[str, str]] = field(default_factory=list)


class Planner:
    """Plans requests of one registry; remembers the plans of recent request shapes."""

    def __init__(self, registry: Registry, plans: Mapping[str, GroupPlan], numbers: Mapping[str, int]) -> None:
        self._plans = plans
        self._numbers = numbers
        self._keys = {name: EntityKeys(name, key_types(registry, entity)) for name, entity in registry.entities.items()}
        self._services = {service.name: service for service in registry.services}
        self._on_demand = {
            (group.name, feature.name): (group, feature) for group in registry.on_demand for feature in group.features
        }
        self._sources = {source.name: source for source in registry.on_demand_sources}
        self._remembered: LRUCache[tuple[object, ...], ReadPlan] = LRUCache(maxsize=_PLANS_MAX)

    def plan(self, *, features: Sequence[str] | None, service: str | None, full_names: bool) -> ReadPlan:
        """Return the plan of a request.

        Raises:
            RequestError: 404 for an unknown group or service, 400 for an unknown feature or names that collide.
        """
        shape = (service, full_names) if service is not None else (tuple(features or ()), full_names)
        plan = self._remembered.get(shape)
        if not plan:
            references = (
                self._of_service(service) if service is not None else [self._active(text) for text in features or ()]
            )
            plan = self._remembered[shape] = self._make(references, full_names=full_names)
        return plan

    def version(self, group: str) -> int:
        """Return the number of a group's active version."""
        return self._numbers[group]

    def _of_service(self, name: str) -> list[tuple[str, str]]:
        service = self._services.get(name)
        if service is None:
            raise RequestError(
                404, f"feature service {name!r} does not exist{_similar(name, self._services)}",
                "FeatureServiceNotFoundException",
            )  # fmt: skip
        whole = [(group.name, feature.name) for group in service.groups for feature in self._plans[group.name].features]
        return list(dict.fromkeys([*whole, *(self._active(text) for text in service.features)]))

    def _active(self, text: str) -> tuple[str, str]:
        """Return group and feature of a reference; a version may be named, but only the active one is served."""
        group, number, feature = _split(text)
        active = self._numbers.get(group)
        if number not in ("", "latest", f"v{active}") and active is not None:
            raise RequestError(
                404, f"features: {text!r}: version {number!r} of {group!r} is not served; the active one is v{active}",
                "FeatureViewNotFoundException",
            )  # fmt: skip
        return group, feature

    def _make(self, references: Sequence[tuple[str, str]], *, full_names: bool) -> ReadPlan:
        draft = _Draft()
        places = [self._want(draft, group, feature) for group, feature in references]
        # What is computed wants its inputs, too.
        inputs = [
            {name: self._want(draft, *self._active(text)) for name, text in self._on_demand[one][1].features.items()}
            for one in draft.computed
        ]
        names = tuple(f"{group}__{feature}" if full_names else feature for group, feature in references)
        _refuse_collisions(names, references)
        groups = tuple(self._read(group, tuple(mine)) for group, mine in draft.groups.items())
        fetched = tuple(self._fetch(source, tuple(mine)) for source, mine in draft.fetched.items())
        keys = [*(read.keys for read in groups), *(read.keys for read in fetched)]
        key_columns = tuple(dict.fromkeys(column for one in keys for column in one.columns))
        _refuse_key_names(names, references, key_columns)
        number = _numbers(draft)
        computed = tuple(
            ComputedRead(*self._on_demand[one], {name: number(place) for name, place in given.items()})
            for one, given in zip(draft.computed, inputs, strict=True)
        )
        texts = tuple(f"{group}:{feature}" for group, feature in references)
        order = tuple(number(place) for place in places)
        entities = _by_entity(groups, order) if not (fetched or computed) else ()
        return ReadPlan(groups, fetched, computed, texts, key_columns, names, (*key_columns, *names), order, entities)

    def _want(self, draft: _Draft, group: str, feature: str) -> tuple[str, str | int]:
        """Note that a value is wanted; return where it is to be found."""
        if (group, feature) in self._on_demand:
            if (group, feature) not in draft.computed:
                draft.computed.append((group, feature))
            return "", draft.computed.index((group, feature))
        source = self._sources.get(group)
        if source is not None:
            if feature not in source.returns:
                raise RequestError(
                    400, f"features: {group!r} has no value {feature!r}{_similar(feature, list(source.returns))}"
                )
            names = draft.fetched.setdefault(group, [])
            if feature not in names:
                names.append(feature)
            return group, feature
        place, mine = self._place(group, feature), draft.groups.setdefault(group, [])
        if place not in mine:
            mine.append(place)
        return group, mine.index(place)

    def _fetch(self, source: str, names: tuple[str, ...]) -> FetchedRead:
        return FetchedRead(self._sources[source], self._keys[self._sources[source].entity.name], names)

    def _read(self, group: str, places: tuple[int, ...]) -> GroupRead:
        plan = self._plans[group]
        sk, keys = row_name(group, self._numbers[group]), self._keys[plan.group.entity.name]
        return GroupRead(plan, sk, keys, places, terms_of(plan))

    def _place(self, group: str, feature: str) -> int:
        plan = self._plans.get(group)
        if plan is None and any(group == name for name, _ in self._on_demand):
            known = [name for of, name in self._on_demand if of == group]
            raise RequestError(400, f"features: {group!r} has no feature {feature!r}{_similar(feature, known)}")
        if plan is None:
            raise RequestError(
                404, f"feature group {group!r} does not exist{_similar(group, self._plans)}",
                "FeatureViewNotFoundException",
            )  # fmt: skip
        names = [served.name for served in plan.features]
        if feature not in names:
            raise RequestError(400, f"features: {group!r} has no feature {feature!r}{_similar(feature, names)}")
        return names.index(feature)


def _by_entity(groups: Sequence[GroupRead], order: Sequence[tuple[int, int]]) -> tuple[EntityRead, ...]:
    """Return a read by entity: rows of one key go together."""
    found = []
    for entity in dict.fromkeys(group.keys.entity for group in groups):
        numbers = [number for number, group in enumerate(groups) if group.keys.entity == entity]
        columns = [column for column, (group, _) in enumerate(order) if group in numbers]
        features = [
            (numbers.index(group), groups[group].places[place])
            for group, place in (order[column] for column in columns)
        ]
        mine = tuple(groups[number] for number in numbers)
        keys = mine[0].keys
        types = tuple(int if kind is ValueType.INT else str for kind in keys.columns.values())
        found.append(EntityRead(keys, types, mine, tuple(features), tuple(columns)))
    return tuple(found)


def _numbers(draft: _Draft) -> Callable[[tuple[str, str | int]], tuple[int, int]]:
    """Return what tells the numbers under which a wanted value stands in the plan."""
    groups = {name: number for number, name in enumerate(draft.groups)}
    columns = [(source, name) for source, names in draft.fetched.items() for name in names]
    fetched = {column: number for number, column in enumerate(columns)}

    def number(place: tuple[str, str | int]) -> tuple[int, int]:
        name, value = place
        if isinstance(value, str):
            return FETCHED, fetched[name, value]
        return (groups[name] if name else COMPUTED), value

    return number


def key_types(registry: Registry, entity: Entity) -> dict[str, ValueType]:
    """Return the key columns of an entity with their types, as its sources' models say."""
    source = next(source for group in registry.groups if group.entity.name == entity.name for source in group.sources)
    columns = columns_of(source.model)
    types: dict[str, ValueType] = {}
    for name in entity.keys:
        expression = source.keys.get(name)
        if isinstance(expression, Explode):
            types[name] = list_item_type(source.model, expression.column) or ValueType.STR
        else:
            types[name] = expression.type_in(columns) if expression is not None else columns[name]
    return types


def terms_of(plan: GroupPlan) -> Terms:
    """Return what a group says about copies of its rows."""
    return Terms(plan.group.serving, plan.group.writing.cached, plan.fingerprint)


def row_pk(read: GroupRead, encoded: str) -> str:
    """Return where all rows of a key stand."""
    return partition_key(read.keys.entity, encoded)


def _split(reference: str) -> tuple[str, str, str]:
    """Return group, version (empty where none is named) and feature; Feast writes ``group@v2:feature``."""
    group, colon, feature = reference.partition(":")
    if not colon or not group or not feature:
        raise RequestError(400, f"features: {reference!r} is no reference; write group:feature")
    name, at, number = group.partition("@")
    if at and not number:
        raise RequestError(400, f"features: {reference!r} names no version; write group@v1:feature or group:feature")
    return name, number, feature


def _refuse_collisions(names: Sequence[str], references: Sequence[tuple[str, str]]) -> None:
    seen: dict[str, tuple[str, str]] = {}
    for name, reference in zip(names, references, strict=True):
        if name in seen:
            first, second = ":".join(seen[name]), ":".join(reference)
            raise RequestError(
                400, f"features: {first} and {second} would both be answered as {name!r}; set full_feature_names",
                "FeatureNameCollisionError",
            )  # fmt: skip
        seen[name] = reference


def _refuse_key_names(names: Sequence[str], references: Sequence[tuple[str, str]], key_columns: Sequence[str]) -> None:
    """Refuse a feature that is named like a key column of another entity in the request: clients map by name."""
    for name, reference in zip(names, references, strict=True):
        if name in key_columns:
            raise RequestError(
                400, f"features: {':'.join(reference)} would be answered as {name!r}, as the key column is; set "
                "full_feature_names", "FeatureNameCollisionError",
            )  # fmt: skip


def _similar(name: str, known: Mapping[str, object] | Sequence[str]) -> str:
    matches = get_close_matches(name, list(known), n=3)
    return f"; did you mean {', '.join(matches)}?" if matches else ""
