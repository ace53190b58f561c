"""Tables that are larger than memory: cold rows in RocksDB, keys that wait in files, all in one directory.

Nothing here outlives its worker, nor even a take-over: what a table is, is in its changelog. So nothing is logged ahead
or forced to disk. A disk that is full, or that gives back something else than was written (RocksDB compares
checksums), raises ``DiskError``, and that ends the worker.
"""

import asyncio
import shutil
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from rocksdict import (
    BlockBasedIndexType,
    BlockBasedOptions,
    Cache,
    DBCompressionType,
    Options,
    Rdict,
    ReadOptions,
    WriteOptions,
)
from typing_extensions import override

from core.errors import DiskError
from tables.cold import ColdRows
from tables.engine import LIVE_ROWS_MAX, Engine, KeyQueue
from tables.key_file import KeyFile
from tables.worker_part import WorkerPart

_WRITE_BUFFER_BYTES = 32 << 20
_WRITE_BUFFERS = 3
_OPEN_FILES = 256
_BACKGROUND_JOBS = 2
_FILTER_BITS = 10
"""Per key: of 100 keys that have no row, 99 are known without a look at any."""
_PREFIX_BYTES = 4
_PAGE = 500


class TablesDisk:
    """A worker's part of a directory, for all its take-overs."""

    def __init__(self, root: Path, *, cache_bytes: int, live_rows_max: int = LIVE_ROWS_MAX) -> None:
        """Take no part yet.

        Args:
            root: The directory, the same for all workers of a machine.
            cache_bytes: Memory for what was read: blocks of rows, filters and indexes.
            live_rows_max: What its engines have.
        """
        self._root = root
        self._cache = Cache(cache_bytes)
        self._part: WorkerPart | None = None
        self._live_rows_max = live_rows_max
        self._numbers = count()
        self._opened: dict[Path, Rdict] = {}
        self._calls = threading.Lock()

    def open(self) -> "DiskEngine":
        """Open a new engine; what is in it is removed when nobody uses it any more. It blocks.

        Raises:
            DiskError: The directory cannot be used.
        """
        # A take-over that is cancelled leaves its call behind, and the next one calls beside it.
        with self._calls, _told(f"no tables can be kept in {self._root}"):
            self._part = self._part or WorkerPart.take(self._root)
            directory = self._part.directory / str(next(self._numbers))
            directory.mkdir(parents=True)
            database = Rdict(str(directory / "rows"), _options(self._cache))
            database.set_write_options(_unlogged())
            self._opened[directory] = database
        engine = DiskEngine(database, directory, live_rows_max=self._live_rows_max)
        # Whoever had a table when it was given away may be using it still.
        weakref.finalize(engine, self._remove_meanwhile, directory).atexit = False
        return engine

    async def open_meanwhile(self) -> Engine:
        """Open a new engine, while others work."""
        return await asyncio.to_thread(self.open)

    def close(self) -> None:
        """Remove everything, and leave the part to others. It blocks; nobody may use an engine any more."""
        with self._calls:
            for directory in tuple(self._opened):
                self._remove(directory)
            if self._part is not None:
                self._part.give_up()
                self._part = None

    def _remove_meanwhile(self, directory: Path) -> None:
        # Whoever drops a table must not wait for the disk: mostly it is the event loop.
        threading.Thread(target=self._remove_unused, args=(directory,), name="freshet-tables", daemon=True).start()

    def _remove_unused(self, directory: Path) -> None:
        with self._calls:
            self._remove(directory)

    def _remove(self, directory: Path) -> None:
        database = self._opened.pop(directory, None)
        if database is not None:
            with suppress(Exception):
                # It would write down what is in memory; on a full disk it cannot, and nobody wants it any more.
                database.close()
            # What cannot be removed goes with the part, at the latest when the next worker takes it.
            shutil.rmtree(directory, ignore_errors=True)


class DiskEngine(Engine):
    """The tables of one take-over in a directory of their own."""

    at_hand_max = 400_000

    def __init__(self, database: Rdict, directory: Path, *, live_rows_max: int) -> None:
        self.live_rows_max = live_rows_max
        self._database = database
        self._directory = directory
        self._numbers = count()

    @override
    def rows(self) -> "DiskRows":
        return DiskRows(self, self._database, next(self._numbers).to_bytes(_PREFIX_BYTES, "big"))

    @override
    def keys(self) -> KeyQueue:
        return KeyFile(self._directory / f"keys-{next(self._numbers)}")


