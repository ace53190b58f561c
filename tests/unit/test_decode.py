import json
from datetime import UTC, datetime, timedelta
from enum import Enum

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from agents.decode import EVENT_ID_BYTES_MAX, RECORD_BYTES_MAX, Decoded, SourceDecoder, decoders_of
from core.definitions import (
    ApproxDistinct,
    Count,
    Entity,
    FeatureGroup,
    Last,
    Max,
    Registry,
    Source,
    Sum,
    aggregate,
    col,
    explode,
    latest,
)
from core.errors import EventError
from core.values import TEXT_BYTES_MAX
from core.windows import FUTURE_MS, days, hours, minutes
from features import REGISTRY
from features.videos import IMPRESSIONS

NOW_MS = 1_700_000_000_000
HOUR_MS = 3_600_000
MODEST = settings(max_examples=300, derandomize=True, deadline=None)


class Kind(Enum):
    CLICK = "click"
    LIKE = "like"


class Play(BaseModel):
    """Lax on purpose, and without bounds: a user's model may be so, and the platform must bear it."""

    id: str
    at: int
    user: int
    tab: str = "home"
    videos: list[int] | None = None
    watch_ms: int | None = None
    share: float | None = None
    weight: float = 1
    title: str | None = None
    kind: Kind = Kind.LIKE


USER = Entity("user", keys=("user",))
VIDEO = Entity("video", keys=("video",))
USER_TAB = Entity("user_tab", keys=("user", "tab"))
PLAYS = Source(
    "plays", Play, event_time="at", event_id="id", lateness=minutes(5), keys={"video": explode(col("videos"))}
)
HOUR = (hours(1),)
GROUPS = (
    FeatureGroup(
        "users",
        entity=USER,
        owner="feed",
        features=(
            aggregate("watch_ms", PLAYS, Sum(col("watch_ms") * 1000), over=HOUR),
            aggregate("share", PLAYS, Max(col("share")), over=HOUR),
            aggregate("likes", PLAYS, Count(), where=col("kind") == "like", over=HOUR),
            aggregate("weights", PLAYS, ApproxDistinct(col("weight")), over=HOUR),
            latest("title", PLAYS, col("title")),
        ),
    ),
    FeatureGroup("videos", entity=VIDEO, owner="feed", features=(aggregate("plays", PLAYS, Count(), over=HOUR),)),
    FeatureGroup(
        "tabs", entity=USER_TAB, owner="feed", features=(aggregate("last", PLAYS, Last(col("user")), over=HOUR),)
    ),
)
DECODER = SourceDecoder(PLAYS, GROUPS)
STRICT = SourceDecoder(IMPRESSIONS, REGISTRY.groups)
GOOD = {"id": "e1", "at": NOW_MS, "user": 7}
GOOD_STRICT = {
    "event_id": "e1", "time_ms": NOW_MS, "user_id": 1, "video_id": 2, "tab": 3, "watch_ms": 4, "duration_ms": 5
}  # fmt: skip


def raw(**changes) -> bytes:
    """A good event with other fields; what cannot be said in JSON is given as raw bytes."""
    fields = {name: json.dumps(value).encode() for name, value in GOOD.items()}
    fields |= {
        name: value if isinstance(value, bytes) else json.dumps(value).encode() for name, value in changes.items()
    }
    return b"{" + b",".join(b'"%s":%s' % (name.encode(), value) for name, value in fields.items()) + b"}"


def without(name) -> bytes:
    return json.dumps({known: value for known, value in GOOD.items() if known != name}).encode()


def refusal(value, *, at_ms=NOW_MS, decoder=DECODER) -> EventError:
    with pytest.raises(EventError) as caught:
        decoder.decode(value, at_ms)
    assert 0 < len(caught.value.detail) <= 500
    return caught.value


def keys(event: Decoded, entity, decoder=DECODER) -> list[str]:
    (number,) = (number for number, target in enumerate(decoder.targets) if target.entity is entity)
    return [key for _, key in event.places[number]]


def value_of(event: Decoded, name, entity=USER, decoder=DECODER):
    (target,) = (target for target in decoder.targets if target.entity is entity)
    return event.values[target.places[target.names.index(name)]]


