"""How far a restore is, told to the log, the metrics and whoever waits for it."""

import logging

import pytest

from tables.restore_progress import RestoreProgress, RestoreState


class Watch:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def watch():
    return Watch()


def test_rate_and_time_left_are_those_of_what_was_read_so_far(watch):
    """
    Whoever is called because a worker is not ready must know whether to wait a minute or an hour.
    """
    progress = RestoreProgress(watch)
    with progress.reading("rows", offsets=10_000):
        watch.now_s += 2
        # Compaction has left every fourth record.
        progress.read(records=500, offsets=2_000)

        assert progress.state == RestoreState("rows", records=500, records_per_s=250.0, left_s=8.0)

    assert progress.state == RestoreState("", records=500, records_per_s=250.0, left_s=0.0)


def test_progress_is_logged_every_few_seconds_and_not_per_record(watch, caplog):
    """
    A restore of a minute that says nothing looks like one that hangs; one that says everything hides the rest.
    """
    caplog.set_level(logging.INFO, logger="tables")
    progress = RestoreProgress(watch)
    with progress.reading("rows", offsets=1_000):
        for _ in range(100):
            watch.now_s += 0.12
            progress.read(records=10, offsets=10)

    told = [(line.message, line.records, line.offsets) for line in caplog.records]
    assert told == [("restoring", 420, "420/1000"), ("restoring", 840, "840/1000"), ("restored", 1_000, "1000/1000")]


def test_a_restore_that_fails_is_not_told_as_done(watch, caplog):
    """
    Partitions are taken away in the middle of it, too.
    """
    caplog.set_level(logging.INFO, logger="tables")
    progress = RestoreProgress(watch)

    with pytest.raises(RuntimeError), progress.reading("rows", offsets=1_000):
        raise RuntimeError

    assert (progress.state.what, progress.state.left_s, caplog.records) == ("", 0.0, [])
