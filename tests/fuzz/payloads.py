"""Payloads: records as no producer should send them, drawn by one source of chance.

Most begin as a good event of some source, because garbage is refused at its first byte and reaches nothing behind it.
Users, ids and times are few, so that events meet in rows, repeat each other and stand at the edges of what is allowed.
"""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from random import Random
from typing import TypeAlias

from core.windows import FUTURE_MS, to_ms
from tests.fakes import Record
from tests.fuzz.domain import REGISTRY

NOW_MS = 1_700_000_000_000
SOURCE_PARTITIONS = 3
RUN_RECORDS_MAX = 60
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SOURCES = list(REGISTRY.sources.values())
_HUGE_MAX = 1_200_000

Fields: TypeAlias = dict[bytes, bytes]
"""The fields of an event, each as the bytes that stand for it in JSON."""

# Texts that mean something to somebody on the way: to JSON, to keys, to Redis, to a log.
_TEXTS = (
    "", " ", "a", "i1", "s1", "u|v", "u%7Cv", "a#b", "{tag}", "}{", "\x00", "\x7f", "\n", "\u2028", "é", "é", "ß", "İ",
    "日本", "😀", "👩‍👩‍👧", "\u202e", "\ufeff", "\uffff", "NaN", "null", "true", "1", "-1", "1e3", "0x10", "'; --",
    "x" * 128, "x" * 129, "é" * 64, "é" * 65, "|" * 341, "|" * 342, "x" * 1022, "x" * 1025, "😀" * 300,
)  # fmt: skip
_NUMBERS = (
    b"0", b"-0", b"1", b"-1", b"0.0", b"-0.0", b"1.5", b"1e3", b"1E400", b"-1e400", b"1e308", b"5e-324", b"1e-400",
    b"9223372036854775807", b"9223372036854775808", b"-9223372036854775808", b"-9223372036854775809", b"9" * 30,
    b"9" * 400, b"9" * 4_301, b"9007199254740992", b"9007199254740993", b"0.1", b"00", b"01", b"+1", b".5", b"1.",
    b"1e", b"0x1", b"1_000", b"NaN", b"-NaN", b"Infinity", b"-Infinity", b"inf", b"9223372036854776", b"1.0",
)  # fmt: skip
_OTHERS = (
    b"null", b"true", b"false", b"[]", b"{}", b"[1]", b'{"a":1}', b'[["x"]]', b"", b"nul", b"undefined", b"'a'",
    b'"\\ud800"', b'"\\udfff\\ud800"', b'"\\ud83d\\ude00"', b'"\xff"', b'"\xed\xa0\x80"', b'"\xc0\x80"', b'"\\x"',
    b'"\\u00"', b'"\\u0000"', b'"\x01"', b'"\t"', b'"unended', b'"1"', b'"1.5"', b'"good"', b'"BAD"', b'"like"',
    b'["a","a","b|c"]', b"[null]", b'["a",1]', b'[""]', b'["' + b'","'.join(b"%d" % n for n in range(600)) + b'"]',
    b'"2023-11-14T22:13:20"', b'"2023-11-14T22:13:20Z"', b'"9999-12-31T23:59:59Z"', b'"0001-01-01T00:00:00+14:00"',
    b'"2023-11-14"', b'"2023-02-30T00:00:00Z"', b'"PT1H"', b'"1700000000000"', b"1700000000000.5", b"-1.5",
)  # fmt: skip
_TIMES_MS = (-(2**63), -1, 0, 1, 9_999, 10_000, 2**31, 2**41, 2**53, 2**53 + 1, 2**63 - 1)


def chances(seed: str) -> Random:
    """Return a source of chance that is the same for the same seed."""
    return Random(seed)  # noqa: S311  # it keeps no secret


