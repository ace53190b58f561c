"""Damaged bytes of our own formats: reading them may raise what is declared, and nothing else.

They come from a topic or a store that somebody else writes to, or that is not what it was. Whatever is raised beside
``FormatError`` would end a worker without telling which bytes they were.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from random import Random
from types import SimpleNamespace
from typing import Any

import msgspec

from core.errors import FormatError
from core.packs import unpack
from core.plans import GroupPlan, plan_group
from core.progress import progress_as_of_ms, progress_row
from core.rows import fingerprint_of, pack_change, unpack_change, unpack_row, unpack_tail
from tables.restore import Restoration
from tables.table import GroupTable, TablePartition, thaw
from tests.fuzz.domain import REGISTRY
from tests.fuzz.payloads import damage

_PLANS = {group.name: plan_group(group) for group in REGISTRY.groups}
_PROGRESS = progress_row("user", 0, ver=1, as_of_ms=1_700_000_000_000).value
_ODD: tuple[Any, ...] = (
    None, True, -1, 0, 2, 255, 2**63, -(2**63), 2**64 - 1, 0.5, float("nan"), "", "x", b"", b"\xff" * 9, [], [[]],
    [None], [0], {}, {"a": {0: 1}}, {1: 2}, [[0, []]], [[0, [[]]]], [[0, [[[]]]]], msgspec.msgpack.Ext(5, b"x"),
)  # fmt: skip


def read_damaged(
    chance: Random, packs: Sequence[bytes], changes: Sequence[tuple[str, bytes]], *, times: int
) -> Iterator[str]:
    """Damage bytes and give them to all that reads such bytes; yield what was raised and should not be.

    Args:
        chance: Decides what is damaged, and how.
        packs: Good packed records.
        changes: Good changelog values, with the name of their group.
        times: How many of each kind are read.
    """
    for _ in range(times):
        pack = _damaged(chance, chance.choice(packs), head_bytes=0)
        yield from _told("pack", unpack, pack)
        name, change = chance.choice(changes)
        row, stamps = unpack_change(change)
        row = _damaged(chance, row, head_bytes=8)
        yield from _told(f"row of {name}", _read_row, row)
        change = pack_change(row, stamps) if chance.random() < 0.5 else _damaged(chance, change, head_bytes=0)
        yield from _told(f"change of {name}", partial(_take_over, _PLANS[name]), change)
        yield from _told("progress", progress_as_of_ms, _damaged(chance, _PROGRESS, head_bytes=8))


def _told(what: str, read: Callable[[bytes], object], value: bytes) -> Iterator[str]:
    try:
        read(value)
    except FormatError:
        pass
    except Exception as error:  # noqa: BLE001  # it is what is looked for
        yield f"{what}: {type(error).__name__}: {error}: {value.hex()}"


def _read_row(row: bytes) -> None:
    unpack_tail(unpack_row(row))
    fingerprint_of(row)


def _take_over(plan: GroupPlan, change: bytes) -> None:
    """Read a changelog record as the next owner does: restore its row, then look at it, then change it."""
    group = GroupTable(plan, 1)
    table = TablePartition(plan.group.entity.name, 0, [group], ())
    place, entity = table.changelog, table.entity
    restoration = Restoration({place: table})
    key = f"{entity}#i1 {group.sk}".encode()
    restoration.take(place, SimpleNamespace(key=key, value=change, headers=[], offset=0))
    if len(group):
        group.drop_past(progress_ms=2**53, limit=10)
    thaw(plan, change)


def _damaged(chance: Random, value: bytes, *, head_bytes: int) -> bytes:
    """Return bytes that are damaged as a disk does it, or good msgpack of another structure, or nested without end."""
    draw = chance.random()
    if draw < 0.5:
        return damage(chance, value, value)
    if draw < 0.55:
        return value[: chance.randint(head_bytes, len(value))] + b"\x91" * 5_000
    head, body = value[:head_bytes], msgspec.msgpack.decode(value[head_bytes:], strict=False)
    return head + msgspec.msgpack.encode(_restructured(chance, body))


def _restructured(chance: Random, value: Any) -> Any:
    """Return a value of which one part, however deep, is something else, gone, or there twice."""
    if not isinstance(value, list) or not value or chance.random() < 0.2:
        return chance.choice(_ODD)
    place, what = chance.randrange(len(value)), chance.random()
    if what < 0.1:
        return value[:place] + value[place + 1 :]
    if what < 0.2:
        return [*value, value[place]]
    return [*value[:place], _restructured(chance, value[place]), *value[place + 1 :]]