@pytest.mark.parametrize(
    ("value", "detail"),
    [
        pytest.param(None, "the record has no value", id="tombstone"),
        pytest.param(b"", "value: Invalid JSON", id="empty"),
        pytest.param(b"hello", "value: Invalid JSON", id="no JSON"),
        pytest.param(raw()[:-1], "value: Invalid JSON", id="cut off"),
        pytest.param(raw() + b"x", "value: Invalid JSON", id="goes on"),
        pytest.param(b"[1]", "value: Input should be an object", id="a list"),
        pytest.param(b"null", "value: Input should be an object", id="null"),
        pytest.param(raw(title=b'"\xff"'), "value: Invalid JSON", id="bad UTF-8"),
        pytest.param(raw(title=b'"\xed\xa0\x80"'), "value: Invalid JSON", id="raw lone surrogate"),
        pytest.param(raw(title=b'"\\ud800"'), "value: Invalid JSON", id="escaped lone surrogate"),
        pytest.param(raw(id=b'"\\udfff"'), "value: Invalid JSON", id="lone surrogate in the id"),
        pytest.param(raw(junk=b"[" * 10_000 + b"]" * 10_000), "value: Invalid JSON: recursion", id="nesting"),
        pytest.param(b'{"a":' * 10_000, "value: Invalid JSON: recursion", id="nesting objects"),
        pytest.param(without("user"), "user: Field required", id="missing field"),
        pytest.param(raw(user="no number"), "user: Input should be a valid integer", id="wrong type"),
        pytest.param(raw(user=1.5), "user: Input should be a valid integer", id="a fraction"),
        pytest.param(raw(user=None), "user: Input should be a valid integer", id="null field"),
        pytest.param(raw(kind="neither"), "kind: Input should be 'click' or 'like'", id="no such kind"),
        pytest.param(raw(share=b"NaN"), "share: Input should be a finite number", id="NaN"),
        pytest.param(raw(share=b"Infinity"), "share: Input should be a finite number", id="infinity"),
        pytest.param(raw(share=b"-Infinity"), "share: Input should be a finite number", id="minus infinity"),
        pytest.param(raw(share=b"1e400"), "share: Input should be a finite number", id="too large for a double"),
        pytest.param(raw(share=b"9" * 400), "share: Input should be a finite number", id="integer beyond doubles"),
        pytest.param(raw(user=b"NaN"), "user: Input should be a finite number", id="NaN as integer"),
        pytest.param(raw(watch_ms=b"9" * 5000), "number out of range", id="5,000 digits"),
        pytest.param(raw(id=b"9" * 5000), "number out of range", id="5,000 digits as id"),
        pytest.param(raw(at=b"9" * 30), "at: not milliseconds since the epoch", id="30 digits as time"),
        pytest.param(raw(at=-1), "at: not milliseconds since the epoch", id="before the epoch"),
        pytest.param(raw(id=""), "id: 0 bytes, 1 to 128 are allowed", id="empty id"),
        pytest.param(raw(id="x" * 129), "id: 129 bytes, 1 to 128 are allowed", id="long id"),
        pytest.param(raw(id="é" * 65), "id: 130 bytes, 1 to 128 are allowed", id="long id in bytes"),
        pytest.param(raw(videos=[1, 2**63]), "key: an integer key must fit in 64 bits", id="item beyond 64 bits"),
        pytest.param(raw(videos=[1, "x"]), "videos.1: Input should be a valid integer", id="item of a wrong type"),
        pytest.param(raw(tab="x" * 1100), "key: its encoded form has 11", id="long key"),
    ],
)
def test_a_malformed_event_is_told_by_its_field_and_its_flaw(value, detail):
    """
    Whoever mends a producer reads this line; a worker that falls over such an event stops for everybody.
    """
    error = refusal(value)

    assert error.reason == "malformed"
    assert detail in error.detail


@pytest.mark.parametrize("field", ["user", "watch_ms"])
@pytest.mark.parametrize("number", [10**29, -(10**29), 2**63, -(2**63) - 1])
def test_an_integer_that_leaves_64_bits_is_an_overflow(field, number):
    """
    In a key or in a column that is used, it would wrap round in every other system.
    """
    error = refusal(raw(**{field: number}))

    assert (error.reason, error.detail) == ("overflow", f"{field} leaves 64 bits")


def test_an_expression_that_leaves_64_bits_is_an_overflow():
    """
    It is found before anything of the event was counted for any entity.
    """
    good, bad = (2**63 - 1) // 1000, (2**63 - 1) // 1000 + 1

    assert value_of(DECODER.decode(raw(watch_ms=good), NOW_MS), "(watch_ms * 1000)") == good * 1000
    assert refusal(raw(watch_ms=bad)).detail == "(watch_ms * 1000) leaves 64 bits"


@pytest.mark.parametrize("user", [2**63 - 1, -(2**63), 0])
def test_the_largest_integers_are_good(user):
    """
    A limit that is off by one loses somebody's user.
    """
    assert keys(DECODER.decode(raw(user=user), NOW_MS), USER) == [f"i{user}"]