def draw_batch(chance: Random, size: int) -> list[Record]:
    """Return records in runs of one source partition, offsets ascending in each partition."""
    records: list[Record] = []
    sent: list[Record] = []
    ends: dict[tuple[str, int], int] = {}
    # A producer whose clock begins at the epoch, or whose records have no time at all.
    nows_ms = [chance.choice((NOW_MS,) * 20 + (5_000, 2**31, 2**53)) for _ in range(SOURCE_PARTITIONS)]
    while len(records) < size:
        source, partition = chance.choice(_SOURCES), chance.randrange(SOURCE_PARTITIONS)
        offset = ends.get((source.topic, partition), chance.choice((0, 0, 7, 2**31, 2**47)))
        for _ in range(min(chance.randint(1, RUN_RECORDS_MAX), size - len(records))):
            if sent and chance.random() < 0.08:
                value, time_ms = _repeat(chance, chance.choice(sent))
            else:
                now_ms = nows_ms[partition]
                value, time_ms = _payload(chance, source.topic, now_ms), _record_time(chance, now_ms)
            key = chance.choice((None, b"", b"1", b"\xff\x00"))
            record = Record(source.topic, partition, offset, time_ms, key, value)
            records.append(record)
            if len(sent) < 200:
                sent.append(record)
            # Logs have holes: of transactions, of compaction.
            offset += 1 if chance.random() < 0.95 else chance.randint(2, 50)
        ends[source.topic, partition] = offset
    return records


def good_fields(chance: Random, topic: str, now_ms: int = NOW_MS) -> Fields:
    """Return the fields of an event that its model takes, at a time that may be late or early."""
    time_ms = max(now_ms - _age_ms(chance), 0)
    who, event_id = chance.randint(1, 12), chance.randint(1, 2_000)
    if topic == "notes":
        fields: dict[str, object] = {
            "id": f"n{event_id}",
            "at": time_ms
            if now_ms > NOW_MS or chance.random() < 0.5
            else (_EPOCH + timedelta(milliseconds=time_ms)).isoformat(),
            "who": _text(chance),
        }
        more: Mapping[str, Callable[[], object]] = {
            "tags": lambda: [_text(chance) for _ in range(chance.randint(0, 4))],
            "size": lambda: chance.choice((0, 1, -5, 10**6, 2**62)),
            "score": lambda: chance.choice((0.0, -1.5, 1e308, 5e-324, 3, chance.random())),
            "weight": lambda: chance.choice((0, 1, 0.5)),
            "title": lambda: _text(chance),
            "mood": lambda: chance.choice(("good", "bad")),
        }
        fields |= {name: draw() for name, draw in more.items() if chance.random() < 0.5}
    elif topic == "ticks":
        fields = {"at": time_ms, "who": _text(chance), "size": who, "done": chance.choice((True, False, None))}
    else:
        fields = {
            "event_id": f"e{event_id}", "time_ms": time_ms, "user_id": who, "video_id": who % 5, "tab": who % 2
        }  # fmt: skip
        if topic == "impressions":
            fields |= {"watch_ms": event_id * 7, "duration_ms": chance.choice((0, 5_000, 2**63 - 1))}
        elif topic == "conversions":
            fields |= {"kind": chance.choice(("long_view", "like", "follow", "forward"))}
    return {name.encode(): _json(value) for name, value in fields.items()}


def as_json(fields: Fields) -> bytes:
    """Return the bytes of an event."""
    return b"{" + b",".join(b'"%s":%s' % field for field in fields.items()) + b"}"


def _payload(chance: Random, topic: str, now_ms: int) -> bytes | None:
    fields = good_fields(chance, topic, now_ms)
    draw = chance.random()
    if draw < 0.45:
        return as_json(fields)
    if draw < 0.70:
        return as_json(_other_fields(chance, fields))
    if draw < 0.90:
        return damage(chance, as_json(fields), as_json(good_fields(chance, chance.choice(_SOURCES).topic)))
    if draw < 0.92:
        return None
    if draw < 0.95:
        return chance.randbytes(chance.randint(0, 300))
    return _rare(chance, fields)


