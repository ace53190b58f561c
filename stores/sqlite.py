"""The embedded record: rows in one SQLite file, for a laptop and for one machine.

SQLite runs on two threads of its own, one that writes and one that reads, beside the event loop. Everything here
is shaped by one fact: Python's sqlite3 gives up the interpreter lock and takes it back at every *step* of a
statement, and beside a busy event loop taking it back lasts up to 5 ms. ``executemany`` steps once per row, a cursor
once per result row: measured beside a busy loop, 500 rows took 2.6 s to write and 1.3 s to read. So a batch is
written by one statement with many VALUES and read by one statement that answers with a single row: 23 ms and 19 ms.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias, TypeVar

from typing_extensions import override

from core.errors import StoreError, StoreTimeoutError
from core.ports import Clock, RowKey, Store, StoredRow

# Six parameters a row: far below SQLite's 32,766 for one statement, and as fast as larger ones.
_CHUNK_ROWS = (500, 100, 20, 4, 1)
# One answer holds these rows in hexadecimal: 32 MB at the usual worst row of 64 KB.
READ_KEYS_MAX = 256
# A call that waits for its turn costs a coroutine; beyond these it waits before it is queued.
PENDING_MAX = 64
# Another process (a split role) may hold the file's write lock: wait this long for it, then fail.
BUSY_MS = 1_000
# Pages of 4 KB: the log is folded into the file every 32 MB. Measured, +30 % over the default of 4 MB.
CHECKPOINT_PAGES = 8_000
# Expired rows removed with each write beyond as many as it adds, so that they cannot pile up.
EXPIRED_ROWS_MAX = 500

# SQLite's integers are signed: shifted by this, they order as unsigned 64 bit.
_VER_SHIFT = 2**63

_Value: TypeAlias = str | int | bytes | None
_Answer = TypeVar("_Answer")

# The value stands last: SQLite then decides about version and expiry without loading a long row's further pages.
_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS rows (
        pk TEXT NOT NULL, sk TEXT NOT NULL, ver INTEGER NOT NULL, expires_at_ms INTEGER, look_at_ms INTEGER NOT NULL,
        value BLOB NOT NULL,
        PRIMARY KEY (pk, sk)
    ) WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS rows_by_look ON rows (look_at_ms)",
)
_UPGRADE = (
    "DROP INDEX rows_by_expiry",
    # All are looked at with the next writes.
    "ALTER TABLE rows ADD COLUMN look_at_ms INTEGER NOT NULL DEFAULT 0",
)
# A row is looked at when its first version expires, and then when that expires which is there. In an index of their
# expiry rows would move with every write: a quarter of all that a write costs.
_DUE = "(pk, sk) IN (SELECT pk, sk FROM rows WHERE look_at_ms <= ? ORDER BY look_at_ms LIMIT ?)"
_REMOVE_EXPIRED = f"DELETE FROM rows WHERE {_DUE} AND expires_at_ms <= ?"  # noqa: S608 - constants
_LOOK_LATER = f"UPDATE rows SET look_at_ms = coalesce(expires_at_ms, ?) WHERE {_DUE}"  # noqa: S608 - constants
# Rows that do not expire now may do so in a later version.
_LOOK_AGAIN_MS = 86_400_000


class SqliteStore(Store):
    """Rows in a SQLite file in write-ahead mode.

    A commit survives a crash of the process. A power cut may take the last commits back (synchronous=NORMAL), never
    half of one; the changelogs bring them again.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        """Open the file, or make it.

        Raises:
            StoreError: The file cannot be opened, or is no SQLite file.
        """
        self.name = "sqlite"
        self._path = path
        self._clock = clock
        try:
            writer = _open(path)
            try:
                _prepare(writer)
                reader = _open(path)
            except BaseException:
                writer.close()
                raise
        except sqlite3.Error as error:
            raise StoreError(f"sqlite {path}: cannot be opened: {error}") from error
        self._writer = _Worker(writer, "sqlite-write")
        self._reader = _Worker(reader, "sqlite-read")

    @override
    async def read(self, keys: Sequence[RowKey], *, deadline_ms: int) -> dict[RowKey, bytes]:
        wanted = list(dict.fromkeys(keys))
        now_ms = self._clock.now_ms()
        return await self._run(
            self._reader,
            lambda connection: _read(connection, wanted, now_ms),
            what=f"read of {len(wanted)} keys",
            deadline_ms=deadline_ms,
        )

    @override
    async def write(self, rows: Sequence[StoredRow], *, deadline_ms: int) -> int:
        now_ms = self._clock.now_ms()
        return await self._run(
            self._writer,
            lambda connection: _write(connection, rows, now_ms),
            what=f"write of {len(rows)} rows",
            deadline_ms=deadline_ms,
        )

    @override
    async def close(self) -> None:
        """Finish what runs, then close; the last one to close folds the log into the file."""
        await self._reader.close()
        await self._writer.close()

    async def _run(
        self, worker: "_Worker", work: Callable[[sqlite3.Connection], _Answer], *, what: str, deadline_ms: int
    ) -> _Answer:
        try:
            async with asyncio.timeout(deadline_ms / 1000):
                return await worker.run(work)
        except TimeoutError as error:
            raise StoreTimeoutError(f"sqlite {self._path}: {what}: no answer within {deadline_ms} ms") from error
        except sqlite3.Error as error:
            raise StoreError(f"sqlite {self._path}: {what}: {error}") from error


