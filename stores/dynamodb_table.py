"""The record's table: how it is made, and what must be true of it before anything is written.

Making it again changes nothing but what is switched off: expiry, point-in-time recovery, protection from deletion.
Servers that have no such thing (DynamoDB Local has no recovery) are told from those where it is off.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from core.errors import ConfigurationError, StoreError
from stores.dynamodb_calls import DynamoCalls, RefusedError, Spending

# Amazon needs some 10 s for a table, and up to 20 s more before its recovery can be switched on.
CREATE_DEADLINE_MS = 180_000
CHECK_DEADLINE_MS = 10_000

_EXPIRY = "expires_at"
_KEYS = [("pk", "HASH", "S"), ("sk", "RANGE", "S")]
_POLL_S = 0.25
_OFF = "off: run `freshet tables create`"


async def create_table(calls: DynamoCalls) -> list[str]:
    """Make the table if there is none, switch on what is off, and wait until it can be used.

    Returns:
        What was done and what is, one sentence each, for people.

    Raises:
        ConfigurationError: It cannot be made, or another table has its name; the message says what to do.
    """
    async with _deciding(calls, "creation", deadline_ms=CREATE_DEADLINE_MS) as spending:
        description = await _describe(calls, spending)
        told = f"{calls.place}: it is there already"
        if description is None:
            await calls.ask(
                spending,
                "create_table",
                TableName=calls.place.table,
                BillingMode="PAY_PER_REQUEST",
                DeletionProtectionEnabled=True,
                KeySchema=[{"AttributeName": name, "KeyType": kind} for name, kind, _ in _KEYS],
                AttributeDefinitions=[{"AttributeName": name, "AttributeType": type_} for name, _, type_ in _KEYS],
            )
            told = f"{calls.place}: made, billed by request"
        description = await _await_active(calls, spending)
        _refuse_keys(calls, description)
        return [
            told,
            await _expiry(calls, spending, switch_on=True),
            await _recovery(calls, spending, switch_on=True),
            await _protection(calls, spending, description, switch_on=True),
        ]


async def check_table(calls: DynamoCalls) -> None:
    """Make sure that rows can be written: a worker's start asks no more, and needs no more rights.

    Raises:
        ConfigurationError: They cannot; the message says what, where, and what to do.
    """
    async with _deciding(calls, "check", deadline_ms=CHECK_DEADLINE_MS) as spending:
        await _require(calls, spending)


async def inspect_table(calls: DynamoCalls) -> list[str]:
    """Return what is on and what is off, one sentence each, of a table that can be used; change nothing.

    Raises:
        ConfigurationError: It cannot be used.
    """
    async with _deciding(calls, "check", deadline_ms=CHECK_DEADLINE_MS) as spending:
        description = await _require(calls, spending)
        return [
            f"{calls.place}: ready",
            await _expiry(calls, spending, switch_on=False),
            await _recovery(calls, spending, switch_on=False),
            await _protection(calls, spending, description, switch_on=False),
        ]


@asynccontextmanager
async def _deciding(calls: DynamoCalls, what: str, *, deadline_ms: int) -> AsyncIterator[Spending]:
    """Turn whatever a store would be asked again for into an error that stops: here nobody asks again."""
    try:
        async with calls.spending(what, deadline_ms=deadline_ms) as spending:
            yield spending
    except StoreError as error:
        raise ConfigurationError(str(error)) from error


async def _describe(calls: DynamoCalls, spending: Spending) -> dict[str, Any] | None:
    """Return what the server says of the table, or None if there is none."""
    try:
        answer = await calls.ask(spending, "describe_table", TableName=calls.place.table)
    except RefusedError as error:
        if error.code == "ResourceNotFoundException":
            return None
        raise
    description: dict[str, Any] = answer["Table"]
    return description


async def _await_active(calls: DynamoCalls, spending: Spending) -> dict[str, Any]:
    while True:
        description = await _describe(calls, spending)
        # None: a table that was made a moment ago may not be known everywhere.
        if description is not None and description["TableStatus"] == "ACTIVE":
            return description
        await asyncio.sleep(_POLL_S)


async def _require(calls: DynamoCalls, spending: Spending) -> dict[str, Any]:
    answer = await calls.ask(spending, "describe_table", TableName=calls.place.table)
    description: dict[str, Any] = answer["Table"]
    _refuse_keys(calls, description)
    if description["TableStatus"] not in ("ACTIVE", "UPDATING"):
        raise ConfigurationError(
            f"{calls.place}: it is {description['TableStatus']}; wait until `freshet tables check` says ready"
        )
    return description


def _refuse_keys(calls: DynamoCalls, description: dict[str, Any]) -> None:
    types = {each["AttributeName"]: each["AttributeType"] for each in description["AttributeDefinitions"]}
    keys = [(key["AttributeName"], key["KeyType"], types[key["AttributeName"]]) for key in description["KeySchema"]]
    if keys != _KEYS:
        told = ", ".join(f"{name} ({kind}, {type_})" for name, kind, type_ in keys)
        raise ConfigurationError(
            f"{calls.place}: its key is {told}, and the record's is pk (HASH, S), sk (RANGE, S): it belongs to "
            f"something else; name another table in FRESHET_RECORD and run `freshet tables create`"
        )


async def _expiry(calls: DynamoCalls, spending: Spending, *, switch_on: bool) -> str:
    table = calls.place.table
    answer = await calls.ask(spending, "describe_time_to_live", TableName=table)
    state = answer["TimeToLiveDescription"]
    if state["TimeToLiveStatus"] in ("ENABLED", "ENABLING"):
        if state["AttributeName"] == _EXPIRY:
            return "removal of expired rows: on"
        raise ConfigurationError(
            f"{calls.place}: it removes rows by the attribute {state['AttributeName']!r}, not {_EXPIRY!r}: switch its "
            f"time to live off, then run `freshet tables create`"
        )
    if not switch_on:
        return f"removal of expired rows: {_OFF}"
    await calls.ask(
        spending,
        "update_time_to_live",
        TableName=table,
        TimeToLiveSpecification={"Enabled": True, "AttributeName": _EXPIRY},
    )
    return "removal of expired rows: switched on"


async def _recovery(calls: DynamoCalls, spending: Spending, *, switch_on: bool) -> str:
    table = calls.place.table
    try:
        answer = await calls.ask(spending, "describe_continuous_backups", TableName=table)
    except RefusedError as error:
        if error.code == "UnknownOperationException":
            return "point-in-time recovery: this server has none"
        raise
    state = answer["ContinuousBackupsDescription"].get("PointInTimeRecoveryDescription", {})
    if state.get("PointInTimeRecoveryStatus") == "ENABLED":
        return "point-in-time recovery: on"
    if not switch_on:
        return f"point-in-time recovery: {_OFF}"
    await calls.ask(
        spending,
        "update_continuous_backups",
        TableName=table,
        PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": True},
    )
    return "point-in-time recovery: switched on"


async def _protection(calls: DynamoCalls, spending: Spending, description: dict[str, Any], *, switch_on: bool) -> str:
    if description.get("DeletionProtectionEnabled"):
        return "protection from deletion: on"
    if not switch_on:
        return f"protection from deletion: {_OFF}"
    answer = await calls.ask(spending, "update_table", TableName=calls.place.table, DeletionProtectionEnabled=True)
    if not answer["TableDescription"].get("DeletionProtectionEnabled"):
        return "protection from deletion: this server has none"
    await _await_active(calls, spending)
    return "protection from deletion: switched on"
