import enum
import math
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import AwareDatetime, BaseModel, Field, StringConstraints

from core.check import Problem, check_registry
from core.definitions import (
    ALL_TIME,
    ApproxDistinct,
    ApproxPercentile,
    ApproxTopK,
    Change,
    Count,
    Entity,
    FeatureGroup,
    FeatureService,
    Last,
    LastN,
    Latest,
    Max,
    Mean,
    Min,
    Ratio,
    Registry,
    ServingPolicy,
    Source,
    StdDev,
    Sum,
    TopK,
    Variance,
    WritePolicy,
    aggregate,
    col,
    explode,
    latest,
    when,
)
from core.plans import plan_group
from core.row_size import ROW_BYTES_MAX, worst_row
from core.values import TEXT_BYTES_MAX
from core.windows import days, hours, milliseconds, minutes, seconds
from stores.dynamodb import ITEM_BYTES_MAX


class Tab(enum.StrEnum):
    HOME = "home"


class Play(BaseModel):
    event_id: str
    time_ms: int
    at: AwareDatetime
    user_id: int
    video_id: int
    video_ids: list[int]
    weights: list[float]
    tab: Tab
    kind: str
    act: Literal["like", "follow"] | None = None
    watch_ms: int | None = None
    score: float = 0.0
    liked: bool = False
    maybe_id: str | None = None
    maybe_ms: int | None = None
    nested: dict[str, int] = {}


class PlayOfText(Play):
    user_id: str


class Hit(BaseModel):
    event_id: str = Field(max_length=36)
    time_ms: int
    user_id: int
    undeclared: str
    short: str = Field(max_length=5)
    long: Annotated[str, StringConstraints(max_length=300)]
    inner: Annotated[str, Field(max_length=10)] | None = None
    maybe: str | None = Field(default=None, max_length=10)
    choice: Literal["home", "feed"]
    tab: Tab


DAY = (days(1),)
USER = Entity("user", keys=("user_id",))
VIDEO = Entity("video", keys=("video_id",))
PLAYS = Source("plays", Play, event_time="time_ms", event_id="event_id")
HITS = Source("hits", Hit, event_time="time_ms", event_id="event_id")
SHOWN = Source("shown", Play, event_time="at", event_id=None, keys={"video_id": explode(col("video_ids"))})

PLAYED = aggregate("plays", PLAYS, Count(), over=(hours(1), days(1)))
GROUP = FeatureGroup("engagement", entity=USER, owner="feed", features=(PLAYED,))


def registry(*features, group=GROUP, services=(), **changes) -> Registry:
    """A registry of the healthy group, with other features or other settings."""
    features = {"features": features} if features else {}
    return Registry(groups=(replace(group, **features, **changes),), services=services)


def one(aggregation, **changes) -> Registry:
    return registry(replace(aggregate("it", PLAYS, aggregation, over=DAY), **changes))


def over(*spans) -> Registry:
    return registry(aggregate("it", PLAYS, Count(), over=spans))


def source(**changes) -> Registry:
    return registry(aggregate("it", replace(PLAYS, **changes), Count(), over=DAY))


def entity(**changes) -> Registry:
    return registry(entity=replace(USER, **changes))


def service(**parts) -> Registry:
    return registry(services=(FeatureService("home_feed", **parts),))


def ratio(*features, **changes) -> Registry:
    parts = {"numerator": "plays", "denominator": "plays", "over": DAY}
    return registry(PLAYED, *features, Ratio("rate", **(parts | changes)))


def change(*features, **changes) -> Registry:
    parts = {"of": "plays", "over": (hours(1),), "against": days(1)}
    return registry(PLAYED, *features, Change("trend", **(parts | changes)))


WEEK = aggregate("week", PLAYS, Count(), over=(days(7),))
IT, RATE, OF_PLAYS = "group engagement, feature it", "group engagement, feature rate", "source plays"
TREND = "group engagement, feature trend"

