"""What only DynamoDB can get wrong: throttling, partial answers, limits, credentials, rights."""

import json
import re
import traceback
from pathlib import Path

import pytest

from app.record_check import check_record
from core.errors import ConfigurationError, PartialWriteError, RowTooLargeError, StoreError, StoreTimeoutError
from core.ports import RowKey, StoredRow
from stores.dynamodb import ITEM_BYTES_MAX, DynamoStore
from stores.dynamodb_calls import ATTEMPTS_MAX
from stores.dynamodb_place import TablePlace
from stores.dynamodb_table import create_table, inspect_table
from tests.clock import ManualClock
from tests.dynamodb_proxy import Proxy, fail_statements, hang, leave_keys, lose_the_answer, open_proxy, refuse

ENOUGH_MS = 60_000
GUIDE = Path(__file__).parents[2] / "docs/how-to/aws.md"


def rows(count, ver=1):
    return [StoredRow(RowKey(f"user#i{number}", "g@v1"), ver, ver.to_bytes(8, "big")) for number in range(count)]


def keys(count):
    return [row.key for row in rows(count)]


def values(count, ver=1):
    return {row.key: row.value for row in rows(count, ver)}


@pytest.fixture
async def proxy(dynamodb):
    async with open_proxy(dynamodb.url) as opened:
        yield opened


@pytest.fixture
async def store(dynamodb, proxy):
    """A store with a table of its own, behind the proxy, its making not recorded."""
    opened = DynamoStore(dynamodb.open(dynamodb.place(proxy.url), silence_max_ms=20_000), ManualClock())
    await create_table(opened.calls)
    proxy.calls.clear()
    yield opened
    await opened.close()


async def test_every_read_is_consistent(store, proxy):
    """
    A fill from a replica that is behind stays in the cache; DynamoDB Local would never show it.
    """
    await store.read(keys(250), deadline_ms=ENOUGH_MS)

    asked = [table for _, body in proxy.calls for table in body["RequestItems"].values()]
    assert sorted(len(each["Keys"]) for each in asked) == [50, 100, 100]
    assert all(each["ConsistentRead"] is True for each in asked)


async def test_keys_left_unprocessed_are_asked_for_again(store, proxy):
    """
    A known user would be served as unknown whenever DynamoDB is busy.
    """
    await store.write(rows(10), deadline_ms=ENOUGH_MS)
    proxy.faults += [leave_keys(7), leave_keys(7), leave_keys(3)]

    assert await store.read(keys(10), deadline_ms=ENOUGH_MS) == values(10)


async def test_keys_that_stay_unprocessed_are_an_error(store, proxy):
    """
    An unknown row that is taken for a missing one becomes a negative entry in the cache.
    """
    proxy.faults += [leave_keys(1)] * ATTEMPTS_MAX

    with pytest.raises(StoreError, match="gave up after 8 attempts; the last one: 1 keys were left unprocessed"):
        await store.read(keys(1), deadline_ms=ENOUGH_MS)


@pytest.mark.parametrize(
    "fault",
    [
        refuse("ThrottlingException"),
        refuse("ProvisionedThroughputExceededException"),
        refuse("InternalServerError", status=500),
        lose_the_answer,
        fail_statements("ThrottlingError", 5),
        fail_statements("ProvisionedThroughputExceeded", 10),
    ],
)
async def test_failures_that_pass_are_tried_again(store, proxy, fault):
    """
    A second of throttling would stop a partition, or lose a part of a batch.
    """
    proxy.faults += [fault, fault]

    await store.write(rows(10), deadline_ms=ENOUGH_MS)

    assert await store.read(keys(10), deadline_ms=ENOUGH_MS) == values(10)


async def test_attempts_are_counted_in_one_layer_alone(store, proxy):
    """
    Ten attempts of botocore's below our eight would be eighty.
    """
    proxy.faults += [refuse("ThrottlingException")] * 20

    with pytest.raises(StoreError, match="gave up after 8 attempts; the last one: ThrottlingException"):
        await store.write(rows(1), deadline_ms=ENOUGH_MS)

    assert len(proxy.calls) == ATTEMPTS_MAX


