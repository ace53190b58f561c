from dataclasses import replace

import pytest
from pydantic import BaseModel

from core.definitions import (
    ALL_TIME,
    Count,
    Entity,
    FeatureGroup,
    LastN,
    Mean,
    Ratio,
    ServingPolicy,
    Source,
    Sum,
    WritePolicy,
    aggregate,
    col,
    explode,
    latest,
)
from core.plans import plan_group
from core.windows import days, hours, minutes, seconds


class Click(BaseModel):
    event_id: str
    time_ms: int
    user_id: int
    video_id: int
    kind: str
    watch_ms: int | None = None


class ClickOfText(Click):
    user_id: str


USER = Entity("user", keys=("user_id",))
CLICKS = Source("clicks", Click, event_time="time_ms", event_id="event_id")


def features(source=CLICKS):
    return (
        aggregate("clicks", source, Count(), over=(hours(1), days(1))),
        aggregate("likes", source, Count(), where=col("kind") == "like", over=(days(1),)),
        aggregate("watch_s", source, Sum(col("watch_ms") / 1000), over=(hours(1), days(1))),
        aggregate("last_videos", source, LastN(col("video_id"), n=3), over=(days(7),)),
        latest("kind", source, col("kind")),
        Ratio("watch_per_click", "watch_s", "clicks", over=(hours(1),), default=0.0),
    )


GROUP = FeatureGroup("engagement", entity=USER, owner="feed", features=features())


def with_feature(place, **changes):
    new = list(GROUP.features)
    new[place] = replace(new[place], **changes)
    return replace(GROUP, features=tuple(new))


def with_source(**changes):
    return replace(GROUP, features=features(replace(CLICKS, **changes)))


def test_the_fingerprint_is_frozen():
    """
    Every stored row carries it: a change of these bytes moves data, that of every group there is.
    """
    assert plan_group(GROUP).fingerprint.hex() == "61d4c26f8079a400"


@pytest.mark.parametrize(
    "same",
    [
        replace(GROUP, features=tuple(reversed(GROUP.features))),
        replace(GROUP, description="What users do."),
        replace(GROUP, owner="somebody else"),
        replace(GROUP, serving=ServingPolicy(tier="local", soft_ttl=seconds(1))),
        replace(GROUP, writing=WritePolicy.around(every=seconds(1))),
        replace(GROUP, row_bytes_max=1000),
        with_feature(0, unit="clicks", description="How many."),
        with_feature(0, over=(days(1), hours(1))),
        with_source(description="From the app."),
        with_source(dedupe_ids_max=1000),
    ],
)
def test_what_is_not_the_meaning_keeps_the_version(same):
    """
    A new owner must not throw away seven days of state.
    """
    assert plan_group(same).fingerprint == plan_group(GROUP).fingerprint


@pytest.mark.parametrize(
    "other",
    [
        replace(GROUP, name="engagement_2"),
        replace(GROUP, entity=replace(USER, name="viewer")),
        replace(GROUP, entity=replace(USER, keys=("video_id",))),
        replace(GROUP, entity=replace(USER, partitions=16)),
        replace(GROUP, features=GROUP.features[:-1]),
        with_feature(1, name="hearts"),
        with_feature(0, over=(hours(1),)),
        with_feature(0, over=(hours(1), days(2))),
        with_feature(0, where=col("kind") == "like"),
        with_feature(1, where=col("kind") == "follow"),
        with_feature(2, aggregation=Mean(col("watch_ms") / 1000)),
        with_feature(2, aggregation=Sum(col("watch_ms"))),
        with_feature(3, aggregation=LastN(col("video_id"), n=4)),
        with_feature(3, aggregation=LastN(col("video_id"), n=3, distinct=True)),
        with_feature(4, default="none"),
        with_feature(5, denominator="watch_s"),
        with_feature(5, default=None),
        with_source(topic="clicks_2"),
        with_source(event_time="video_id"),
        with_source(event_id=None),
        with_source(lateness=hours(2)),
        with_source(dedupe=minutes(5)),
        with_source(keys={"user_id": col("video_id")}),
        with_source(model=ClickOfText),
    ],
)
def test_every_part_of_the_meaning_makes_a_version(other):
    """
    Rows of one meaning that are served under another are wrong numbers, and nobody is told.
    """
    assert plan_group(other).fingerprint != plan_group(GROUP).fingerprint


def test_an_exploded_key_is_another_meaning():
    """
    One event then touches many rows.
    """

    class Shown(BaseModel):
        time_ms: int
        user_id: int
        user_ids: list[int]

    def group(**keys):
        source = Source("shown", Shown, event_time="time_ms", event_id=None, keys=keys)
        return FeatureGroup(
            "shown", entity=USER, owner="", features=(aggregate("shown", source, Count(), over=(days(1),)),)
        )

    plain, exploded = group(), group(user_id=explode(col("user_ids")))

    assert plan_group(plain).fingerprint != plan_group(exploded).fingerprint


def test_features_are_served_in_the_order_of_their_names():
    """
    A row's values carry no names; their order is part of the format.
    """
    plan = plan_group(GROUP)

    assert [feature.name for feature in plan.features] == [
        "clicks_1d", "clicks_1h", "kind", "last_videos_7d", "likes_1d", "watch_per_click_1h", "watch_s_1d",
        "watch_s_1h",
    ]  # fmt: skip
    assert list(plan.empty) == [0, 0, None, [], 0, 0.0, 0, 0]


def test_features_that_differ_in_their_window_share_a_state():
    """
    Otherwise a row would grow with every window of equal tiles, and every event would be added as often.
    """
    feature = aggregate("clicks", CLICKS, Count(), over=(minutes(5), seconds(325), ALL_TIME))
    twin = aggregate("taps", CLICKS, Count(), over=(minutes(5),))
    plan = plan_group(replace(GROUP, features=(feature, twin)))

    assert [(resolution.tile_ms, len(resolution.slots)) for resolution in plan.resolutions] == [(0, 1), (25_000, 1)]
    assert [window.label for window in plan.resolutions[1].windows] == ["5m", "325s"]
    assert plan.resolutions[1].size_max_ms == 325_000


def test_steps_belong_to_the_source_of_their_slot():
    """
    An impression that is counted as a click is a wrong number in every ratio.
    """
    impressions = replace(CLICKS, topic="impressions")
    shown = aggregate("impressions", impressions, Count(), over=(days(1),))
    plan = plan_group(replace(GROUP, features=(GROUP.features[1], shown)))

    for topic, condition in (("clicks", "(kind == 'like')"), ("impressions", None)):
        (step,) = plan.steps[topic]
        for number, place in step.places:
            slot = plan.resolutions[number].slots[place]
            assert (slot.source, slot.where, step.where) == (topic, condition, condition)


def test_a_tile_is_kept_until_no_window_can_need_it():
    """
    A tile that goes too early is missing from the longest window.
    """
    (resolution,) = plan_group(replace(GROUP, features=(GROUP.features[3],))).resolutions
    (window,) = resolution.windows

    assert resolution.oldest_kept(window.leaves_ms(100)) == 100
    assert resolution.oldest_kept(window.leaves_ms(100) + window.tile_ms - 1) == 100
    assert resolution.oldest_kept(window.leaves_ms(100) + window.tile_ms) == 101
