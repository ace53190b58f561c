"""DynamoDB: the record in production.

One table; an item is one row: ``pk``, ``sk``, ``ver`` (a number of up to 38 digits, so unsigned 64 bit compare as they
are), ``value`` (the packed row), and for a row that dies ``expires_at_ms``, by which we decide, and ``expires_at``, the
same in whole seconds, by which DynamoDB removes it some day.

Rows are written by batches of conditional statements: measured, a twelfth of the client's CPU of single puts. Reads
are consistent (PROTOCOL, 2), and a key that an answer leaves unprocessed is unknown and asked for again, never missing.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from typing_extensions import override

from core.errors import PartialWriteError, RowTooLargeError, StoreError
from core.ports import Clock, RowKey, Store, StoredRow
from stores.dynamodb_calls import DynamoCalls, TryAgainError, together
from stores.dynamodb_statements import CONDITION_FAILED, EXISTS, Kind, Statement, Texts, following

PK_BYTES_MAX = 2_048
SK_BYTES_MAX = 1_024
ITEM_BYTES_MAX = 400 * 1_024
BATCH_STATEMENTS_MAX = 25
# DynamoDB takes 16 MB; but a request is encoded on the event loop, and sent again whole if its answer is lost. With
# values in base 64 and everything around them it stays below 1 MiB, from where on aiohttp warns of just that.
BATCH_BYTES_MAX = 640 * 1_024
READ_KEYS_MAX = 100

# The names of the attributes, and 21 bytes for each of three numbers: more than they take.
_FRAME_BYTES = len("pkskvervalueexpires_at_msexpires_at") + 3 * 21
# How much one row tells about whether the next of its group is new.
_NEWS_WEIGHT = 1 / 64


class DynamoStore(Store):
    """Rows in one table of DynamoDB, which ``freshet tables create`` makes.

    A row that was written by an attempt whose answer was lost counts as refused when the next attempt finds it.
    """

    def __init__(self, calls: DynamoCalls, clock: Clock) -> None:
        """Prepare; the first call connects.

        Args:
            calls: The client of the table; it is closed with the store.
            clock: Says which rows have expired.
        """
        self.name = "dynamodb"
        self.calls = calls
        self._clock = clock
        self._table = calls.place.table
        self._texts = Texts(self._table)
        # Per group, how likely its next row is new: a table begins empty.
        self._newness: dict[str, float] = {}

    @override
    async def read(self, keys: Sequence[RowKey], *, deadline_ms: int) -> dict[RowKey, bytes]:
        wanted = list(dict.fromkeys(keys))
        for key in wanted:
            self._refuse_long(key)
        found: dict[RowKey, bytes] = {}
        now_ms = self._clock.now_ms()

        async def attempt(chunk: Sequence[RowKey]) -> tuple[Sequence[RowKey], str]:
            items, unprocessed = await self._get(chunk)
            found.update((_key(item), item["value"]["B"]) for item in items if not _is_expired(item, now_ms))
            return unprocessed, f"{len(unprocessed)} keys were left unprocessed" if unprocessed else ""

        async with self.calls.spending(f"read of {len(wanted)} keys", deadline_ms=deadline_ms) as spending:
            chunks = [wanted[start : start + READ_KEYS_MAX] for start in range(0, len(wanted), READ_KEYS_MAX)]
            await together(spending.exhaust(chunk, attempt) for chunk in chunks)
        return found

    @override
    async def write(self, rows: Sequence[StoredRow], *, deadline_ms: int) -> int:
        for row in rows:
            self._refuse_long(row.key)
            self._refuse_large(row)
        now_ms = self._clock.now_ms()
        taken = 0
        waiting = {id(row): row.key for row in rows}

        async def attempt(batch: Sequence[Statement]) -> tuple[Sequence[Statement], str]:
            nonlocal taken
            left, reason = [], ""
            for statement, error in zip(batch, await self._execute(batch, now_ms=now_ms), strict=True):
                if error and error["Code"] not in (EXISTS, CONDITION_FAILED):
                    reason = self.calls.passing(error)
                    left.append(statement)
                elif (then := following(statement, error)) is not None:
                    left.append(then)
                else:
                    taken += not error
                    del waiting[id(statement.row)]
                    self._learn(statement, taken=not error)
            return left, reason

        try:
            async with self.calls.spending(f"write of {len(rows)} rows", deadline_ms=deadline_ms) as spending:
                for wave in _waves(rows):
                    statements = [self._likeliest(row) for row in wave]
                    await together(spending.exhaust(batch, attempt) for batch in _batches(statements))
        except StoreError as error:
            if len(waiting) == len(rows):
                raise
            # A table that is too slow for all of them would be for all of them again, and never get further.
            raise PartialWriteError(
                f"{error} ({len(waiting)} of {len(rows)} rows)", frozenset(waiting.values())
            ) from error
        return taken

    @override
    async def close(self) -> None:
        await self.calls.close()

    async def _get(self, keys: Sequence[RowKey]) -> tuple[Sequence[Mapping[str, Any]], Sequence[RowKey]]:
        """Return the items that exist, and the keys about which the answer says nothing."""
        answer = await self.calls.call(
            "batch_get_item",
            RequestItems={
                self._table: {
                    "Keys": [{"pk": {"S": key.pk}, "sk": {"S": key.sk}} for key in keys],
                    "ConsistentRead": True,
                    "ProjectionExpression": "pk,sk,#value,expires_at_ms",
                    # It is a word of DynamoDB's own.
                    "ExpressionAttributeNames": {"#value": "value"},
                }
            },
        )
        unprocessed = answer.get("UnprocessedKeys", {}).get(self._table, {}).get("Keys", ())
        return answer.get("Responses", {}).get(self._table, ()), [_key(item) for item in unprocessed]

    async def _execute(self, batch: Sequence[Statement], *, now_ms: int) -> list[Mapping[str, Any]]:
        """Return each statement's error, empty where it succeeded."""
        answer = await self.calls.call(
            "batch_execute_statement",
            Statements=[self._texts.request(statement, now_ms=now_ms) for statement in batch],
        )
        results = answer.get("Responses", ())
        if len(results) != len(batch):
            raise TryAgainError(f"an answer to {len(results)} of {len(batch)} statements")
        return [result.get("Error", {}) for result in results]

    def _likeliest(self, row: StoredRow) -> Statement:
        """Return the statement that probably decides: a wrong guess costs a second one."""
        return Statement(Kind.INSERT if self._newness.get(row.key.sk, 1.0) > 0.5 else Kind.UPDATE, row)

    def _learn(self, statement: Statement, *, taken: bool) -> None:
        sk, is_new = statement.row.key.sk, taken and statement.kind is Kind.INSERT
        before = self._newness.get(sk, 1.0)
        self._newness[sk] = before + (is_new - before) * _NEWS_WEIGHT

    def _refuse_long(self, key: RowKey) -> None:
        for name, part, limit in (("pk", key.pk, PK_BYTES_MAX), ("sk", key.sk, SK_BYTES_MAX)):
            if (size := len(part.encode())) > limit:
                raise StoreError(
                    f"{self.calls.place}: a {name} of {size} bytes, the limit is {limit}: shorten the names of the "
                    f"entity and of its groups, or the keys"
                )

    def _refuse_large(self, row: StoredRow) -> None:
        size = sum(len(part.encode()) for part in row.key) + len(row.value) + _FRAME_BYTES
        if size > ITEM_BYTES_MAX:
            raise RowTooLargeError(*row.key, row_bytes=size, limit=f"an item of DynamoDB at most {ITEM_BYTES_MAX}")