PROBLEMS = [
    # expressions and aggregations
    (one(Sum(col("watchms"))), IT, "Play has no field watchms", "did you mean watch_ms"),
    (one(Count(), where=col("knd") == "a"), IT, "Play has no field knd", "kind"),
    (one(Count(col("at"))), IT, "the field at of Play has a type that expressions cannot read", "int, float"),
    (one(Sum(col("kind"))), IT, "Sum cannot take str", "float, int"),
    (one(Mean(col("liked"))), IT, "Mean cannot take bool", "float, int"),
    (one(Max(col("video_ids"))), IT, "Max cannot take list", "float, int, str"),
    (one(Min(col("kind") + 1)), IT, "numbers are needed", "operands"),
    (one(Sum()), IT, "None is no expression", "col("),
    (one(Sum("watch_ms")), IT, "'watch_ms' is no expression", "col("),
    (one(Count), IT, "is no aggregation", "Count()"),
    (one(Count(), where=col("watch_ms")), IT, "watch_ms is no condition", "compare"),
    (one(Count(), where=True), IT, "True is no expression", "col("),
    (one(Count(), where=when("kind").then(1)), IT, "'kind' is no condition", "operands"),
    (one(Count(), where=col("kind") == 2**70), IT, "64 bits", "operands"),
    (one(Count(), where=col("act") == "lkie"), IT, "Play.act is never 'lkie'", "did you mean like?"),
    (one(Count(), where=~(col("act") == "lkie") & col("liked")), IT, "Play.act is never 'lkie'", "like"),
    (one(Count(), where=col("act").is_in("like", "share")), IT, "Play.act is never 'share'", "follow, like"),
    (one(Count(), where=col("tab") != "hme"), IT, "Play.tab is never 'hme'", "did you mean home?"),
    (one(Sum(when(col("act") == "lkie").then(1))), IT, "Play.act is never 'lkie'", "like"),
    (one(LastN(col("video_id"), n=0)), IT, "n of LastN is 0", "1 to 1,000"),
    (one(LastN(col("liked"), n=1001), over=(ALL_TIME,)), IT, "n of LastN is 1001", "1 to 1,000"),
    (one(LastN(col("video_id"), distinct="no")), IT, "distinct of LastN is 'no'", "True or False"),
    (one(Variance(col("watch_ms"), sample=5)), IT, "sample of Variance is 5", "True or False"),
    (one(StdDev(col("watch_ms"), sample=1)), IT, "sample of StdDev is 1", "True or False"),
    (one(TopK(col("video_id"), n=0)), IT, "n of TopK is 0", "1 to 100"),
    (one(TopK(col("video_id"), values_max=1001)), IT, "values_max of TopK is 1001", "1 to 1,000"),
    (one(TopK(col("watch_ms") / 1000)), IT, "TopK cannot take float", "bool, int, str"),
    (one(ApproxTopK(col("video_id"), counters=1)), IT, "counters of ApproxTopK is 1", "2 to 1,000"),
    (one(ApproxDistinct(col("video_id"), precision=16)), IT, "precision of ApproxDistinct is 16", "8 to 14"),
    (one(ApproxDistinct(), default=0), IT, "None is no expression", "col("),
    (one(ApproxPercentile(col("watch_ms"), percents=101)), IT, "percents of ApproxPercentile is 101", "0 to 100"),
    (one(ApproxPercentile(col("watch_ms"), percents=())), IT, "percents of ApproxPercentile is ()", "at most 100"),
    (one(ApproxPercentile(col("watch_ms"), percents="50")), IT, "percents of ApproxPercentile is '50'", "a number"),
    (one(ApproxPercentile(col("watch_ms"), steps=12)), IT, "steps of ApproxPercentile is 12", "8, 16, 32 or 64"),
    (one(ApproxPercentile(col("watch_ms"), buckets=0)), IT, "buckets of ApproxPercentile is 0", "2 to 1,024"),
    (one(Latest(col("kind"))), IT, "Latest is a state", "latest(...)"),
    (registry(aggregate("it", "plays", Count(), over=DAY)), IT, "'plays' is no source", "Source"),
    # windows
    (over(minutes(1)), IT, "between 5 minutes and 90 days", "ALL_TIME"),
    (over(days(91)), IT, "between 5 minutes and 90 days", "ALL_TIME"),
    (over(seconds(307)), IT, "no tile divides a window of 307 s", "hours"),
    (over(3600), IT, "3600 is no window", "hours"),
    (over(), IT, "over is empty", "at least one"),
    (registry(aggregate("it", PLAYS, Count(), over=hours(1))), IT, "over is no tuple", "comma"),
    # defaults
    (one(Count(), default="none"), IT, "the default 'none' is no int", "int"),
    (one(Count(), default=True), IT, "the default True is no int", "int"),
    (one(Mean(col("watch_ms")), default="0"), IT, "the default '0' is no float", "float"),
    (one(Mean(col("watch_ms")), default=math.nan), IT, "the default nan is no float", "float"),
    (one(Last(col("kind")), default=0), IT, "the default 0 is no str", "str"),
    (ratio(default="0"), RATE, "the default '0' is no float", "float"),
    # ratios
    (ratio(numerator="play"), RATE, "the numerator play is no feature of this group", "did you mean plays"),
    (ratio(denominator="rate"), RATE, "the denominator rate is no feature", "plays"),
    (ratio(Ratio("half", "plays", "plays", over=DAY), numerator="half"), RATE, "is a ratio itself", "plays"),
    (ratio(WEEK, denominator="week", over=(days(7),)), RATE, "the numerator plays has no window 7d", "of plays"),
    (ratio(aggregate("kinds", PLAYS, Max(col("kind")), over=DAY), numerator="kinds"), RATE, "is a str", "numbers"),
    (ratio(aggregate("ids", PLAYS, LastN(col("user_id")), over=DAY), numerator="ids"), RATE, "is a list", "numbers"),
    (change(Change("more", "plays", over=(hours(1),), against=days(1)), of="more"), TREND, "no count and no sum", "plays"),
    (registry(PLAYED, Change("up", "plays", over=(hours(1),), against=days(1)),
              Ratio("rate", "up", "plays", over=(hours(1),))), RATE, "the numerator up is a change", "plays"),
    # changes
    (change(of="play"), TREND, "play is no count and no sum", "did you mean plays"),
    (change(aggregate("mean", PLAYS, Mean(col("watch_ms")), over=DAY), of="mean"), TREND, "has no rate", "plays"),
    (change(against=days(7)), TREND, "its subject plays has no window 7d", "windows of plays"),
    (change(against=ALL_TIME), TREND, "no window with a length", "longer"),
    (change(against=minutes(1)), TREND, "no window with a length", "longer"),
    (change(over=DAY), TREND, "1d is not shorter than 1d", "shorter"),
    (change(over=(ALL_TIME,)), TREND, "all is not shorter than 1d", "shorter"),
    (change(default="0"), TREND, "the default '0' is no float", "float"),
    # names
    (registry(replace(PLAYED, name="Plays")), "group engagement, feature Plays", "'Plays' is not allowed", "small"),
    (registry(replace(PLAYED, name="")), "group engagement, feature ", "'' is not allowed", "small letters"),
    (registry(replace(PLAYED, name="p" * 65)), "feature ppp", "has 65 characters", "64"),
    (registry(replace(PLAYED, name="p" * 62, over=DAY)), "feature ppp", "has 65 characters", "64"),
    (registry(name="user-engagement"), "group user-engagement", "is not allowed", "small letters"),
    (registry(name="e" * 65), "group eee", "has 65 characters", "64"),
    (entity(name="User"), "entity User", "is not allowed", "small letters"),
    # clashes
    (registry(PLAYED, replace(PLAYED, over=(days(7),))), "group engagement, feature plays", "2 have this name", "rename"),
    (registry(PLAYED, latest("plays_1h", PLAYS, col("kind"))), "feature plays_1h", "2 have this name", "rename"),
    (over(hours(24), days(1)), "group engagement, feature it_1d", "2 have this name", "rename"),
    (registry(latest("user_id", PLAYS, col("kind"))), "feature user_id", "a key of user too", "rename"),
    (Registry((GROUP, replace(GROUP))), "group engagement", "2 have this name", "rename"),
    (
        registry(PLAYED, aggregate("more", replace(PLAYS, lateness=hours(2)), Count(), over=DAY)),
        OF_PLAYS,
        "two different sources",
        "once",
    ),
    (
        Registry((GROUP, replace(GROUP, name="other", entity=replace(USER, partitions=16)))),
        "entity user",
        "two different entities",
        "once",
    ),
    # sources
    (source(topic="pläys"), "source pläys", "no such topic name", "249"),
    (source(topic="freshet.user"), "source freshet.user", "Freshet's own", "rename"),
    (source(event_time="time"), "event_time", "Play has no field time", "did you mean time_ms"),
    (source(event_time="kind"), "event_time", "the field kind tells no time", "milliseconds"),
    (source(event_time="score"), "event_time", "tells no time", "milliseconds"),
    (source(event_time="maybe_ms"), "event_time", "tells no time", "never null"),
    (source(event_id="eventid"), "event_id", "Play has no field eventid", "did you mean event_id"),
    (source(event_id="score"), "event_id", "the field score is no identity", "str or an int"),
    (source(event_id="maybe_id"), "event_id", "the field maybe_id is no identity", "never null"),
    (source(lateness=timedelta(hours=-1)), OF_PLAYS, "lateness is -3600 s", "above 0"),
    (source(lateness=days(400)), OF_PLAYS, "lateness is 3.456e+07 s", "at most"),
    (source(dedupe=timedelta(0)), OF_PLAYS, "dedupe is 0 s", "above 0"),
    (source(dedupe=days(30)), OF_PLAYS, "dedupe is 2.592e+06 s", "at most"),
    (source(dedupe=15), OF_PLAYS, "dedupe is 15, no duration", "seconds(...), minutes(...), hours"),
    (source(dedupe_ids_max=10), OF_PLAYS, "dedupe_ids_max is 10", "from 500"),
    (source(model=dict), OF_PLAYS, "is no pydantic model", "BaseModel"),
    (source(keys={"usr_id": col("user_id")}), OF_PLAYS, "keys names usr_id", "did you mean user_id"),
    # entities and their keys in sources
    (entity(keys=()), "entity user", "keys is empty", "at least one"),
    (entity(keys=("user_id")), "entity user", "keys is no tuple", "comma"),  # the comma is what was forgotten
    (entity(keys=("user_id", "user_id")), "entity user, key user_id", "2 have this name", "rename"),
    (entity(partitions=0), "entity user", "partitions is 0", "1 to 1,024"),
    (entity(partitions=1025), "entity user", "partitions is 1025", "1 to 1,024"),
    (entity(partitions=True), "entity user", "partitions is True", "1 to 1,024"),
    (entity(keys=("device",)), "source plays, key device", "Play has no field device", 'keys={"device"'),
    (entity(keys=("score",)), "source plays, key score", "a float is no key", "int or a str"),
    (entity(keys=("video_ids",)), "source plays, key video_ids", "a list is no key", "explode"),
    (entity(keys=("nested",)), "source plays, key nested", "cannot read", "int, float"),
    (source(keys={"user_id": col("user") + 1}), "key user_id", "no field user", "user_id"),
    (source(keys={"user_id": explode(col("users"))}), "key user_id", "no field users", "user_id"),
    (source(keys={"user_id": explode(col("weights"))}), "key user_id", "weights is none", "leave explode out"),
    (source(keys={"user_id": explode(col("kind"))}), "key user_id", "kind is none", "leave explode out"),
    (
        registry(PLAYED, aggregate("texts", replace(PLAYS, topic="texts", model=PlayOfText), Count(), over=DAY)),
        "entity user, key user_id",
        "int in plays and str in texts",
        "one type",
    ),
    # groups and policies
    (Registry(groups=()), "registry", "groups is empty", "at least one"),
    (replace(registry(), groups=GROUP), "registry", "groups is no tuple", "comma"),
    (registry(features=()), "group engagement", "features is empty", "at least one"),
    (registry(features=PLAYED), "group engagement", "features is no tuple", "comma"),
    (registry(PLAYED, "clicks"), "group engagement", "'clicks' is no feature", "aggregate(...)"),
    (registry(entity="user"), "group engagement", "'user' is no entity", "Entity"),
    (registry(serving=ServingPolicy(soft_ttl=hours(2), hard_ttl=hours(1))), "engagement", "hard_ttl is shorter", "later"),
    (registry(serving=ServingPolicy(soft_ttl=timedelta(0))), "engagement", "soft_ttl is 0 s", "above 0"),
    (registry(serving=ServingPolicy(jitter=1.5)), "group engagement", "jitter is 1.5", "from 0 to 0.9"),
    (registry(serving=ServingPolicy(jitter=True)), "group engagement", "jitter is True", "from 0 to 0.9"),
    (registry(serving=ServingPolicy(early_refresh=-1)), "group engagement", "early_refresh is -1", "from 0 to 16"),
    (registry(serving=ServingPolicy(early_refresh=float("nan"))), "engagement", "early_refresh is nan", "from 0 to 16"),
    (registry(serving=ServingPolicy(preload="yes")), "group engagement", "preload is 'yes'", "True or False"),
    (registry(serving=ServingPolicy(on_failure="zero")), "group engagement", "on_failure is 'zero'", "default"),
    (registry(serving=ServingPolicy(negative_ttl=seconds(-1))), "group engagement", "negative_ttl is -1 s", "above 0"),
    (registry(serving=ServingPolicy(tier="redis")), "group engagement", "no tier 'redis'", "remote"),
    (registry(serving=ServingPolicy(max_age=hours(1))), "group engagement", "max_age is for states", "of their own"),
    (registry(writing=WritePolicy(every=timedelta(0))), "group engagement", "every is 0 s", "above 0"),
    (registry(writing=WritePolicy(every=milliseconds(-1))), "group engagement", "every is -0.001 s", "above 0"),
    (registry(row_bytes_max=0), "group engagement", "row_bytes_max is 0", "from 1"),
    # services
    (service(), "service home_feed", "nothing is in it", "group:feature"),
    (service(features=("plays_1h",)), "service home_feed", "'plays_1h' names no group", "group:feature"),
    (service(features=("engagment:plays_1h",)), "service home_feed", "no such group", "did you mean engagement"),
    (service(features=("engagement:plays",)), "service home_feed", "no such feature", "did you mean plays_1"),
    (service(groups=(replace(GROUP, name="other"),)), "service home_feed", "other is not in the registry", "list it"),
]  # fmt: skip


