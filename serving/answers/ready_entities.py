"""Ready entities: what answers of one shape say of one entity: a hot one costs one look-up, not one per group.

One is good while every row in it is: until one of them changes, a copy grows old, or the next tile boundary passes.
``TieredReader`` tells of every change, so what is found here is what the copies would give; where a store is asked, its
bytes must be the same besides.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, NamedTuple, TypeAlias

from core.ports import RowKey
from serving.answers.read_plans import EntityRead
from serving.answers.ready import ReadyRow, kept_json
from serving.tiers.local import Copy

BYTES_MAX = 64 << 20
_GROUP_BYTES, _VALUE_BYTES = 500, 200
_SEEN_MAX = 50_000

_sure_until, _from, _until = attrgetter("sure_until_ms"), attrgetter("from_ms"), attrgetter("until_ms")


class Address(NamedTuple):
    """Where an entity is.

    Attributes:
        encoded: Its key.
        place: Entity and partition.
        keys: Per group, where its row stands.
    """

    encoded: str
    place: tuple[str, int]
    keys: Sequence[RowKey]


@dataclass(slots=True, eq=False)
class ReadyEntity:
    """What is served of one entity, from one instant until another.

    Attributes:
        address: Where it is.
        rows: Per group.
        copies: Of which these were made, unless they were made of what a store had.
        packed: What that was, per group.
        as_of_ms: Newest record timestamp that each of the rows has seen; 0 if one is none.
        valid_from_ms: An answer with it has no earlier instant: newest of its rows.
        from_ms: First instant at which all of this is served.
        until_ms: First instant at which it is not any more.
        sure_until_ms: Until then none of the copies is old.
        is_told: Whether changes of all of the copies are announced here (``Copy``).
        is_present: Whether every value of every row is there.
    """

    address: Address
    rows: Sequence[ReadyRow]
    copies: Sequence[Copy]
    packed: Sequence[bytes]
    as_of_ms: int
    valid_from_ms: int
    from_ms: int
    until_ms: int
    sure_until_ms: int
    is_told: bool
    is_present: bool
    _event_times: list[bytes] | None = None
    _values: list[bytes] | None = None
    _cells: list[bytes] | None = None

    def cells(self, read: EntityRead) -> list[bytes]:
        """Return the results of the read's features in an answer that has this entity alone."""
        if self._cells is None:
            self._cells = [self.rows[group].cell(place) for group, place in read.features]
        return self._cells

    def event_times(self) -> list[bytes]:
        """Return the event time of each row, as JSON."""
        if self._event_times is None:
            self._event_times = [row.written_time() for row in self.rows]
        return self._event_times

    def values(self, read: EntityRead) -> list[bytes]:
        """Return the values of the read's features, each as JSON."""
        if self._values is None:
            rows, same = self.rows, dict[bytes, bytes]()
            texts = [kept_json(rows[group].values[place]) for group, place in read.features]
            # Windows of one count are mostly equal, and what is found in one place in memory is found sooner.
            self._values = [same.setdefault(text, text) for text in texts]
        return self._values

    def size(self, read: EntityRead) -> int:
        """Return how many bytes it counts for: its rows, which may be copied nowhere else, and what is made of them."""
        rows = sum(copy.size for copy in self.copies) + sum(map(len, self.packed))
        return rows + _GROUP_BYTES * len(read.groups) + _VALUE_BYTES * len(read.features)


_Known: TypeAlias = dict[Any, ReadyEntity]
"""Ready entities by the values of their key columns: the value itself, where there is one column."""


class ReadyEntities:
    """The ready entities of one server, bounded in bytes; an entity is kept when it is made for the second time."""

    def __init__(self, *, bytes_max: int = BYTES_MAX) -> None:
        self._known: dict[EntityRead, _Known] = {}
        self._shapes: dict[str, list[tuple[EntityRead, Any]]] = {}
        self._bytes = 0
        self._bytes_max = bytes_max
        self._seen: set[tuple[EntityRead, Any]] = set()

    def find(self, read: EntityRead, keys: Sequence[Any]) -> list[ReadyEntity | None]:
        """Return what is known under the values of key columns."""
        known = self._known.get(read)
        return list(map(known.get, keys)) if known else [None] * len(keys)

    def keep(self, read: EntityRead, key: Any, entity: ReadyEntity) -> None:
        """Keep an entity, if the same was asked for before: most of what is read once is not read again.

        Args:
            read: The shape.
            key: Values of its key columns.
            entity: What is served of it.
        """
        if (read, key) not in self._seen:
            if len(self._seen) >= _SEEN_MAX:
                self._seen.clear()
            self._seen.add((read, key))
            return
        known = self._known.setdefault(read, {})
        before = known.get(key)
        if before is None:
            self._shapes.setdefault(entity.address.keys[0].pk, []).append((read, key))
        self._bytes += entity.size(read) - (before.size(read) if before is not None else 0)
        known[key] = entity
        while self._bytes > self._bytes_max:
            self.forget((next(iter(self._shapes)),))

    def forget(self, pks: Iterable[str]) -> None:
        """Forget entities of which a row has changed."""
        for pk in pks:
            for read, key in self._shapes.pop(pk, ()):
                known = self._known[read]
                self._bytes -= known.pop(key).size(read)
                if not known:
                    del self._known[read]

    def clear(self) -> None:
        """Forget everything."""
        self._known.clear()
        self._shapes.clear()
        self._bytes = 0


def are_good(entities: Sequence[ReadyEntity], *, instant_ms: int, now_ms: int) -> bool:
    """Whether all of these are served at an instant, and no copy that one was made of is old by now."""
    from_ms: int = max(map(_from, entities))
    until_ms: int = min(map(_until, entities))
    sure_until_ms: int = min(map(_sure_until, entities))
    if not (from_ms <= instant_ms < until_ms and sure_until_ms >= now_ms):
        return False
    # The instant may be ahead of the clock, which was put back since a copy was read: nobody knows how old that is.
    return instant_ms <= now_ms or all(copy.read_at_ms <= now_ms for entity in entities for copy in entity.copies)
