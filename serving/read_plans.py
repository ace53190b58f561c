"""Read plans: which groups and which of their values answer a request. Made once per request shape, not per request."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from core.definitions import Entity, Registry
from core.errors import RequestError
from core.expressions import Explode
from core.keys import partition_key
from core.models import columns_of, list_item_type
from core.on_demand import OnDemandFeature, OnDemandGroup
from core.plans import GroupPlan
from core.topics import row_name
from core.values import ValueType
from serving.requests import EntityKeys

_PLANS_MAX = 1_000


@dataclass(frozen=True, slots=True)
class GroupRead:
    """One group of a read.

    Attributes:
        sk: Name of the group's active version.
        places: Which of the row's values are wanted.
    """

    plan: GroupPlan
    sk: str
    keys: EntityKeys
    places: tuple[int, ...]


COMPUTED = -1
"""Instead of a group's number: the value is computed on demand."""


@dataclass(frozen=True, slots=True)
class ComputedRead:
    """An on-demand feature of a read.

    Attributes:
        inputs: By parameter, number of the group and of the row's value that it is given.
    """

    group: OnDemandGroup
    feature: OnDemandFeature
    inputs: Mapping[str, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """How a request is answered.

    Attributes:
        groups: Groups that are read, for the answer or as inputs of what is computed.
        computed: What is computed from them.
        references: ``group:feature`` of each answered feature.
        key_columns: Key columns that are answered first.
        names: Names of the features, in the order of the answer.
        feature_names: Names of all columns of the answer.
        order: Per answered feature: number of its group and of its value in it, or ``COMPUTED`` and its number there.
    """

    groups: tuple[GroupRead, ...]
    computed: tuple[ComputedRead, ...]
    references: tuple[str, ...]
    key_columns: tuple[str, ...]
    names: tuple[str, ...]
    feature_names: tuple[str, ...]
    order: tuple[tuple[int, int], ...]


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
        self._remembered: dict[tuple[object, ...], ReadPlan] = {}

    def plan(self, *, features: Sequence[str] | None, service: str | None, full_names: bool) -> ReadPlan:
        """Return the plan of a request.

        Raises:
            RequestError: 404 for an unknown group or service, 400 for an unknown feature or names that collide.
        """
        shape = (service, full_names) if service is not None else (tuple(features or ()), full_names)
        plan = self._remembered.get(shape)
        if plan is None:
            references = (
                self._of_service(service) if service is not None else [self._active(text) for text in features or ()]
            )
            plan = self._make(references, full_names=full_names)
            if len(self._remembered) >= _PLANS_MAX:
                self._remembered.pop(next(iter(self._remembered)))
            self._remembered[shape] = plan
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
        wanted: dict[str, list[int]] = {}
        places: list[tuple[str, int]] = []
        demanded: list[tuple[str, str]] = []
        for group, feature in references:
            if (group, feature) in self._on_demand:
                places.append(("", len(demanded)))
                demanded.append((group, feature))
            else:
                places.append((group, self._want(wanted, group, feature)))
        inputs = [
            {name: self._want_reference(wanted, text) for name, text in self._on_demand[one][1].features.items()}
            for one in demanded
        ]
        names = tuple(f"{group}__{feature}" if full_names else feature for group, feature in references)
        _refuse_collisions(names, references)
        groups = tuple(self._read(group, tuple(mine)) for group, mine in wanted.items())
        numbers = {read.plan.name: number for number, read in enumerate(groups)}
        key_columns = tuple(dict.fromkeys(column for read in groups for column in read.keys.columns))
        _refuse_key_names(names, references, key_columns)
        order = tuple((numbers[group] if group else COMPUTED, place) for group, place in places)
        computed = tuple(
            ComputedRead(*self._on_demand[one], {name: (numbers[group], at) for name, (group, at) in given.items()})
            for one, given in zip(demanded, inputs, strict=True)
        )
        texts = tuple(f"{group}:{feature}" for group, feature in references)
        return ReadPlan(groups, computed, texts, key_columns, names, (*key_columns, *names), order)

    def _want(self, wanted: dict[str, list[int]], group: str, feature: str) -> int:
        """Note that a value of a group is wanted; return its number among those of the group."""
        place = self._place(group, feature)
        mine = wanted.setdefault(group, [])
        if place not in mine:
            mine.append(place)
        return mine.index(place)

    def _want_reference(self, wanted: dict[str, list[int]], reference: str) -> tuple[str, int]:
        group, feature = self._active(reference)
        return group, self._want(wanted, group, feature)

    def _read(self, group: str, places: tuple[int, ...]) -> GroupRead:
        plan = self._plans[group]
        return GroupRead(plan, row_name(group, self._numbers[group]), self._keys[plan.group.entity.name], places)

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