@pytest.mark.parametrize(("wrong", "where", "reason", "remedy"), PROBLEMS, ids=[case[2] for case in PROBLEMS])
def test_each_problem_is_told_once(wrong, where, reason, remedy):
    """
    Who made the mistake reads one line, and it is the line about the mistake.
    """
    (problem,) = check_registry(wrong)

    assert where in problem.where
    assert reason in problem.reason
    assert remedy in problem.remedy


def test_the_group_of_the_how_to_is_one_and_has_the_policies_that_are_default():
    """
    Whoever copies it begins with something that works.
    """
    code = (Path(__file__).parents[2] / "docs/how-to/policies.md").read_text().split("```python\n")[1].split("```")[0]
    found: dict[str, Any] = {}
    exec(code, found)  # noqa: S102  # our own text
    group = found["VIDEO_REACH"]

    assert check_registry(Registry(groups=(group,))) == []
    assert (group.serving, group.writing) == (ServingPolicy(), WritePolicy())


def test_all_problems_are_told_at_once():
    """
    One mistake per run of check would make a day of ten of them.
    """
    cases = [(wrong, reason) for wrong, _, reason, _ in PROBLEMS if isinstance(wrong.groups, tuple) and wrong.groups]
    groups = tuple(group for wrong, _ in cases for group in wrong.groups)
    services = tuple(service for wrong, _ in cases for service in wrong.services)

    told = [problem.reason for problem in check_registry(Registry(groups, services))]

    untold = [reason for _, reason in cases if not any(reason in other for other in told)]
    # These two are told in other words: more than two definitions have the name, more than one source the type.
    assert set(untold) <= {"2 have this name", "int in plays and str in texts"}


