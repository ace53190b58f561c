"""The log of reads that the how-to's picture is made of: the demo's times, the rows' recorded sizes."""

from bench.cache_log import lines
from demo.log import CLICKS, IMPRESSIONS, DemoEvent

FIELDS = {"user_id": 1, "video_id": 7, "tab": 0}


def event(topic: str, time_ms: int, **more: int) -> DemoEvent:
    return DemoEvent(topic, "1", time_ms, {**FIELDS, **more})


def test_a_feed_reads_its_user_once_and_every_video_that_it_ranks():
    """
    Reads that nobody makes would make copies look better than they are.
    """
    log = list(lines([event(IMPRESSIONS, 5), event(IMPRESSIONS, 5, video_id=8), event(IMPRESSIONS, 9)], {}))

    groups = [(time_ms, group) for time_ms, op, group, *_ in log if op == "read"]
    assert [time_ms for time_ms, group in groups if group == "user_taste"] == [5, 9]
    # The third feed ranks the two videos that were shown before, one of which it shows again.
    assert [time_ms for time_ms, group in groups if group == "video_quality"] == [5, 5, 9, 9]


def test_an_event_writes_the_rows_that_it_feeds_in_their_recorded_sizes():
    """
    A row grows with its events; its last size stands for what was not recorded.
    """
    events = [event(CLICKS, time_ms) for time_ms in (1, 2, 3)]
    assert list(lines(events, {})) == []
    first = lines([event(IMPRESSIONS, 1)], {})
    user = next(key for _, _, group, key, _ in first if group == "user_taste")
    written = list(lines(events, {("user_taste", user): [100, 120]}))

    assert written == [
        (1, "write", "user_taste", user, 100),
        (2, "write", "user_taste", user, 120),
        (3, "write", "user_taste", user, 120),
    ]
