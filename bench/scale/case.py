"""A case: so many groups that an event feeds, keys, a window, and tables in which each key has a full row already.

All rows are alike: each tile of the window holds something, and the events of a case fall into the youngest. So nothing
differs between two cases but what the cases say.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np

from bench.steps import Load, Tables, cut_runs
from bench.w1 import PARTITIONS, PURCHASES
from core.definitions import Count, Entity, FeatureGroup, Registry, Sum, aggregate, col
from core.keys import encode_key, kafka_partition
from core.rows import Tile
from core.windows import hours, tile_ms_for, to_ms
from tables.engine import LIVE_ROWS_MAX
from tables.table import GroupTable, LiveRow, freeze

_START_MS = 1_700_000_000_000
_CUSTOMER = Entity("customer", keys=("user_id",), partitions=PARTITIONS)
_STAMPED = 1_000
"""Source offsets that full rows have seen."""
_APART = 7_368_787
"""A prime larger than half of the most keys: users who buy as often as each other are nobody's neighbours in memory."""


@dataclass(frozen=True, slots=True)
class Case:
    """What is measured.

    Attributes:
        groups: Groups that each event feeds, all of one entity.
        keys: Users.
        even: Whether all of them buy as often; otherwise the n-th buys an n-th as often as the first, as in W1.
        hot: Share of the events that is one user's, beside the others.
    """

    events: int = 20_000
    groups: int = 1
    keys: int = 20_000
    window: timedelta = hours(1)
    even: bool = False
    hot: float = 0.0

    @property
    def registry(self) -> Registry:
        """Groups with number and sum of purchases over the window."""
        return Registry(tuple(self._group(number) for number in range(self.groups)))

    def load(self, first: int) -> Load:
        """Return the events; no two loads of one table may have a number of an event in common."""
        first += _STAMPED
        events = (("purchases", event) for event in self._events(first))
        return Load(str(self), self.registry, cut_runs(events, first_offset=first))

    def fill(self, tables: Tables) -> None:
        """Give each key a full row in all groups; of those that buy most, as many are live as a worker keeps so."""
        groups: dict[int, tuple[GroupTable, ...]] = {place[1]: table.groups for place, table in tables.items()}
        changes = [freeze(group, "", self.full_row()).change for group in groups[0]]
        for user in range(self.keys):
            key = encode_key((user,))
            for group, change in zip(groups[kafka_partition(key, PARTITIONS)], changes, strict=True):
                # Bytes of its own for each key, as it would have.
                group.put_packed(key, bytes(bytearray(change)), 1)
        often = [rank * _APART % self.keys for rank in range(min(self.keys, LIVE_ROWS_MAX * PARTITIONS))]
        random.Random(1).shuffle(often)  # noqa: S311  # the same each time
        for key in map(encode_key, zip(often, strict=True)):
            for group in groups[kafka_partition(key, PARTITIONS)]:
                group.row(key)

    def full_row(self) -> LiveRow:
        """Return a row in which each tile of the window holds something."""
        newest, tiles = self._instant_ms // self._tile_ms, to_ms(self.window) // self._tile_ms
        full: dict[int, Tile] = {index: [index, 2, 10_000] for index in range(newest - tiles, newest + 1)}
        return LiveRow([full], {f"{PURCHASES.topic}@": {0: _STAMPED - 1}}, 1, self._instant_ms, self._instant_ms)

    def _group(self, number: int) -> FeatureGroup:
        return FeatureGroup(
            f"spend{number}",
            entity=_CUSTOMER,
            owner="bench",
            features=(
                aggregate("purchases", PURCHASES, Count(), over=(self.window,)),
                aggregate("cents", PURCHASES, Sum(col("price_cents")), over=(self.window,)),
            ),
        )

    @property
    def _instant_ms(self) -> int:
        """The begin of a tile."""
        return _START_MS // self._tile_ms * self._tile_ms

    @property
    def _tile_ms(self) -> int:
        return tile_ms_for(to_ms(self.window))

    def _events(self, first: int) -> Iterator[dict[str, Any]]:
        chance = np.random.default_rng(first)
        prices = chance.integers(100, 10_000, self.events).tolist()
        for number, (user, cents) in enumerate(zip(self._users(chance), prices, strict=True), first):
            yield {
                "event_id": f"{number:016x}",
                "time_ms": self._instant_ms + number % 1_000,
                "user_id": user,
                "item_id": 50_000,
                "price_cents": cents,
                "country": "DE",
                "device": "android",
            }

    def _users(self, chance: np.random.Generator) -> list[int]:
        if self.even:
            ranks = chance.integers(0, self.keys, self.events)
        else:
            weights = np.cumsum(1 / np.arange(1, self.keys + 1))
            ranks = np.searchsorted(weights, chance.random(self.events) * weights[-1])
        ranks[chance.random(self.events) < self.hot] = 0
        return [rank * _APART % self.keys for rank in ranks.tolist()]