def test_a_service_of_a_bad_name_and_services_of_one_name_are_told():
    """
    Clients put the name into a request.
    """
    bad, twin = FeatureService("Home feed", groups=(GROUP,)), FeatureService("feed", groups=(GROUP,))

    problems = check_registry(Registry((GROUP,), (bad, twin, twin)))

    assert [(problem.where, problem.severity) for problem in problems] == [
        ("service feed", "error"),
        ("service Home feed", "error"),
    ]


BIG = aggregate("last_videos", PLAYS, LastN(col("video_id"), n=20), over=(hours(1), days(1)))
SENSELESS = [
    (ServingPolicy(preload=True), {}, "preload does nothing", 'tier="local"'),
    (ServingPolicy(tier="direct"), {}, "rows that are written to Redis", "WritePolicy.around()"),
    (
        ServingPolicy(tier="direct", early_refresh=1),
        {"writing": WritePolicy.around()},
        "early_refresh does nothing",
        "leave it out",
    ),
    (ServingPolicy(tier="local", soft_ttl=milliseconds(100)), {}, "soft_ttl of 0.1 s", "from 1 s on"),
    (ServingPolicy(tier="local"), {"features": (BIG,)}, "which every worker would hold", 'tier="remote"'),
    (ServingPolicy(negative_ttl=days(2)), {}, "longer than hard_ttl", "at most hard_ttl"),
]