def _waves(rows: Sequence[StoredRow]) -> Iterator[list[StoredRow]]:
    """Yield the rows in waves that hold each key once, its rows in the order in which they came.

    Two statements about one item fail their whole batch. Publishers send each row once, so there is one wave.
    """
    waves: list[list[StoredRow]] = []
    seen: dict[RowKey, int] = {}
    for row in rows:
        number = seen.get(row.key, 0)
        seen[row.key] = number + 1
        if number == len(waves):
            waves.append([])
        waves[number].append(row)
    yield from waves


def _batches(statements: Sequence[Statement]) -> Iterator[Sequence[Statement]]:
    start, size = 0, 0
    for index, (_, row) in enumerate(statements):
        is_full = index - start == BATCH_STATEMENTS_MAX or size + len(row.value) > BATCH_BYTES_MAX
        if index > start and is_full:
            yield statements[start:index]
            start, size = index, 0
        size += len(row.value)
    if statements:
        yield statements[start:]


def _key(item: Mapping[str, Any]) -> RowKey:
    return RowKey(item["pk"]["S"], item["sk"]["S"])


def _is_expired(item: Mapping[str, Any], now_ms: int) -> bool:
    return "expires_at_ms" in item and int(item["expires_at_ms"]["N"]) <= now_ms
