from pydantic import BaseModel

from core.catalogue import catalogue
from core.definitions import (
    Change,
    Count,
    Entity,
    FeatureGroup,
    LastN,
    Ratio,
    Registry,
    Source,
    Sum,
    aggregate,
    col,
    latest,
)
from core.values import ValueType
from core.windows import days, hours


class Play(BaseModel):
    event_id: str
    time_ms: int
    user_id: int
    video_id: int
    kind: str
    watch_ms: int


PLAYS = Source("plays", Play, event_time="time_ms", event_id="event_id")
LIKES = Source("likes", Play, event_time="time_ms", event_id=None)
GROUP = FeatureGroup(
    "engagement",
    entity=Entity("user", keys=("user_id",)),
    owner="home-feed",
    features=(
        aggregate("plays", PLAYS, Count(), over=(hours(1), days(1)), description="How often"),
        aggregate("watch_s", PLAYS, Sum(col("watch_ms") / 1000), over=(days(1),), unit="s", where=col("kind") != "ad"),
        aggregate("likes", LIKES, Count(), over=(days(1),)),
        aggregate("last_videos", PLAYS, LastN(col("video_id"), n=5), over=(days(7),)),
        latest("last_kind", PLAYS, col("kind"), default="none"),
        Ratio("likes_per_play", "likes", "plays", over=(days(1),), default=0.0),
        Change("plays_change", "plays", over=(hours(1),), against=days(1)),
    ),
)
ENTRIES = catalogue(Registry((GROUP,)))
BY_NAME = {entry.feature: entry for entry in ENTRIES}


def test_every_served_feature_is_listed_in_the_order_of_the_definitions():
    """
    A reader compares the list with the file.
    """
    assert [entry.feature for entry in ENTRIES] == [
        "plays_1h", "plays_1d", "watch_s_1d", "likes_1d", "last_videos_7d", "last_kind", "likes_per_play_1d",
        "plays_change_1h",
    ]  # fmt: skip


def test_an_entry_says_what_is_computed_from_what():
    """
    Whoever uses a feature must not have to read its code.
    """
    entry = BY_NAME["watch_s_1d"]

    assert (entry.group, entry.entity, entry.owner, entry.window) == ("engagement", "user", "home-feed", "1d")
    assert (entry.value_type, entry.unit, entry.keys) == (ValueType.FLOAT, "s", ("user_id",))
    assert entry.sources == ("plays",)
    assert entry.definition == "Sum((watch_ms / 1000)) where (kind != 'ad')"
    assert BY_NAME["plays_1h"].description == "How often"
    assert (BY_NAME["last_kind"].window, BY_NAME["last_kind"].default) == ("all", "none")
    assert not any(entry.python_function for entry in ENTRIES)


def test_an_entry_says_what_is_served_for_an_unknown_key():
    """
    The list said null where a count of nothing serves 0; whoever fills in nulls by that trains on other numbers.
    """
    served = {name: entry.default for name, entry in BY_NAME.items()}

    assert served == {
        "plays_1h": 0, "plays_1d": 0, "watch_s_1d": 0, "likes_1d": 0, "last_videos_7d": [], "last_kind": "none",
        "likes_per_play_1d": 0.0, "plays_change_1h": None,
    }  # fmt: skip


def test_entries_have_the_types_that_are_served():
    """
    Clients generate code from them.
    """
    types = {name: entry.value_type.value for name, entry in BY_NAME.items()}

    assert types == {
        "plays_1h": "int", "plays_1d": "int", "watch_s_1d": "float", "likes_1d": "int", "last_videos_7d": "list",
        "last_kind": "str", "likes_per_play_1d": "float", "plays_change_1h": "float",
    }  # fmt: skip


def test_a_ratio_comes_from_the_sources_of_both_parts():
    """
    If either is late, the ratio is wrong.
    """
    entry = BY_NAME["likes_per_play_1d"]

    assert (entry.sources, entry.definition) == (("likes", "plays"), "likes / plays")
    change = BY_NAME["plays_change_1h"]
    assert (change.sources, change.definition) == (("plays",), "plays per time / plays per time over 1d - 1")


def test_what_counts_repetitions_twice_says_so():
    """
    A source without event ids has no protection from its producer's retries; its users must know.
    """
    noted = {name for name, entry in BY_NAME.items() if entry.dedupe_note}

    assert noted == {"likes_1d", "likes_per_play_1d"}
    assert BY_NAME["likes_1d"].dedupe_note.startswith("likes: no event id")
