"""What keeps tables on disk, by itself; what tables make of it is tested on every engine."""

import os
import subprocess
import sys
import threading
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import DiskError
from tables.cold import MemoryRows
from tables.disk import TablesDisk
from tables.key_file import KeyFile
from tables.worker_part import WorkerPart, _try
from tests.engines import disk_engine
from tests.fakes import until

KEYS = st.sampled_from(["", "i1", "i10", "i2", "sü\n", "s\x00"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), KEYS, st.binary()),
        st.tuples(st.just("update"), st.dictionaries(KEYS, st.binary())),
        st.tuples(st.just("drop"), KEYS),
        st.tuples(st.just("clear")),
    )
)


@settings(deadline=None)
@given(steps=STEPS, others=STEPS)
def test_rows_on_disk_are_those_in_memory(steps, others):
    """
    Two groups share one database; a row of the one must not be found, or dropped, in the other.
    """
    pairs = [(MemoryRows(), disk_engine().rows()) for _ in range(3)]
    for number, doing in ((1, steps), (0, others), (2, others)):
        for rows in pairs[number]:
            do(rows, doing)

    for expected, found in pairs:
        assert dict(found.items_meanwhile()) == dict(expected)
        assert all(found.get(key) == expected.get(key) for key in ("", "i1", "i10", "i2", "i3", "sü\n", "s\x00"))


def do(rows, steps) -> None:
    for what, *with_ in steps:
        if what == "set":
            rows[with_[0]] = with_[1]
        elif what == "update":
            rows.update(*with_)
        elif what == "drop":
            rows.drop(*with_)
        else:
            rows.clear()


def test_rows_may_come_and_go_while_all_are_looked_through():
    """
    A debt to the cache is paid from a table that goes on changing; what stays must not be passed over.
    """
    odd = {f"{n:04}" for n in range(1, 1_200, 2)}
    for rows in (MemoryRows(), disk_engine().rows()):
        rows.update({f"{n:04}": b"1" for n in range(1_200)})
        found = {}
        for key, change in rows.items_meanwhile():
            found[key] = change
            if change == b"1":
                rows[f"{key}+"] = b"2"
            if key in odd:
                rows.drop(f"{1_199 - int(key):04}")

        assert set(found) >= odd


def test_a_row_that_changes_while_others_are_looked_at_is_not_told_as_it_was():
    """
    Between two rows of a page minutes may pass; an old version that is given to a cache which has lost the key stands.
    """
    for rows in (MemoryRows(), disk_engine().rows()):
        rows.update({"i1": b"old", "i2": b"old", "i3": b"old"})
        looked = rows.items_meanwhile()
        assert next(looked) == ("i1", b"old")
        rows["i2"] = b"new"
        rows.drop("i3")

        assert list(looked) == [("i2", b"new")]