@pytest.mark.parametrize(("serving", "more", "reason", "remedy"), SENSELESS, ids=[case[2] for case in SENSELESS])
def test_a_policy_that_makes_no_sense_is_a_warning(serving, more, reason, remedy):
    """
    It runs, and somebody believes for months that rows are preloaded.
    """
    (problem,) = check_registry(registry(serving=serving, **more))

    assert problem.severity == "warning"
    assert reason in problem.reason
    assert remedy in problem.remedy


@pytest.mark.parametrize(("serving", "more", "reason", "remedy"), SENSELESS, ids=[case[2] for case in SENSELESS])
def test_an_error_hides_no_warning(serving, more, reason, remedy):
    """
    Whoever had mended the errors was told of the warnings, one run later.
    """
    wrong = replace(serving, jitter=5)

    problems = check_registry(registry(serving=wrong, row_bytes_max=0, **more))

    assert [problem.reason for problem in problems if problem.severity == "error"] == [
        "jitter is 5",
        "row_bytes_max is 0",
    ]
    assert [problem.remedy for problem in problems if problem.severity == "warning" and reason in problem.reason]


@pytest.mark.parametrize(
    "serving",
    [
        ServingPolicy(tier="local", soft_ttl=minutes(5), preload=True, jitter=0.2, early_refresh=2),
        ServingPolicy(negative_ttl=timedelta(0), jitter=0, on_failure="default"),
    ],
)
def test_policies_that_make_sense_are_not_warned_of(serving):
    """
    A check that cries wolf is switched off.
    """
    assert check_registry(registry(serving=serving)) == []


