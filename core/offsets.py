"""Owned offsets: up to where a partition may be committed (PROTOCOL, P9).

Per partition a queue of what was delivered, in order; while its head is done the position moves on. There is no set
of gaps, so holes in a log cannot matter, and nothing that is unfinished can be passed.
"""

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

P = TypeVar("P", bound=Hashable)


@dataclass(slots=True, eq=False)
class Delivery(Generic[P]):
    """One delivered run of records of a partition.

    Attributes:
        end: Offset after its last record.
        records: How many records it has.
    """

    partition: P
    end: int
    records: int
    done: bool = False


class OwnedOffsets(Generic[P]):
    """What was delivered and finished in the partitions that are owned now.

    >>> owned = OwnedOffsets[str]()
    >>> first, second = owned.deliver("p", 10, 3), owned.deliver("p", 14, 4)
    >>> owned.finish(second); owned.positions()
    {}
    >>> owned.finish(first); owned.positions()
    {'p': 14}
    >>> owned.committed({"p": 14}); owned.positions()
    {}
    """

    def __init__(self) -> None:
        self._queues: dict[P, deque[Delivery[P]]] = {}
        self._done: dict[P, int] = {}
        self._committed: dict[P, int] = {}

    def deliver(self, partition: P, end: int, records: int) -> Delivery[P]:
        """Note a run of records that is handed out; runs of one partition are handed out in order."""
        delivery = Delivery(partition, end, records)
        self._queues.setdefault(partition, deque()).append(delivery)
        return delivery

    def finish(self, delivery: Delivery[P]) -> None:
        """Note that a run is durable. One from before ``forget`` is no longer known and moves nothing."""
        delivery.done = True
        queue = self._queues.get(delivery.partition)
        while queue and queue[0].done:
            self._done[delivery.partition] = queue.popleft().end

    def join(self, first: Delivery[P], second: Delivery[P]) -> None:
        """Make two neighbouring runs of a partition one: the first is finished with the second.

        What waits for long, because it is written seldom, is one run then, however many came.
        """
        queue = self._queues.get(first.partition, deque())
        if first in queue:
            queue.remove(first)
            second.records += first.records

    def outstanding(self, partition: P) -> int:
        """Return how many runs of a partition are handed out and not yet finished in order."""
        return len(self._queues.get(partition, ()))

    @property
    def any_outstanding(self) -> bool:
        """Whether anything is handed out and unfinished."""
        return any(self._queues.values())

    def finished(self, partition: P, *, default: int) -> int:
        """Return the offset up to which a partition is finished, or a default if nothing was delivered."""
        if partition in self._done:
            return self._done[partition]
        queue = self._queues.get(partition)
        return queue[0].end - queue[0].records if queue else default

    def positions(self) -> dict[P, int]:
        """Return the offsets that may be committed and are not yet."""
        return {partition: end for partition, end in self._done.items() if end > self._committed.get(partition, -1)}

    def committed(self, positions: dict[P, int]) -> None:
        """Note a commit that the broker has acknowledged."""
        self._committed.update(positions)

    def forget(self) -> None:
        """Forget everything: at every assignment and after every revocation."""
        self._queues.clear()
        self._done.clear()
        self._committed.clear()