class _Worker:
    """One connection and the one thread that uses it."""

    def __init__(self, connection: sqlite3.Connection, thread_name: str) -> None:
        self._connection = connection
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=thread_name)
        self._pending = asyncio.Semaphore(PENDING_MAX)

    async def run(self, work: Callable[[sqlite3.Connection], _Answer]) -> _Answer:
        """Run the work on the thread; if cancelled, work that has not begun never begins."""
        async with self._pending:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work, self._connection)

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._connection.close)
        self._thread.shutdown()


def _open(path: Path) -> sqlite3.Connection:
    # Opened here and used on a worker's thread, but never by two threads at a time.
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=BUSY_MS / 1000)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        # 64 MB; the default of 2 MB reads the upper levels of the tree again and again.
        connection.execute("PRAGMA cache_size = -65536")
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection) -> None:
    """Make the table, or bring one of a former release up to date; without a lock where it is as it should be."""
    if "look_at_ms" in _columns(connection):
        return
    connection.execute("BEGIN IMMEDIATE")
    with connection:
        columns = _columns(connection)
        if columns and "look_at_ms" not in columns:
            for statement in _UPGRADE:
                connection.execute(statement)
        for statement in _SCHEMA:
            connection.execute(statement)


def _columns(connection: sqlite3.Connection) -> set[str]:
    return {name for _, name, *_ in connection.execute("PRAGMA table_info (rows)")}


def _read(connection: sqlite3.Connection, keys: Sequence[RowKey], now_ms: int) -> dict[RowKey, bytes]:
    found: dict[RowKey, bytes] = {}
    for start in range(0, len(keys), READ_KEYS_MAX):
        chunk = keys[start : start + READ_KEYS_MAX]
        parameters: list[_Value] = [part for key in chunk for part in key]
        parameters.append(now_ms)
        (answer,) = connection.execute(_read_sql(len(chunk)), parameters).fetchone()
        # None: none of them exists.
        for item in answer.split(",") if answer else ():
            index, _, value = item.partition(" ")
            found[chunk[int(index)]] = bytes.fromhex(value)
    return found


def _write(connection: sqlite3.Connection, rows: Sequence[StoredRow], now_ms: int) -> int:
    if not rows:
        return 0
    taken = 0
    connection.execute("BEGIN IMMEDIATE")
    # Commits, or rolls back if anything raises.
    with connection:
        for start, end in _chunks(len(rows)):
            chunk = rows[start:end]
            parameters: list[_Value] = []
            for row in chunk:
                look_at_ms = row.expires_at_ms if row.expires_at_ms is not None else now_ms + _LOOK_AGAIN_MS
                parameters += (*row.key, row.ver - _VER_SHIFT, row.expires_at_ms, look_at_ms, row.value)
            parameters.append(now_ms)
            taken += connection.execute(_write_sql(len(chunk)), parameters).rowcount
        due = (now_ms, len(rows) + EXPIRED_ROWS_MAX)
        connection.execute(_REMOVE_EXPIRED, (*due, now_ms))
        connection.execute(_LOOK_LATER, (now_ms + _LOOK_AGAIN_MS, *due))
    return taken


def _chunks(rows: int) -> Iterator[tuple[int, int]]:
    """Yield where to cut rows, in few sizes: sqlite3 keeps 128 statements, and a new one takes 1.3 us per row.

    >>> list(_chunks(630))
    [(0, 500), (500, 600), (600, 620), (620, 624), (624, 628), (628, 629), (629, 630)]
    """
    start = 0
    for size in _CHUNK_ROWS:
        while rows - start >= size:
            yield start, start + size
            start += size


@lru_cache(maxsize=len(_CHUNK_ROWS))
def _write_sql(rows: int) -> str:
    # The conflict is resolved row by row, in order: two versions of one key in a batch leave the higher one.
    values = ",".join(["(?,?,?,?,?,?)"] * rows)
    return (
        f"INSERT INTO rows (pk, sk, ver, expires_at_ms, look_at_ms, value) VALUES {values}"  # noqa: S608 - question marks only
        " ON CONFLICT DO UPDATE SET ver = excluded.ver, expires_at_ms = excluded.expires_at_ms, value = excluded.value"
        " WHERE excluded.ver > ver OR expires_at_ms <= ?"
    )


@lru_cache(maxsize=READ_KEYS_MAX)
def _read_sql(keys: int) -> str:
    wanted = ",".join([f"({index},?,?)" for index in range(keys)])
    return (
        f"WITH wanted (i, pk, sk) AS (VALUES {wanted})"  # noqa: S608 - only numbers and question marks
        " SELECT group_concat(i || ' ' || hex(value)) FROM wanted JOIN rows USING (pk, sk)"
        " WHERE expires_at_ms IS NULL OR expires_at_ms > ?"
    )