@pytest.mark.parametrize("event", [raw(), raw(weight=1), raw(weight=1.0)], ids=["default", "int", "float"])
def test_a_value_of_a_float_field_is_a_float(event):
    """
    A default may be an int, and 1 and 1.0 were two different values to a count of different ones.
    """
    value = value_of(DECODER.decode(event, NOW_MS), "weight")

    assert (value, type(value)) == (1.0, float)


def test_a_strict_model_takes_no_number_in_quotes():
    """
    The demo's own events: what a producer may send is what the model says, and nothing like it.
    """
    assert STRICT.decode(json.dumps(GOOD_STRICT).encode(), NOW_MS).event_id == "e1"
    for changed in ({"user_id": "1"}, {"tab": True}, {"watch_ms": -1}, {"video_id": 2**63}, {"event_id": ""}):
        assert refusal(json.dumps(GOOD_STRICT | changed).encode(), decoder=STRICT).reason == "malformed"


def test_unknown_fields_are_ignored():
    """
    Producers may add a field before anybody reads it.
    """
    assert DECODER.decode(raw(new={"deep": [1, None]}), NOW_MS).event_id == "e1"


def test_a_record_over_the_limit_is_not_parsed():
    """
    A megabyte of braces costs more than it can ever be worth.
    """
    good = raw()
    at_limit = good[:-1] + b" " * (RECORD_BYTES_MAX - len(good)) + b"}"

    error = refusal(at_limit + b" ")

    assert (error.reason, error.detail) == ("too_large", "1048577 bytes, the limit is 1048576")
    assert DECODER.decode(at_limit, NOW_MS).event_id == "e1"


@pytest.mark.parametrize(("character", "size"), [("x", 1), ("é", 2), ("😀", 4)])
def test_a_text_that_is_aggregated_is_bounded(character, size):
    """
    Nothing bounded it: a title of 1 MB made a pack, and then a row, that no topic takes, and the worker died of it
    again after every restart.
    """
    longest = character * (TEXT_BYTES_MAX // size)

    assert value_of(DECODER.decode(raw(title=longest), NOW_MS), "title") == longest
    error = refusal(raw(title=longest + character))
    assert error.reason == "too_large"
    assert error.detail == f"title: {TEXT_BYTES_MAX + size} bytes, the limit of a value is {TEXT_BYTES_MAX}"


@pytest.mark.parametrize("size", [1, EVENT_ID_BYTES_MAX])
def test_ids_of_every_allowed_length_are_good(size):
    """
    The limit is 128 bytes, and 128 is allowed.
    """
    assert DECODER.decode(raw(id="x" * size), NOW_MS).event_id == "x" * size


@pytest.mark.parametrize(
    ("record_ms", "reason"),
    [
        (NOW_MS - FUTURE_MS, None),
        (NOW_MS - FUTURE_MS - 1, "future"),
        (NOW_MS + 5 * 60_000, None),
        (NOW_MS + 5 * 60_000 + 1, "late"),
        (NOW_MS + 365 * 24 * HOUR_MS, "late"),
        (-1, "future"),
    ],
)
def test_late_and_future_depend_on_the_record_alone(record_ms, reason):
    """
    With a clock in it a replay would decide otherwise than the first run did.
    """
    if reason is None:
        assert DECODER.decode(raw(), record_ms).event_time_ms == NOW_MS
    else:
        assert refusal(raw(), at_ms=record_ms).reason == reason


def test_a_malformed_event_is_malformed_however_late_it_is():
    """
    Each offset has exactly one reason, the same one each time.
    """
    assert refusal(raw(watch_ms=10**29), at_ms=NOW_MS + 10 * HOUR_MS).reason == "overflow"
    assert refusal(raw(id=""), at_ms=0).reason == "malformed"


@pytest.mark.parametrize(
    ("videos", "expected"),
    [([3, 1, 3, 2, 1], ["i3", "i1", "i2"]), ([], []), (None, []), ([5], ["i5"])],
)
def test_explode_touches_each_item_once(videos, expected):
    """
    A video that stands twice in a list was shown once; an empty list is an event of its user all the same.
    """
    event = DECODER.decode(raw(videos=videos), NOW_MS)

    assert keys(event, VIDEO) == expected
    assert keys(event, USER) == ["i7"]


def test_a_composite_key_has_all_parts():
    """
    Separators in a part must not make two keys one.
    """
    assert keys(DECODER.decode(raw(tab="a|b"), NOW_MS), USER_TAB) == ["i7|sa%7Cb"]
    assert keys(DECODER.decode(raw(tab=""), NOW_MS), USER_TAB) == ["i7|s"]


def test_enums_are_their_values():
    """
    Also where the producer said nothing: a default stayed an enum, and was equal to no text.
    """
    assert value_of(DECODER.decode(raw(), NOW_MS), "(kind == 'like')") is True
    assert value_of(DECODER.decode(raw(kind="like"), NOW_MS), "(kind == 'like')") is True
    assert value_of(DECODER.decode(raw(kind="click"), NOW_MS), "(kind == 'like')") is False


class Told(BaseModel):
    at: datetime
    user: int


TOLD = Source("told", Told, event_time="at", event_id=None, lateness=days(1))
TOLD_DECODER = SourceDecoder(
    TOLD, [FeatureGroup("told", entity=USER, owner="feed", features=(aggregate("n", TOLD, Count(), over=HOUR),))]
)


@pytest.mark.parametrize(
    "text", ["2023-11-14T22:13:20Z", "2023-11-14T23:13:20+01:00", "2023-11-14T22:13:20.000999Z", str(NOW_MS)]
)
def test_a_datetime_with_a_zone_is_an_instant(text):
    """
    Its milliseconds are floored, as tiles are.
    """
    event = TOLD_DECODER.decode(json.dumps({"at": text, "user": 1}).encode(), NOW_MS)

    assert (event.event_time_ms, event.event_id) == (NOW_MS, "")


@pytest.mark.parametrize(
    "text", ["2023-11-14T22:13:20", "2023-11-14", "0001-01-01T00:00:00+14:00", "1969-12-31T23:59:59Z"]
)
def test_a_datetime_without_a_zone_or_before_the_epoch_is_malformed(text):
    """
    Which hour it was would depend on the worker's own zone.
    """
    assert refusal(json.dumps({"at": text, "user": 1}).encode(), decoder=TOLD_DECODER).reason == "malformed"


@given(st.integers(0, 250_000_000_000_000))
@example(1_094_804_248_814)
@MODEST
def test_a_datetime_is_exact_to_the_millisecond(time_ms):
    """
    Through a float, instants as this one came out a millisecond early, and sometimes in another tile.
    """
    text = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=time_ms)).isoformat()

    assert TOLD_DECODER.decode(json.dumps({"at": text, "user": 1}).encode(), time_ms).event_time_ms == time_ms