def test_only_what_can_run_is_a_warning():
    """
    A warning that stopped the start would be an error; an error that did not would be a wrong number.
    """
    problems = [problem for case, *_ in PROBLEMS for problem in check_registry(case)]

    assert {problem.reason.split()[0] for problem in problems if problem.severity == "warning"} == {"keys"}


def healthy() -> Registry:
    user = FeatureGroup(
        "user_engagement",
        entity=USER,
        owner="feed",
        features=(
            aggregate("plays", PLAYS, Count(), over=(minutes(5), hours(1), days(90), ALL_TIME)),
            aggregate("watch_s", PLAYS, Sum(col("watch_ms") / 1000), over=(hours(1),), default=0, unit="s"),
            aggregate("home_plays", PLAYS, Count(), where=col("tab") == "home", over=DAY),
            aggregate("last_videos", PLAYS, LastN(col("video_id"), n=20, distinct=True), over=(days(7),)),
            latest("kind", PLAYS, col("kind"), default="none"),
            Ratio("watch_s_per_play", "watch_s", "plays", over=(hours(1),), default=0),
        ),
    )
    states = FeatureGroup(
        "user_state",
        entity=USER,
        owner="feed",
        features=(latest("tab", PLAYS, col("tab")),),
        serving=ServingPolicy(max_age=days(1)),
    )
    video = FeatureGroup(
        "video_exposure",
        entity=VIDEO,
        owner="feed",
        features=(
            aggregate("shown", SHOWN, Count(), over=DAY),
            aggregate("plays", replace(PLAYS, description="the same, said otherwise"), Count(), over=DAY),
        ),
    )
    services = (
        FeatureService("home_feed", groups=(user, video)),
        FeatureService("ranker", features=("user_engagement:plays_1h", "video_exposure:shown_1d", "user_state:tab")),
    )
    return Registry((user, states, video), services)


def test_healthy_definitions_have_no_problems():
    """
    A check that cries wolf is switched off.
    """
    assert check_registry(healthy()) == []


def test_healthy_definitions_can_be_compiled():
    """
    What check lets through must start.
    """
    plans = [plan_group(group) for group in healthy().groups]

    assert [len(plan.features) for plan in plans] == [9, 1, 2]


