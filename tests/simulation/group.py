"""The coordinator of a consumer group: members, generations, and who may commit.

Plain members are expelled when they are silent for a session; static ones are replaced by whoever comes under their
name, who gets what they had without a new generation, and are fenced from then on.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from aiokafka import TopicPartition

from tests.simulation.loop import VirtualLoop

SESSION_S = 8.0
REBALANCE_S = 30.0
OK, ILLEGAL, UNKNOWN, REBALANCING, FENCED = 0, 22, 25, 27, 82


@dataclass(eq=False)
class _Member:
    """A member.

    Attributes:
        joining: Waits for the next generation, if it has joined for that.
    """

    name: str
    instance: str
    heard_at: float
    assigned: list[TopicPartition] = field(default_factory=list)
    joining: "asyncio.Future[int] | None" = None


class Group:
    """The coordinator.

    Attributes:
        committed: Committed offsets.
        furthest: The furthest of them, whatever a late request has set back since.
        generation: How many there were.
        heard_at: When each member, past ones too, was last heard of.
    """

    def __init__(self, loop: VirtualLoop, partitions: list[TopicPartition]) -> None:
        self._loop = loop
        self._partitions = partitions
        self._members: dict[str, _Member] = {}
        self._fenced: set[str] = set()
        self._is_rebalancing = False
        self._began_at = 0.0
        self.generation = 0
        self.committed: dict[TopicPartition, int] = {}
        self.furthest: dict[TopicPartition, int] = {}
        self.heard_at: dict[str, float] = {}

    @property
    def owners(self) -> dict[str, list[TopicPartition]]:
        """What each member has."""
        return {name: member.assigned for name, member in self._members.items()}

    @property
    def is_stable(self) -> bool:
        """Whether every member has what it shall have."""
        return not self._is_rebalancing and bool(self._members)

    def join(self, name: str, instance: str, answer: "asyncio.Future[int]") -> None:
        """Take a member into the next generation; it is answered with its number when it begins."""
        self.expire()
        replaced = next((one for one in self._members.values() if instance and one.instance == instance), None)
        if replaced is not None and replaced.name != name:
            del self._members[replaced.name]
            self._fenced.add(replaced.name)
            member = self._members[name] = _Member(name, instance, self._loop.time(), replaced.assigned)
            if not self._is_rebalancing:
                _tell(answer, self.generation)
                return
        member = self._members.setdefault(name, _Member(name, instance, self._loop.time()))
        member.joining = answer
        member.heard_at = self._loop.time()
        self._rebalance()
        self._complete()

    def leave(self, name: str) -> None:
        """Let a member go."""
        if self._members.pop(name, None) is not None:
            self._rebalance()
            self._complete()

    def sync(self, name: str, generation: int) -> tuple[int, list[TopicPartition]]:
        """Return the error code and what a member has."""
        self.expire()
        code = self._code(name, generation)
        if code == OK and self._is_rebalancing:
            code = REBALANCING
        if code != OK:
            return code, []
        self._hear(name)
        return OK, list(self._members[name].assigned)

    def heartbeat(self, name: str, generation: int) -> int:
        """Return the error code of a heartbeat."""
        self.expire()
        code = self._code(name, generation)
        if code == OK:
            self._hear(name)
            return REBALANCING if self._is_rebalancing else OK
        return code

    def commit(self, name: str, generation: int, offsets: Mapping[TopicPartition, int]) -> int:
        """Commit offsets, or return why not."""
        self.expire()
        code = self._code(name, generation)
        if code == OK:
            self.committed.update(offsets)
            for tp, offset in offsets.items():
                self.furthest[tp] = max(self.furthest.get(tp, 0), offset)
        return code

    def expire(self) -> None:
        """Expel who was silent for too long."""
        now = self._loop.time()
        silent = [
            name
            for name, member in self._members.items()
            if member.joining is None and now - member.heard_at > SESSION_S
        ]
        for name in silent:
            del self._members[name]
        if silent:
            self._rebalance()
        if self._is_rebalancing:
            self._complete()

    def _hear(self, name: str) -> None:
        self._members[name].heard_at = self.heard_at[name] = self._loop.time()

    def _code(self, name: str, generation: int) -> int:
        if name in self._fenced:
            return FENCED
        if name not in self._members:
            return UNKNOWN
        return OK if generation == self.generation else ILLEGAL

    def _rebalance(self) -> None:
        if not self._is_rebalancing:
            self._is_rebalancing = True
            self._began_at = self._loop.time()

    def _complete(self) -> None:
        """Begin the next generation, if all have joined or those who have not had their time."""
        if self._loop.time() - self._began_at > REBALANCE_S:
            self._members = {name: one for name, one in self._members.items() if one.joining is not None}
        if not self._members or any(member.joining is None for member in self._members.values()):
            return
        self._is_rebalancing = False
        self.generation += 1
        members = list(self._members.values())
        for member in members:
            member.assigned = []
            member.heard_at = self._loop.time()
        for number, tp in enumerate(self._partitions):
            members[(number + self.generation) % len(members)].assigned.append(tp)
        for member in members:
            if member.joining is not None:
                _tell(member.joining, self.generation)
                member.joining = None


def _tell(answer: "asyncio.Future[int]", generation: int) -> None:
    if not answer.done():
        answer.set_result(generation)