def test_the_same_payload_has_the_same_check():
    """
    It tells a repetition from a conflict, and only the bytes as they came are the same everywhere.
    """
    first, again, other = (DECODER.decode(value, NOW_MS).check for value in (raw(), raw(), raw(watch_ms=1)))

    assert first == again != other
    assert 0 <= first < 1 << 16


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(["like", "e1"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
EVENTS = st.fixed_dictionaries({}, optional=dict.fromkeys(Play.model_fields, JSON)).map(
    lambda changes: json.dumps(GOOD | changes).encode()
)
BYTES = st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()) | EVENTS


@given(BYTES, st.integers(-1, 2**63 - 1) | st.just(NOW_MS))
@MODEST
def test_no_bytes_raise_anything_but_an_event_error(value, record_ms):
    """
    Whatever else is raised ends the process, and after a restart the same bytes come again.
    """
    for decoder in (DECODER, STRICT, TOLD_DECODER):
        try:
            event = decoder.decode(value, record_ms)
        except EventError as error:
            assert error.reason in ("malformed", "too_large", "overflow", "late", "future")  # noqa: PT017  # or none
            assert 0 < len(error.detail) <= 500  # noqa: PT017  # see above
        else:
            assert len(event.places) == len(decoder.targets)


@given(st.binary(max_size=60), st.integers(0, 200))
@MODEST
def test_no_damage_to_a_good_event_raises_anything_else(noise, place):
    """
    Bytes that were good before a disk or a network had them.
    """
    good = raw(videos=[1, 2], watch_ms=5, share=0.5, title="a title", kind="click", tab="home")
    place %= len(good)
    damaged = good[:place] + noise + good[place + len(noise) :]

    try:
        DECODER.decode(damaged, NOW_MS)
    except EventError as error:
        assert len(error.detail) <= 500  # noqa: PT017  # it need not fail


def test_a_list_full_of_flaws_has_one_bounded_detail():
    """
    Half a million flaws in one event must not become half a million lines.
    """
    error = refusal(raw(videos=["x"] * 10_000))

    assert error.reason == "malformed"
    assert "(and 9999 more)" in error.detail


def test_the_place_of_a_key_is_remembered_once_for_all_sources():
    """
    Each of three sources kept up to 131,072 keys of the same users, 30 MB for each.
    """
    stops = Source("stops", Play, event_time="at", event_id="id")
    group = FeatureGroup("stops", entity=USER, owner="feed", features=(aggregate("stops", stops, Count(), over=HOUR),))
    decoders = decoders_of(Registry((*GROUPS, group), ()))

    played, stopped = (decoders[topic].decode(raw(), NOW_MS).places for topic in ("plays", "stops"))

    assert played[0] is stopped[0]
