from collections import Counter
from itertools import pairwise

import pytest

from demo.log import DemoEvent, happening, load_log
from features.videos_events import Click, Conversion, Impression

NOW_MS = 1_800_000_000_000
MODELS = {"impressions": Impression, "clicks": Click, "conversions": Conversion}


@pytest.fixture(scope="module")
def log() -> list[DemoEvent]:
    return load_log()


def test_the_log_holds_every_event_of_the_two_days(log):
    """
    All figures of the demo are told of these 52,473 events: a row lost in reading would go unseen.
    """
    assert Counter(event.topic for event in log) == {"impressions": 29_434, "clicks": 13_148, "conversions": 9_891}
    assert Counter(event.fields["kind"] for event in log if event.topic == "conversions") == {
        "long_view": 9_298,
        "like": 513,
        "follow": 43,
        "forward": 37,
    }


def test_repeated_rows_repeat_their_ids_and_nothing_else_does(log):
    """
    529 rows repeat another one; with their clicks and conversions these are 692 events that must not count.
    """
    impressions = [event for event in log if event.topic == "impressions"]

    distinct = {event.event_id: event for event in log}

    assert len(impressions) - len({event.event_id for event in impressions}) == 529
    assert len(log) - len(distinct) == 692
    assert all(distinct[event.event_id].fields == event.fields for event in log)


def test_events_stand_in_the_order_in_which_they_happened(log):
    """
    The replay sends them as they stand, and keeps the last 5 % for the live part.
    """
    assert all(earlier.time_ms <= later.time_ms for earlier, later in pairwise(log))


def test_a_shift_moves_all_events_and_leaves_their_ids(log):
    """
    A replay ends now. The distances between events are the log's, and an event keeps its id from run to run.
    """
    shifted = load_log(shift_to_end_ms=NOW_MS)

    assert shifted[-1].time_ms == NOW_MS
    assert {later.time_ms - event.time_ms for event, later in zip(log, shifted, strict=True)} == {
        NOW_MS - log[-1].time_ms
    }
    assert all(event.fields["time_ms"] == event.time_ms for event in shifted)
    assert [event.event_id for event in shifted] == [event.event_id for event in log]


def test_every_event_passes_the_model_of_its_topic(log):
    """
    The demo's own events must not end among the dead letters.
    """
    for event in log:
        assert MODELS[event.topic].model_validate(event.fields).model_dump() == event.fields
        assert event.key == str(event.fields["user_id"])


def test_live_events_happen_while_they_are_sent_and_repetitions_repeat_their_time_too(log):
    """
    The live part bore times of up to an hour ago, so the worker took it for a backlog and published it in steps of two
    seconds. An event that is sent twice has one time: with two it would be two different events of one id.
    """
    past, latest = log[:-2_000], log[-2_000:]

    live = happening([*latest, past[0]], since=past, start_ms=NOW_MS, events_per_s=200.0)

    first = {event.event_id: event for event in reversed(live)}
    assert [event.event_id for event in live[:-1]] == [event.event_id for event in latest]
    assert live[-1] == past[0]
    assert all(event == first[event.event_id] for event in live)
    assert all(event.time_ms == event.fields["time_ms"] for event in live)
    assert all(event.time_ms <= NOW_MS + place * 5 for place, event in enumerate(live))
    assert [event.time_ms for event in live[:2]] == [NOW_MS, NOW_MS + 5]