def test_a_row_that_is_too_large_is_told_with_its_size_and_its_cause():
    """
    The record store refuses it some day, and the partition stands still behind it.
    """
    last = aggregate("last_videos", PLAYS, LastN(col("video_id"), n=200), over=(hours(1), days(1)))
    group = replace(GROUP, features=(last, PLAYED))
    worst = worst_row((last, PLAYED), ratios=0)

    (problem,) = check_registry(Registry((group,)))

    assert worst.row_bytes > group.row_bytes_max
    assert f"{worst.row_bytes:,} bytes, the limit is 65,536" in problem.reason
    assert "of last_videos" in problem.reason
    assert check_registry(Registry((replace(group, row_bytes_max=worst.row_bytes),))) == []


def test_a_row_is_as_large_as_the_texts_that_a_model_lets_in():
    """
    Top lists of pages passed the check with 66 bytes a page; an event may bring 1,024, and their rows ended the worker.
    """
    pages = [(name, aggregate("pages", HITS, TopK(col(name)), over=(days(7),))) for name in Hit.model_fields]
    texts = {"undeclared": 1027, "short": 21, "long": 1027, "inner": 42, "choice": 5, "tab": 5, "maybe": 42}

    row_bytes = {
        name: worst_row((pages,), ratios=0, text_bytes_max=TEXT_BYTES_MAX).row_bytes
        for name, pages in pages
        if name in texts
    }

    # Fifty texts with their counts, in fifteen tiles and in the values that are served.
    frame = row_bytes["undeclared"] - 16 * 50 * (1027 + 5)
    assert row_bytes == {name: frame + 16 * 50 * (size + 5) for name, size in texts.items()}


def test_a_declared_length_never_makes_a_row_larger_than_none():
    """
    The check asked for max_length, and with it refused a group that it had let pass without.
    """
    sizes = {
        name: worst_row((aggregate("pages", HITS, TopK(col(name)), over=(days(7),)),), ratios=0).row_bytes
        for name in ("undeclared", "long", "short")
    }

    assert sizes["short"] < sizes["long"] == sizes["undeclared"]


def test_texts_of_undeclared_length_that_could_make_a_row_too_large_are_a_warning():
    """
    Most texts are short, so the definition may be good; but a single producer of long ones ends the worker for ever.
    """
    pages = aggregate("pages", HITS, TopK(when(col("tab") == "home").then(col("undeclared"))), over=(days(7),))
    kinds = aggregate("kinds", HITS, Count(col("choice")), over=(days(7),))
    group = replace(GROUP, features=(pages, kinds), row_bytes_max=100_000)
    declared = replace(pages, aggregation=TopK(col("short")))

    (problem,) = check_registry(Registry((group,)))

    assert problem.severity == "warning"
    assert "if each text in pages is as long as it may be" in problem.reason
    assert problem.remedy == "declare max_length for Hit.undeclared, or make it a Literal"
    assert worst_row((pages, kinds), ratios=0, text_bytes_max=1024).row_bytes > 730_058
    assert check_registry(Registry((replace(group, features=(declared, kinds)),))) == []


def test_no_limit_can_be_set_that_a_store_would_refuse():
    """
    A limit of a megabyte was accepted; the record takes 400 KB, and the changelog hardly more.
    """
    (problem,) = check_registry(registry(row_bytes_max=ROW_BYTES_MAX + 1))

    assert ROW_BYTES_MAX < ITEM_BYTES_MAX
    assert "407,552" in problem.remedy


def test_a_state_that_features_share_counts_once():
    """
    Otherwise a second window of equal tiles would seem to cost as much as the first.
    """
    short, longer = (aggregate("plays", PLAYS, Count(), over=spans) for spans in ([minutes(5)], [seconds(325)]))
    features = {"one": (short,), "twins": (short, replace(short, name="twin")), "two tiles more": (short, longer)}

    row_bytes = {name: worst_row(some, ratios=0).row_bytes for name, some in features.items()}

    # A finished value of 9 bytes, and for the longer window one tile of its own.
    assert row_bytes["twins"] - row_bytes["one"] == 9
    assert row_bytes["two tiles more"] - row_bytes["one"] == 9 + 12 + 9


def test_problems_name_the_mistake_of_naive_datetimes_only_where_it_is_one():
    """
    A plain datetime is allowed; the decoder refuses a single event that has no time zone.
    """

    class Dated(Play):
        at: datetime

    assert check_registry(source(model=Dated, event_time="at")) == []


def test_a_problem_is_an_error_unless_it_says_otherwise():
    """
    Whoever adds a check and forgets the severity gets the safe one.
    """
    assert Problem("group g", "wrong", remedy="right").severity == "error"