def test_rows_that_cannot_be_read_do_not_look_like_the_end(tmp_path):
    """
    A debt to the cache would be paid in part, and be taken for paid.
    """
    disk = TablesDisk(tmp_path, cache_bytes=8 << 20)
    rows = disk.open().rows()
    rows.update({f"{n:05}": os.urandom(200) for n in range(2_000)})
    rows._database.flush()
    (file,) = tmp_path.rglob("*.sst")
    with file.open("r+b") as damaged:
        damaged.seek(file.stat().st_size // 2)
        damaged.write(b"?" * 100)

    with pytest.raises(DiskError, match=r"a table on disk cannot be read: Corruption: block checksum mismatch"):
        list(rows.items_meanwhile())
    disk.close()


@settings(deadline=None)
@given(st.lists(st.one_of(st.text(st.characters(exclude_categories=["Cs"])), st.none())))
def test_keys_wait_in_a_file_until_each_was_taken_once(tmp_path_factory, steps):
    """
    A key that got lost would keep its row for ever; None takes one.
    """
    path = tmp_path_factory.getbasetemp() / "keys"
    queue, waiting = KeyFile(path, at_once=2), Counter()
    for key in steps:
        if key is not None:
            queue.append(key)
            waiting[key] += 1
        elif waiting.total():
            taken = queue.pop()
            assert waiting[taken]
            waiting[taken] -= 1
        assert len(queue) == waiting.total()

    assert Counter(queue.pop() for _ in range(len(queue))) == +waiting
    assert not path.exists()


def test_a_key_file_that_went_wrong_is_told(tmp_path):
    """
    Keys that are not what was written would let rows stay for ever, or be dropped by another's name.
    """
    queue = KeyFile(tmp_path / "keys", at_once=1)
    queue.append("i1")
    (tmp_path / "keys").write_bytes(b"\0\0\0\1?")
    with pytest.raises(DiskError, match="keys cannot be read"):
        queue.pop()

    with pytest.raises(DiskError, match=r"keys cannot be written: .*No such file or directory"):
        KeyFile(tmp_path / "gone" / "keys", at_once=1).append("i1")


async def test_what_a_take_over_kept_goes_with_its_tables(tmp_path):
    """
    A worker that many partitions come to and go from again would fill its disk, and one that they all went from would
    keep it filled; but who still has a table in hand when it is given away must not fail on it, that would end the
    worker.
    """
    disk = TablesDisk(tmp_path, cache_bytes=8 << 20)
    engine = disk.open()
    rows, keys = engine.rows(), engine.keys()
    del engine
    rows["i1"] = b"1"

    later = disk.open()
    assert rows.get("i1") == b"1"
    assert len(list((tmp_path / "worker-0").iterdir())) == 2

    del rows, keys
    await until(lambda: [path.name for path in (tmp_path / "worker-0").iterdir()] == ["1"])

    del later
    disk.close()
    assert [path.name for path in tmp_path.iterdir()] == ["worker-0.lock"]


def test_nobody_waits_while_what_was_kept_is_removed(tmp_path, monkeypatch):
    """
    Tables are dropped on the event loop, while partitions are given away: gigabytes may be in their directory.
    """
    disk, removed, go_on = TablesDisk(tmp_path, cache_bytes=8 << 20), [], threading.Event()
    rows = disk.open().rows()
    monkeypatch.setattr("shutil.rmtree", lambda path, **_: removed.append((path, go_on.wait(20))))

    del rows
    assert not removed

    go_on.set()
    disk.close()
    assert {(path.name, waited) for path, waited in removed} == {("0", True), ("worker-0", True)}


def test_a_directory_that_cannot_be_removed_keeps_no_worker_from_closing(tmp_path, monkeypatch):
    """
    What else is to be closed after it was not: embedded services went on without their worker.
    """
    disk = TablesDisk(tmp_path, cache_bytes=8 << 20)
    rows = disk.open().rows()

    def refuse(*_, **__):
        raise OSError("Stale file handle")

    monkeypatch.setattr(os, "rmdir", refuse)
    disk.close()

    monkeypatch.undo()
    assert (tmp_path / "worker-0").exists()
    WorkerPart.take(tmp_path).give_up()
    assert not (tmp_path / "worker-0").exists()
    del rows


def test_workers_share_a_directory_and_remove_what_the_dead_have_left(tmp_path):
    """
    A worker that was killed cannot clear up, and its directory is the largest thing it had; the living keep theirs.
    """
    dead, living = (TablesDisk(tmp_path, cache_bytes=8 << 20) for _ in range(2))
    engines = [dead.open()]
    rows = living.open().rows()
    rows["i1"] = b"1"
    # What is left of a process that ended.
    next(iter(dead._opened.values())).close()
    os.close(dead._part.lock)

    heir = TablesDisk(tmp_path, cache_bytes=8 << 20)
    engines.append(heir.open())

    assert [path.name for path in sorted((tmp_path / "worker-0").iterdir())] == ["0"]
    assert rows.get("i1") == b"1"
    living.close()
    heir.close()


def test_a_part_is_empty_when_it_is_taken(tmp_path):
    """
    A worker that dies while its successor looks for the dead leaves its part behind that look: the successor ended,
    because something was where it began [found by the simulation of the pipeline, one schedule in ten thousand].
    """
    (tmp_path / "worker-0" / "0").mkdir(parents=True)

    part = _try(tmp_path, "worker-0")

    assert not part.directory.exists()
    part.give_up()


def test_what_belongs_to_strangers_is_let_be(tmp_path):
    """
    Somebody who gave a project's directory for tables would lose whatever has a lock file of the same name beside it.
    """
    for name in ("requirements", "worker-old", "a-worker-0"):
        (tmp_path / name).mkdir()
        (tmp_path / f"{name}.lock").touch()

    WorkerPart.take(tmp_path).give_up()

    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"requirements", "worker-old", "a-worker-0"}


def test_a_directory_that_cannot_be_is_told(tmp_path):
    """
    An operator reads which directory, and why not.
    """
    (tmp_path / "file").touch()
    with pytest.raises(DiskError, match=r"no tables can be kept in .*file/tables: .*Not a directory"):
        TablesDisk(tmp_path / "file" / "tables", cache_bytes=8 << 20).open()


FULL = """
import random, resource, signal, sys
from pathlib import Path
from core.errors import DiskError
from tables.disk import TablesDisk

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
parts = [random.Random(n).randbytes(2_000) for n in range(64)]  # which cannot be compressed


def row_of(n):
    return parts[n % 64] + str(n).encode() + parts[n * 7 % 61]


disk = TablesDisk(Path(sys.argv[1]), cache_bytes=8 << 20)
rows, count, told = disk.open().rows(), 0, ""
try:
    while count < 100_000:
        rows[str(count)] = row_of(count)
        count += 1
except DiskError as error:
    told = str(error)
assert all(rows.get(str(n)) == row_of(n) for n in range(count))
disk.close()
print(told)
"""


def test_a_disk_that_is_full_ends_the_worker_and_loses_no_row_before(tmp_path):
    """
    A row that is not on the disk and no longer in memory would begin anew from nothing.
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert "a table on disk cannot be written: IO error" in done.stdout
    assert "docs/how-to/large-state.md" in done.stdout
