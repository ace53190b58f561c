"""Explain: why one served number is what it is. The way of a read, for one key and one feature, with the facts kept.

The value is not computed here a second time: it is what ``ReadyRows`` serve of the same row at the same instant.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from core.catalogue import CatalogueEntry, catalogue
from core.definitions import Registry
from core.errors import RequestError
from core.keys import known_partition
from core.ports import Clock, RowKey
from core.rows import Row
from core.topics import repartition_topic
from core.values import ValueType
from core.versions import position_of
from core.windows import NEVER_MS
from serving.answers.progress_board import ProgressBoard
from serving.answers.read_plans import GroupRead, Planner, row_pk
from serving.answers.ready import ReadyRows, has_defaults
from serving.answers.requests import NAME_CHARS_MAX, EntityKeys
from serving.explain.on_demand import Answer, explain_on_demand
from serving.explain.tiles_shown import show_tiles
from serving.explain.why import why
from serving.models import Definition, Explanation, OnDemandExplanation, RowShown, Version
from serving.tiers.reader import Origin, TieredReader
from serving.tiers.wanted import Gaps, Wanted

_INTEGER = re.compile(r"-?[0-9]{1,19}")


@dataclass(frozen=True, slots=True)
class ExplainRequest:
    """What is to be explained: a ``group:feature`` reference and the key columns as they stand in a URL."""

    feature: str
    key: Mapping[str, str]


def parse_explain(query: Iterable[tuple[str, str]]) -> ExplainRequest:
    """Return the request in a query string; its first ``feature`` is the reference, the rest are key columns.

    Raises:
        RequestError: 400: no feature is named, its name is too long, or a column is given twice.
    """
    feature: str | None = None
    key: dict[str, str] = {}
    for name, value in query:
        if name == "feature" and feature is None:
            feature = value
        elif name in key:
            raise RequestError(400, f"{name[:64]!r} is given twice; one number has one key")
        else:
            key[name] = value
    if not feature:
        raise RequestError(400, "feature: which one? /explain?feature=group:name&<key column>=<value>")
    if len(feature) > NAME_CHARS_MAX:
        raise RequestError(400, f"feature: a name of {len(feature)} characters, the limit is {NAME_CHARS_MAX}")
    return ExplainRequest(feature, key)


class Explainer:
    """Answers ``GET /explain``."""

    def __init__(
        self,
        registry: Registry,
        *,
        planner: Planner,
        reader: TieredReader,
        progress: ProgressBoard,
        clock: Clock,
        answer: Answer,
        empty_lists: bool = True,
    ) -> None:
        """Explain what is served.

        Args:
            registry: The definitions.
            planner: Plans reads.
            reader: Reads rows.
            progress: Tells how complete they are.
            clock: Tells the instant.
            answer: Answers reads; what is made on demand is explained by one.
            empty_lists: As ``ReadyRows`` want it.
        """
        self._entries = {(entry.group, entry.feature): entry for entry in catalogue(registry)}
        self._planner = planner
        self._reader = reader
        self._progress = progress
        self._clock = clock
        self._answer = answer
        self._ready = ReadyRows(empty_lists=empty_lists)

    async def explain(self, request: ExplainRequest) -> Explanation | OnDemandExplanation:
        """Return the value that a read at this instant gives, and everything that it was made of.

        Raises:
            RequestError: There is no such feature, or the key does not fit its entity.
            StoreError: The record failed.
            FormatError: The stored row cannot be read.
        """
        plan = self._planner.plan(features=[request.feature], service=None, full_names=True)
        if not plan.is_stored:
            group, _, name = plan.references[0].partition(":")
            definition = define(self._entries[group, name])
            return await explain_on_demand(plan.references[0], request.key, plan, definition, self._answer)
        return await self._explain(plan.groups[0], request)

    async def _explain(self, read: GroupRead, request: ExplainRequest) -> Explanation:
        key, encoded = _key_of(read.keys, request.key)
        place = RowKey(row_pk(read, encoded), read.sk)
        group = read.plan.group
        origins: dict[RowKey, Origin] = {}
        partition = known_partition(encoded, group.entity.partitions)
        # Before the row: progress that is read after it may speak of events that it does not hold yet.
        progress = await self._progress.as_of_ms([(group.entity.name, partition)])
        gaps = Gaps(known_at=self._progress.answered_at(progress))
        row = (await self._reader.read([Wanted(place, read.terms)], origins=origins, gaps=gaps)).get(place)
        if gaps.why is not None and place in gaps.unread and not has_defaults(read.plan):
            raise gaps.why
        now_ms = self._clock.now_ms()
        instant_ms = max(now_ms, row.valid_from_ms) if row is not None else now_ms
        served = self._ready.unread(read.plan) if gaps.unread else self._ready.serve(read.plan, row, instant_ms)
        number = read.places[0]
        feature, value = read.plan.features[number], served.values[number]
        status = served.statuses[number]
        shown = show_tiles(read.plan, number, row, instant_ms)
        origin = origins.get(place)
        return Explanation(
            feature=f"{group.name}:{feature.name}",
            key=key,
            value=value,
            status=status,
            why=why(read, feature, row, instant_ms=instant_ms, status=status, shown=shown),
            instant_ms=instant_ms,
            age_ms=instant_ms - row.event_time_ms if row is not None and row.event_time_ms else None,
            tier=origin.tier if origin is not None else None,
            copy_age_ms=max(0, now_ms - origin.read_at_ms) if origin is not None else None,
            as_of_ms=_as_of_ms(row, gaps, *progress.values()),
            definition=define(self._entries[group.name, feature.name]),
            version=Version(number=self._planner.version(group.name), fingerprint=read.plan.fingerprint.hex()),
            window=shown.window,
            row=_show_row(read, row, partition, instant_ms) if row is not None else None,
            tiles=shown.tiles,
            merged=shown.merged,
        )


def define(entry: CatalogueEntry) -> Definition:
    """Return an entry of the catalogue as it is answered."""
    return Definition(
        group=entry.group,
        feature=entry.feature,
        entity=entry.entity,
        text=entry.definition,
        type=entry.value_type.value,
        unit=entry.unit,
        default=entry.default,
        window=entry.window,
        sources=list(entry.sources),
        owner=entry.owner,
        description=entry.description,
        note=entry.dedupe_note,
    )


def _key_of(keys: EntityKeys, given: Mapping[str, str]) -> tuple[dict[str, int | str], str]:
    unknown = [name for name in given if name not in keys.columns]
    if unknown:
        raise RequestError(
            400, f"{unknown[0][:64]!r} is no key column of entity {keys.entity!r}; it is keyed by "
            f"{', '.join(keys.columns)}"
        )  # fmt: skip
    typed: dict[str, Any] = {name: _typed(name, value, keys.columns[name]) for name, value in given.items()}
    encoded = keys.encode({name: [value] for name, value in typed.items()})[0]
    return {name: typed[name] for name in keys.columns}, encoded


def _typed(name: str, value: str, kind: ValueType) -> int | str:
    if kind is not ValueType.INT:
        return value
    if not _INTEGER.fullmatch(value):
        raise RequestError(400, f"{name}: expected an integer of 64 bits, got {value[:64]!r}")
    return int(value)


def _as_of_ms(row: Row | None, gaps: Gaps, progress_ms: int) -> int:
    if gaps.unread:
        # Nothing is known of a row that could not be read, nor up to when.
        return 0
    return max(row.as_of_ms if row is not None else 0, progress_ms if not gaps.untold else 0)


def _show_row(read: GroupRead, row: Row, partition: int, instant_ms: int) -> RowShown:
    epoch, offset = position_of(row.ver)
    return RowShown(
        name=read.sk,
        newest_event_ms=row.event_time_ms or None,
        as_of_ms=row.as_of_ms,
        topic=repartition_topic(read.keys.entity),
        partition=partition,
        offset=offset,
        epoch=epoch,
        valid_from_ms=row.valid_from_ms,
        valid_until_ms=_or_never(row.valid_until_ms),
        expires_at_ms=_or_never(row.expires_at_ms),
        read_from="head" if instant_ms < row.valid_until_ms else "tiles",
    )


def _or_never(time_ms: int) -> int | None:
    return time_ms if time_ms != NEVER_MS else None
