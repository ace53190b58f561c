"""Short videos: what users watch, and how videos are received."""

from core.definitions import (
    ALL_TIME,
    Change,
    Count,
    Entity,
    FeatureGroup,
    FeatureService,
    First,
    Last,
    LastN,
    Max,
    Mean,
    Min,
    Ratio,
    ServingPolicy,
    Source,
    StdDev,
    Sum,
    TopK,
    WritePolicy,
    aggregate,
    col,
    latest,
)
from core.windows import days, hours, milliseconds, minutes, seconds
from features.videos_events import Click, Conversion, Impression

USER = Entity("user", keys=("user_id",))
VIDEO = Entity("video", keys=("video_id",))
USER_TAB = Entity("user_tab", keys=("user_id", "tab"))

IMPRESSIONS = Source("impressions", Impression, event_time="time_ms", event_id="event_id", lateness=hours(1))
CLICKS = Source("clicks", Click, event_time="time_ms", event_id="event_id", lateness=hours(1))
CONVERSIONS = Source("conversions", Conversion, event_time="time_ms", event_id="event_id", lateness=days(1))

ENGAGEMENT = (hours(1), days(1), days(7))
TREND = (minutes(5), hours(1), days(1))
WEEK = (days(7),)

USER_ENGAGEMENT = FeatureGroup(
    "user_engagement",
    entity=USER,
    owner="home-feed",
    description="How much a user sees, clicks and watches.",
    features=(
        aggregate("impressions", IMPRESSIONS, Count(), over=ENGAGEMENT, description="Videos shown to the user"),
        aggregate("clicks", CLICKS, Count(), over=ENGAGEMENT, description="Videos that the user clicked"),
        aggregate("watch_s", IMPRESSIONS, Sum(col("watch_ms") / 1000), over=ENGAGEMENT, unit="s"),
        aggregate("likes", CONVERSIONS, Count(), where=col("kind") == "like", over=WEEK),
        aggregate("follows", CONVERSIONS, Count(), where=col("kind") == "follow", over=WEEK),
        Ratio("ctr", "clicks", "impressions", over=ENGAGEMENT, default=0.0, description="Clicks per impression"),
    ),
    serving=ServingPolicy(tier="remote", soft_ttl=seconds(30), hard_ttl=days(1)),
    writing=WritePolicy.through(every=milliseconds(50)),
)

USER_TASTE = FeatureGroup(
    "user_taste",
    entity=USER,
    owner="home-feed",
    description="What a user likes, and how they watch.",
    features=(
        aggregate("last_videos", CLICKS, LastN(col("video_id"), n=20, distinct=True), over=WEEK),
        aggregate("mean_watch_s", IMPRESSIONS, Mean(col("watch_ms") / 1000), over=WEEK, unit="s"),
        aggregate("watch_s_deviation", IMPRESSIONS, StdDev(col("watch_ms") / 1000), over=WEEK, unit="s"),
        aggregate("longest_watch_s", IMPRESSIONS, Max(col("watch_ms") / 1000), over=WEEK, unit="s"),
        aggregate("top_tabs", IMPRESSIONS, TopK(col("tab"), n=3), over=WEEK, description="Where the user watches most"),
        aggregate("last_liked_video", CONVERSIONS, Last(col("video_id")), where=col("kind") == "like", over=WEEK),
        aggregate("impressions", IMPRESSIONS, Count(), over=(ALL_TIME,)),
        latest("tab", IMPRESSIONS, col("tab"), description="The tab in which the user was seen last"),
    ),
)

VIDEO_POPULARITY = FeatureGroup(
    "video_popularity",
    entity=VIDEO,
    owner="ranking",
    description="How often a video is shown, clicked and watched to its end, from minutes to a day.",
    features=(
        aggregate("impressions", IMPRESSIONS, Count(), over=TREND),
        aggregate("clicks", CLICKS, Count(), over=TREND),
        aggregate("long_views", CONVERSIONS, Count(), where=col("kind") == "long_view", over=TREND),
        Ratio("ctr", "clicks", "impressions", over=TREND, default=0.0),
        Change("impressions_change", "impressions", over=(hours(1),), against=days(1), description="Against its day"),
    ),
)

VIDEO_QUALITY = FeatureGroup(
    "video_quality",
    entity=VIDEO,
    owner="ranking",
    description="How a video is received by those who see it.",
    features=(
        aggregate("watch_share", IMPRESSIONS, Mean(col("watch_ms") / col("duration_ms")), over=WEEK),
        aggregate("likes", CONVERSIONS, Count(), where=col("kind") == "like", over=WEEK),
        aggregate("forwards", CONVERSIONS, Count(), where=col("kind") == "forward", over=WEEK),
        aggregate("long_views", CONVERSIONS, Count(), where=col("kind") == "long_view", over=WEEK),
        aggregate("impressions", IMPRESSIONS, Count(), over=WEEK),
        Ratio("long_view_rate", "long_views", "impressions", over=WEEK),
        aggregate("longest_watch_s", IMPRESSIONS, Max(col("watch_ms") / 1000), over=WEEK, unit="s"),
        aggregate("shortest_watch_s", IMPRESSIONS, Min(col("watch_ms") / 1000), over=WEEK, unit="s"),
        latest("duration_ms", IMPRESSIONS, col("duration_ms"), unit="ms"),
    ),
)

USER_TAB_ENGAGEMENT = FeatureGroup(
    "user_tab_engagement",
    entity=USER_TAB,
    owner="home-feed",
    description="What a user does in one tab.",
    features=(
        aggregate("impressions", IMPRESSIONS, Count(), over=(hours(1), days(1))),
        aggregate("clicks", CLICKS, Count(), over=(hours(1), days(1))),
        Ratio("ctr", "clicks", "impressions", over=(hours(1), days(1)), default=0.0),
        aggregate("watch_s", IMPRESSIONS, Sum(col("watch_ms") / 1000), over=(days(1),), unit="s"),
        aggregate("first_video", IMPRESSIONS, First(col("video_id")), over=(days(1),)),
        aggregate("last_videos", IMPRESSIONS, LastN(col("video_id"), n=5), over=(days(1),)),
    ),
)

HOME_FEED = FeatureService(
    "home_feed",
    owner="home-feed",
    description="What the home feed knows of the user who opens it.",
    groups=(USER_ENGAGEMENT, USER_TASTE),
)

VIDEO_RANKER = FeatureService(
    "video_ranker",
    owner="ranking",
    description="What the ranker knows of each candidate video.",
    groups=(VIDEO_POPULARITY,),
    features=("video_quality:watch_share_7d", "video_quality:long_view_rate_7d", "video_quality:likes_7d"),
)

GROUPS = (USER_ENGAGEMENT, USER_TASTE, VIDEO_POPULARITY, VIDEO_QUALITY, USER_TAB_ENGAGEMENT)
SERVICES = (HOME_FEED, VIDEO_RANKER)