class DiskRows(ColdRows):
    """The rows of one group, under a prefix of their own. Methods raise ``DiskError``."""

    def __init__(self, engine: DiskEngine, database: Rdict, prefix: bytes) -> None:
        self._engine = engine
        self._database = database
        self._prefix = prefix
        self._end = (int.from_bytes(prefix, "big") + 1).to_bytes(_PREFIX_BYTES, "big")

    @override
    def get(self, key: str, /) -> bytes | None:
        try:
            change: bytes | None = self._database.get(self._prefix + key.encode())
        except Exception as error:
            raise _failed("read", error) from error
        return change

    @override
    def __setitem__(self, key: str, change: bytes, /) -> None:
        try:
            self._database.put(self._prefix + key.encode(), change)
        except Exception as error:
            raise _failed("written", error) from error

    @override
    def update(self, rows: Mapping[str, bytes], /) -> None:
        for key, change in rows.items():
            self[key] = change

    @override
    def let_go(self, key: str) -> None:
        """Do nothing: the row will most likely come back, and to delete it costs as much as to write it."""

    @override
    def drop(self, key: str) -> None:
        try:
            self._database.delete(self._prefix + key.encode())
        except Exception as error:
            raise _failed("written", error) from error

    @override
    def clear(self) -> None:
        try:
            self._database.delete_range(self._prefix, self._end)
        except Exception as error:
            raise _failed("written", error) from error

    @override
    def items_meanwhile(self) -> Iterator[tuple[str, bytes]]:
        begin = self._prefix
        while page := self._page(begin):
            for prefixed in page:
                key = prefixed[_PREFIX_BYTES:].decode()
                # Since the page was read the row may have changed.
                change = self.get(key)
                if change is not None:
                    yield key, change
            begin = page[-1] + b"\0"

    @override
    def shrink(self) -> None:
        """Do nothing: RocksDB does by itself."""

    def _page(self, begin: bytes) -> list[bytes]:
        options = ReadOptions()
        options.set_iterate_upper_bound(self._end)
        page: list[bytes] = []
        try:
            rows = self._database.iter(options)
            rows.seek(begin)
            while rows.valid() and len(page) < _PAGE:
                page.append(rows.key())
                rows.next()
            # What cannot be read looks like the end.
            rows.status()
        except Exception as error:
            raise _failed("read", error) from error
        return page


def _options(cache: Cache) -> Options:
    blocks = BlockBasedOptions()
    blocks.set_block_cache(cache)
    blocks.set_bloom_filter(_FILTER_BITS, block_based=False)
    # Filters and indexes of many rows are large too: kept in parts, in the cache, memory has one bound.
    blocks.set_index_type(BlockBasedIndexType.two_level_index_search())
    blocks.set_partition_filters(True)
    blocks.set_cache_index_and_filter_blocks(True)
    blocks.set_pin_top_level_index_and_filter(True)
    blocks.set_format_version(5)
    options = Options(raw_mode=True)
    options.set_block_based_table_factory(blocks)
    options.set_write_buffer_size(_WRITE_BUFFER_BYTES)
    options.set_max_write_buffer_number(_WRITE_BUFFERS)
    options.set_max_background_jobs(_BACKGROUND_JOBS)
    options.set_max_open_files(_OPEN_FILES)
    options.set_compression_type(DBCompressionType.lz4())
    options.set_level_compaction_dynamic_level_bytes(True)
    options.set_keep_log_file_num(1)
    return options


def _unlogged() -> WriteOptions:
    options = WriteOptions()
    options.disable_wal = True  # type: ignore[method-assign,assignment]  # a property; its stub says otherwise
    return options


@contextmanager
def _told(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # RocksDB's errors have no class of their own
        raise DiskError(f"{what}: {error}") from error


def _failed(what: str, error: Exception) -> DiskError:
    return DiskError(
        f"a table on disk cannot be {what}: {error}; nothing is lost, a worker that starts restores its tables from "
        f"their changelogs: see docs/how-to/large-state.md"
    )