async def test_a_refused_statement_of_a_batch_is_an_error(store, proxy):
    """
    An answer of 200 would hide that a row was not written, and its offset would be committed.
    """
    proxy.faults.append(fail_statements("ValidationError", 1))

    with pytest.raises(StoreError, match="a statement was refused: ValidationError: as told"):
        await store.write(rows(3), deadline_ms=ENOUGH_MS)

    assert len(proxy.calls) == 1


async def test_a_server_that_hangs_is_left_for_another_attempt(dynamodb, store, proxy):
    """
    One dead connection would cost botocore's 60 s, and the request that waits for it.
    """
    await store.write(rows(1), deadline_ms=ENOUGH_MS)
    proxy.faults.append(hang)
    impatient = DynamoStore(dynamodb.open(store.calls.place, silence_max_ms=1_000), ManualClock())

    assert await impatient.read(keys(1), deadline_ms=ENOUGH_MS) == values(1)
    await impatient.close()


async def test_a_server_that_keeps_hanging_is_a_timeout(store, proxy):
    """
    A request would wait longer than whoever made it.
    """
    proxy.faults += [hang] * 20

    with pytest.raises(StoreTimeoutError, match="no answer within 300 ms"):
        await store.read(keys(1), deadline_ms=300)


async def test_a_write_that_is_done_in_part_tells_what_is_left(store, proxy):
    """
    A table that is too slow for all rows of a write was asked for all of them again, and again: the backlog of a fast
    load never got shorter.
    """
    proxy.faults += [Proxy.forward, hang]

    with pytest.raises(PartialWriteError, match=r"no answer within 2000 ms \(25 of 50 rows\)") as raised:
        await store.write(rows(50), deadline_ms=2_000)
    done = await store.read(keys(50), deadline_ms=ENOUGH_MS)

    assert len(done) == 25
    assert raised.value.failed == set(keys(50)) - set(done)


async def test_rows_and_keys_over_the_limits_are_refused_before_the_call(store, proxy):
    """
    DynamoDB's own refusal names neither the group nor the remedy.
    """
    large = StoredRow(RowKey("user#i1", "big@v1"), 1, bytes(ITEM_BYTES_MAX))

    with pytest.raises(RowTooLargeError, match=r"the row big@v1 of user#i1 has \d+ bytes, .*at most 409600: .*smaller"):
        await store.write([large], deadline_ms=ENOUGH_MS)
    with pytest.raises(StoreError, match="a pk of 2049 bytes, the limit is 2048"):
        await store.read([RowKey("é" * 1024 + "x", "g@v1")], deadline_ms=ENOUGH_MS)
    with pytest.raises(StoreError, match="a sk of 1025 bytes, the limit is 1024"):
        await store.write([StoredRow(RowKey("user#i1", "g" * 1025), 1, b"")], deadline_ms=ENOUGH_MS)

    assert proxy.calls == []


async def test_rows_of_a_group_that_is_known_are_updated_first(store, proxy):
    """
    An insert that fails before each update would double the cost of every row.
    """
    for ver in range(1, 6):
        await store.write(rows(25, ver), deadline_ms=ENOUGH_MS)
    proxy.calls.clear()

    await store.write(rows(25, 6), deadline_ms=ENOUGH_MS)

    assert [{each["Statement"].split()[0] for each in body["Statements"]} for _, body in proxy.calls] == [{"UPDATE"}]


# --- the start


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (refuse("ExpiredTokenException", "token s3cret"), "the credentials have expired: renew them"),
        (refuse("UnrecognizedClientException", "token s3cret"), "the credentials are not known there"),
        (refuse("InvalidSignatureException", "x-amz-security-token:s3cret"), "belongs to another region"),
        (refuse("AccessDeniedException", "dynamodb:DescribeTable"), r"the policy .*dynamodb:DescribeTable"),
    ],
)
async def test_credentials_that_do_not_work_stop_the_start_with_a_remedy(store, proxy, fault, words):
    """
    A worker would retry for ever what nobody will ever allow, or write a session token into its log.
    """
    proxy.faults.append(fault)

    with pytest.raises(ConfigurationError, match=words) as raised:
        await check_record(store)

    assert "s3cret" not in "".join(traceback.format_exception(raised.value))
    assert re.search(r"dynamodb table 'rows\d+' in eu-central-1 at http://127\.0\.0\.1", str(raised.value))