def _other_fields(chance: Random, fields: Fields) -> Fields:
    """Return fields of which a few are missing, are something else, or are said twice."""
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        name = chance.choice(list(fields))
        what = chance.random()
        if what < 0.1:
            del fields[name]
            fields[b"more"] = b"1"
        elif what < 0.2:
            # Not equal as bytes, and one name in JSON: a field that is said twice.
            fields[b"\\u%04x" % name[0] + name[1:]] = _odd(chance)
        elif what < 0.25:
            fields[_json(_text(chance))[1:-1]] = _odd(chance)
        else:
            fields[name] = _odd(chance)
    return fields


def damage(chance: Random, value: bytes, other: bytes) -> bytes:
    """Return bytes with a few of them changed, gone, doubled, or taken from other bytes."""
    damaged = bytearray(value)
    for _ in range(chance.choice((1, 1, 2, 5))):
        start = chance.randint(0, len(damaged))
        end = min(start + chance.choice((1, 1, 2, 8, 40)), len(damaged))
        what = chance.randrange(6)
        if what == 0 and start < len(damaged):
            damaged[start] ^= 1 << chance.randrange(8)
        elif what == 1:
            del damaged[start:end]
        elif what == 2:
            damaged[start:start] = damaged[start:end]
        elif what == 3:
            damaged[start:end] = chance.randbytes(end - start)
        elif what == 4:
            cut = chance.randint(0, len(other))
            damaged[start:end] = other[cut : cut + end - start + chance.randint(0, 3)]
        else:
            del damaged[start:]
    return bytes(damaged)


def _rare(chance: Random, fields: Fields) -> bytes:
    """Return a payload that is no object at all, or of a kind that takes long."""
    what = chance.random()
    if what < 0.6:
        return chance.choice((*_OTHERS, *_NUMBERS))
    if what < 0.85:
        deep = chance.choice((10, 190, 200, 201, 5_000))
        opened, closed = chance.choice(((b"[", b"]"), (b'{"a":', b"}"), (b'[{"a":', b"}]")))
        return as_json(fields | {b"deep": opened * deep + chance.choice((b"1", b"")) + closed * deep})
    if what < 0.98:
        name = chance.choice(list(fields))
        return as_json(fields | {name: b'"' + chance.choice((b"x", "é".encode(), b"\\u0000")) * 5_000 + b'"'})
    text = b'"' + b"x" * chance.choice((900_000, (1 << 20) - 200, _HUGE_MAX)) + b'"'
    return as_json(fields | {chance.choice((*fields, b"more")): text})


def _repeat(chance: Random, record: Record) -> tuple[bytes | None, int]:
    """Return an earlier payload and a time for it: its own or another; it may have become a little different."""
    value = record.value
    if value and chance.random() < 0.2:
        value = value + b" "
    return value, record.timestamp if chance.random() < 0.8 else NOW_MS


def _odd(chance: Random) -> bytes:
    kind = chance.random()
    if kind < 0.4:
        return chance.choice(_NUMBERS)
    if kind < 0.7:
        return chance.choice(_OTHERS)
    if kind < 0.8:
        return b"%d" % chance.choice(_TIMES_MS)
    return _json(_text(chance))


def _text(chance: Random) -> str:
    return chance.choice(_TEXTS) if chance.random() < 0.5 else f"w{chance.randint(1, 9)}"


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def _age_ms(chance: Random) -> int:
    """Return how long before now an event happened: at an edge of what is allowed, or anywhere around it."""
    if chance.random() < 0.2:
        edges = [0, -FUTURE_MS, *(to_ms(source.lateness) for source in _SOURCES)]
        return chance.choice(edges) + chance.randint(-1, 1)
    return chance.randint(-FUTURE_MS, chance.choice((0, 250_000, 3_600_000, 4_000_000)))


def _record_time(chance: Random, now_ms: int) -> int:
    """Return a Kafka timestamp, mostly that of the time; -1 stands for none."""
    if chance.random() < (0.9 if now_ms == NOW_MS else 0.1):
        return now_ms + chance.randint(0, 50)
    if now_ms == 5_000:
        return -1
    return chance.choice((-1, 0, 5_000, 2**31, 2**53, 2**53 + FUTURE_MS, 2**62, 2**63 - 1, NOW_MS + 10**9))
