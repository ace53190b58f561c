"""Versions of definitions: which number a group's meaning has (SEMANTICS: Definitions and their versions).

The record holds, per group, the fingerprints that were applied, in order; the number is the last place in that list. A
worker that meets an unknown fingerprint does not start, unless it may apply definitions itself. A meaning that comes
back after another one gets a new number: the rows of its old one lack what happened in between.
"""

import logging
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from core.errors import ConfigurationError
from core.plans import GroupPlan
from core.ports import RowKey, Store, StoredRow
from core.versions import version_bytes

log = logging.getLogger(__name__)

_DEADLINE_MS = 5_000
_TRIES_MAX = 3


class Applied(NamedTuple):
    """The versions of a set of definitions.

    Attributes:
        numbers: By name of the group.
        new: Names of the groups whose number is new: their rows begin empty.
    """

    numbers: dict[str, int]
    new: list[str]


async def resolve_versions(
    record: Store, plans: Iterable[GroupPlan], *, may_apply: bool, writes: bool = True
) -> Applied:
    """Return the number of each group's version, those that are not the newest applied if that is allowed.

    Args:
        record: Where they are kept.
        plans: The groups.
        may_apply: Whether a version may be added.
        writes: Whether rows will be written with them; who only reads may go on with what there is.

    Raises:
        ConfigurationError: A fingerprint is unknown, or another one is newer, and may not be applied here.
        StoreError: The record failed.
    """
    applied = Applied({}, [])
    for plan in plans:
        known = await _fingerprints(record, plan.name)
        if known[-1:] != [plan.fingerprint]:
            if may_apply:
                known = await _apply(record, plan, known, applied)
            else:
                _go_on(plan, known, writes=writes)
        applied.numbers[plan.name] = len(known) - known[::-1].index(plan.fingerprint)
    return applied


async def _apply(record: Store, plan: GroupPlan, known: list[bytes], applied: Applied) -> list[bytes]:
    """Add a group's meaning to those that are known, or find that a worker which starts beside this one has done it."""
    for _ in range(_TRIES_MAX):
        added = [*known, plan.fingerprint]
        if await _write(record, plan.name, added):
            applied.new.append(plan.name)
            return added
        known = await _fingerprints(record, plan.name)
        if known[-1:] == [plan.fingerprint]:
            return known
    raise ConfigurationError(
        f"group {plan.name!r} is applied with other meanings again and again: start with one set of definitions"
    )


def _go_on(plan: GroupPlan, known: list[bytes], *, writes: bool) -> None:
    """Refuse a fingerprint that is not the newest, or warn of it."""
    if plan.fingerprint not in known:
        raise ConfigurationError(
            f"group {plan.name!r} has a meaning that was never applied (fingerprint {plan.fingerprint.hex()}): "
            f"run `freshet apply`, or set FRESHET_APPLY=true where workers may do it themselves"
        )
    told = f"group {plan.name!r} went on as version {len(known)}, so the rows of this meaning lack what came since"
    if writes:
        raise ConfigurationError(
            f"{told}: start with the newer definitions, or run `freshet apply` with these, which begins them anew"
        )
    log.warning("%s", told)


async def _fingerprints(record: Store, group: str) -> list[bytes]:
    values = await record.read([_place(group)], deadline_ms=_DEADLINE_MS)
    value = values.get(_place(group))
    return [] if value is None else msgspec.msgpack.decode(value[8:], type=list[bytes])


async def _write(record: Store, group: str, fingerprints: list[bytes]) -> bool:
    ver = len(fingerprints)
    value = version_bytes(ver) + msgspec.msgpack.encode(fingerprints)
    return await record.write([StoredRow(_place(group), ver, value)], deadline_ms=_DEADLINE_MS) > 0


def _place(group: str) -> RowKey:
    return RowKey("#registry", group)