async def test_a_missing_table_stops_the_start(dynamodb):
    """
    The commonest mistake of a first start, and a table in another region looks the same.
    """
    store = DynamoStore(dynamodb.open(dynamodb.place()), ManualClock())

    with pytest.raises(ConfigurationError, match="run `freshet tables create`, or correct table, region"):
        await check_record(store)
    await store.close()


async def test_a_table_of_something_else_stops_start_and_making(dynamodb):
    """
    Rows would be written between somebody else's, or every write would fail.
    """
    calls = dynamodb.open(dynamodb.place())
    await calls.call(
        "create_table",
        TableName=calls.place.table,
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "N"}],
    )

    for work in (check_record(DynamoStore(calls, ManualClock())), create_table(calls)):
        with pytest.raises(ConfigurationError, match=r"its key is id \(HASH, N\), and the record's is pk"):
            await work
    await calls.close()


async def test_an_endpoint_that_cannot_be_reached_stops_the_start(dynamodb):
    """
    A wrong port would look like a worker that starts slowly.
    """
    store = DynamoStore(dynamodb.open(TablePlace("freshet", "eu-central-1", "http://127.0.0.1:1")), ManualClock())

    with pytest.raises(ConfigurationError, match=r"127\.0\.0\.1:1: .*cannot be reached .*region and endpoint"):
        await check_record(store)
    await store.close()


async def test_making_a_table_twice_changes_nothing_the_second_time(dynamodb):
    """
    A deployment runs it each time.
    """
    calls = dynamodb.open(dynamodb.place())

    first, second, inspected = await create_table(calls), await create_table(calls), await inspect_table(calls)

    assert first[0].endswith("made, billed by request")
    assert first[1:] == [
        "removal of expired rows: switched on",
        "point-in-time recovery: this server has none",
        "protection from deletion: on",
    ]
    assert second[0].endswith("it is there already")
    assert second[1:] == inspected[1:] == ["removal of expired rows: on", *first[2:]]
    await calls.close()


# --- rights


def policy(title):
    section = GUIDE.read_text().partition(f"## {title}")[2]
    (statement,) = json.loads(re.search(r"```json\n(.*?)```", section, re.DOTALL)[1])["Statement"]
    return set(statement["Action"])


def actions(calls):
    """The rights that calls need: a statement needs that of its kind instead of that of its batch."""
    found = set()
    for operation, body in calls:
        if operation == "BatchExecuteStatement":
            found |= {f"dynamodb:PartiQL{each['Statement'].split()[0].capitalize()}" for each in body["Statements"]}
        else:
            found.add(f"dynamodb:{operation}")
    return found


async def test_a_worker_makes_exactly_the_calls_that_its_policy_allows(store, proxy):
    """
    A policy that lacks a right fails in production alone; one that has more is refused by whoever reviews it.
    """
    await check_record(store)
    for ver in (1, 2):
        await store.write(rows(1, ver), deadline_ms=ENOUGH_MS)
    await store.read(keys(1), deadline_ms=ENOUGH_MS)

    assert actions(proxy.calls) == policy("A worker's rights")


async def test_making_tables_needs_exactly_the_rights_of_its_policy(dynamodb, proxy):
    """
    Whoever deploys would learn of each missing right by a failed deployment.
    """

    async def backups(proxy, operation, body):
        if operation == "DescribeContinuousBackups":
            return 200, {"ContinuousBackupsDescription": {"ContinuousBackupsStatus": "ENABLED"}}
        if operation == "UpdateContinuousBackups":
            return 200, {}
        return await proxy.forward(operation, body)

    async def unprotected(proxy, operation, body):
        status, answer = await proxy.forward(operation, body)
        return status, {"Table": {**answer["Table"], "DeletionProtectionEnabled": False}}

    calls = dynamodb.open(dynamodb.place(proxy.url))
    proxy.faults += [backups] * 20

    await create_table(calls)
    proxy.faults.insert(0, unprotected)
    proxy.faults.insert(1, unprotected)
    lines = await create_table(calls)

    assert lines[2:] == ["point-in-time recovery: switched on", "protection from deletion: switched on"]
    assert actions(proxy.calls) == policy("Rights to make the table")
    await calls.close()
