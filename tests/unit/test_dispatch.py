import asyncio
import gc
import json
import re
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from agents.dead_letters import KEY_BYTES_MAX, PAYLOAD_BYTES_MAX, DeadLetter
from agents.decode import SourceDecoder
from agents.dispatch import Dispatcher
from core.definitions import Count, Entity, FeatureGroup, Source, aggregate, col, explode, latest
from core.errors import BrokerError, EventError
from core.keys import kafka_partition
from core.metrics import Metrics
from core.packs import PACK_UPDATES_MAX, unpack
from core.topics import DEAD_LETTERS
from core.windows import hours
from tests.fakes import REQUEST_BYTES_MAX, FakeProducer, Record, Run, idle, until

NOW_MS = 1_700_000_000_000
PARTITIONS = 4


class Shown(BaseModel):
    id: str
    at: int
    user: int
    videos: list[str] = []
    title: str | None = None


USER = Entity("user", keys=("user",), partitions=PARTITIONS)
VIDEO = Entity("video", keys=("video",), partitions=PARTITIONS)
SHOWN = Source("shown", Shown, event_time="at", event_id="id", keys={"video": explode(col("videos"))})
GROUPS = (
    FeatureGroup("users", entity=USER, owner="o", features=(latest("title", SHOWN, col("title")),)),
    FeatureGroup(
        "videos",
        entity=VIDEO,
        owner="o",
        features=(aggregate("shown", SHOWN, Count(), over=(hours(1),)), latest("title", SHOWN, col("title"))),
    ),
)


def record(offset, *, partition=0, value=None, key=None, **fields) -> Record:
    event = {"id": f"e{offset}", "at": NOW_MS + offset, "user": offset} | fields
    value = json.dumps(event).encode() if value is None else value
    return Record("shown", partition, offset, NOW_MS + 2 * offset, key, value)


def run_of(*records) -> Run:
    return Run("shown", records[0].partition, list(records))


class Bench:
    """A dispatcher with a fake producer."""

    def __init__(self, producer) -> None:
        self.producer = producer
        self.finished: list[Run] = []
        self.metrics = Metrics()
        self.dispatcher = Dispatcher(
            {"shown": SourceDecoder(SHOWN, GROUPS)},
            producer=lambda: producer,
            finish=self.finished.append,
            metrics=self.metrics,
            topic_ids={"shown": "t1"},
        )

    def packs(self, entity="user"):
        return [(sent.partition, unpack(sent.value)) for sent in self.producer.to(f"freshet.{entity}")]

    def letters(self):
        return [(sent.key, DeadLetter.from_record(sent.headers, sent.value)) for sent in self.producer.to(DEAD_LETTERS)]


@asynccontextmanager
async def bench(*, held=False):
    """A dispatcher whose acknowledgements are awaited beside the test, as in a worker."""
    made = Bench(FakeProducer(held=held))
    task = asyncio.create_task(made.dispatcher.acknowledge())
    yield made
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_an_update_says_where_its_event_stood():
    """
    Without the source position a restarted dispatcher's repetitions count twice (PROTOCOL, P1).
    """
    async with bench() as made:
        await made.dispatcher.take(run_of(record(17, partition=3, user=5, title="a")))

        ((partition, pack),) = made.packs()
        assert partition == kafka_partition("i5", PARTITIONS)
        assert (pack.source, pack.topic_id, pack.partition, pack.origin) == ("shown", "t1", 3, "shown@t1")
        assert (pack.offsets, pack.record_times, pack.event_times) == ([17], [NOW_MS + 34], [NOW_MS + 17])
        assert (pack.event_ids, pack.keys, pack.names, pack.columns) == (["e17"], ["i5"], ["title"], [["a"]])


@given(st.lists(st.tuples(st.integers(0, 9), st.lists(st.sampled_from("abcdef"), max_size=4)), min_size=1, max_size=40))
@settings(max_examples=40, derandomize=True, deadline=None)
def test_every_update_goes_once_to_its_partition_in_order(events):
    """
    An update in another partition would make a second row of its key; one out of order would be taken for a replay.
    """

    async def send():
        async with bench() as made:
            records = [record(n, user=user, videos=videos) for n, (user, videos) in enumerate(events)]
            await made.dispatcher.take(run_of(*records))
            return made.packs("user"), made.packs("video")

    for packs, touched in zip(
        asyncio.run(send()),
        (lambda user, videos: [f"i{user}"], lambda user, videos: [f"s{video}" for video in videos]),
        strict=True,
    ):
        expected = {(n, key) for n, event in enumerate(events) for key in touched(*event)}
        found = [(offset, key) for _, pack in packs for offset, key in zip(pack.offsets, pack.keys, strict=True)]
        assert sorted(found) == sorted(expected)
        for partition in range(PARTITIONS):
            offsets = [offset for place, pack in packs if place == partition for offset in pack.offsets]
            assert offsets == sorted(offsets)
        assert all(kafka_partition(key, PARTITIONS) == place for place, pack in packs for key in pack.keys)


async def test_packs_are_split_at_their_number_of_updates():
    """
    A pack is applied in one go, between two turns of the event loop.
    """
    async with bench() as made:
        await made.dispatcher.take(run_of(*(record(n, user=1) for n in range(2 * PACK_UPDATES_MAX + 1))))

        packs = [pack for _, pack in made.packs()]
        assert [len(pack.offsets) for pack in packs] == [PACK_UPDATES_MAX, PACK_UPDATES_MAX, 1]
        assert [offset for pack in packs for offset in pack.offsets] == list(range(2 * PACK_UPDATES_MAX + 1))


@pytest.mark.parametrize("character", ["x", "é", "😀"])
async def test_packs_are_split_at_their_size(character):
    """
    Five hundred long titles made a pack that the producer refused; the worker died of it after every restart.
    """
    title = character * (1024 // len(character.encode()))
    async with bench() as made:
        records = [record(n, user=1, title=title, videos=[f"{m}" for m in range(20)]) for n in range(600)]
        await made.dispatcher.take(run_of(*records))

        sizes = [len(sent.value) for sent in made.producer.sent]
        assert max(sizes) <= 300_000 < REQUEST_BYTES_MAX
        assert [offset for _, pack in made.packs() for offset in pack.offsets] == list(range(600))
        assert sum(len(pack.offsets) for _, pack in made.packs("video")) == 600 * 20


async def test_a_list_of_many_items_needs_few_packs():
    """
    Its updates are small, however large the record is that they share.
    """
    async with bench() as made:
        await made.dispatcher.take(run_of(record(0, videos=[f"{n:06}" for n in range(20_000)])))

        packs = made.packs("video")
        assert sum(len(pack.keys) for _, pack in packs) == 20_000
        assert len(packs) <= 20_000 // PACK_UPDATES_MAX + PARTITIONS


async def test_bad_events_are_buried_and_the_others_go_on():
    """
    Every offset is in exactly one place, and one bad producer stops nobody else's events.
    """
    records = [record(0), record(1, value=b"\xff{"), record(2, user=10**29), record(3, at=NOW_MS * 2), record(4)]
    late = record(5, at=NOW_MS - 3_600_001)
    async with bench() as made:
        await made.dispatcher.take(run_of(*records, late))
        await until(lambda: made.finished)

        assert sorted(offset for _, pack in made.packs() for offset in pack.offsets) == [0, 4]
        letters = [letter for _, letter in made.letters()]
        assert [(letter.offset, letter.reason) for letter in letters] == [
            (1, "malformed"),
            (2, "overflow"),
            (3, "future"),
            (5, "late"),
        ]
        text = made.metrics.text().decode()
        assert 'freshet_events_total{outcome="dispatched",source="shown"} 2.0' in text
        assert len(re.findall(r'outcome="(?:malformed|overflow|future|late)",source="shown"} 1.0', text)) == 4


@pytest.mark.parametrize(("key", "value"), [(None, b"\xff{"), (b"\x00k", b""), (b"", None)])
async def test_a_dead_letter_holds_all_that_is_needed_to_mend_it(key, value):
    """
    Payload, key, time and place as they were: a repetition must be judged as the original was.
    """
    bad = Record("shown", 3, 17, NOW_MS, key, value)
    async with bench() as made:
        await made.dispatcher.take(run_of(bad))

        ((place, letter),) = made.letters()
        assert place == b"shown/3/17"
        assert (letter.topic, letter.partition, letter.offset, letter.record_time_ms) == ("shown", 3, 17, NOW_MS)
        assert (letter.key, letter.payload, letter.payload_bytes) == (key, value, len(value or b""))
        assert letter.reason == "malformed"
        assert 0 < len(letter.detail) <= 500


def test_a_dead_letters_headers_take_any_detail():
    """
    What is wrong is sometimes the text itself.
    """
    letter = DeadLetter.of(record(1), EventError("malformed", "\ud800 is no é"))

    assert DeadLetter.from_record(letter.headers(), letter.payload).detail == "\\ud800 is no é"


def test_what_is_no_dead_letter_is_refused():
    """
    Somebody may have written into the topic by hand.
    """
    with pytest.raises(KeyError):
        DeadLetter.from_record([("topic", b"shown")], b"")


@pytest.mark.parametrize("size", [PAYLOAD_BYTES_MAX, PAYLOAD_BYTES_MAX + 1, 3 * REQUEST_BYTES_MAX])
async def test_a_record_that_is_too_large_to_be_buried_is_cut(size):
    """
    The producer refused the letter of a record of 1 MB, so the worker died, and again after each restart.
    """
    async with bench() as made:
        await made.dispatcher.take(run_of(record(1, value=b"x" * size, key=b"k" * size)))

        ((_, letter),) = made.letters()
        assert letter.payload_bytes == size
        assert letter.payload == b"x" * min(size, PAYLOAD_BYTES_MAX)
        assert letter.key == b"k" * KEY_BYTES_MAX


async def test_what_finds_no_room_is_sent_when_there_is_some():
    """
    A worker ended when the broker was away for as long as a request may take, and its successor found it away too.
    """
    async with bench() as made:
        for run in (run_of(record(0, user=1)), run_of(record(1, value=b"")), run_of(record(2, user=1))):
            made.producer.full = 2
            await made.dispatcher.take(run)
        await until(lambda: len(made.finished) == 3)

        assert [offset for _, pack in made.packs() for offset in pack.offsets] == [0, 2]
        assert [letter.offset for _, letter in made.letters()] == [1]


async def test_a_run_is_finished_when_every_send_is_acknowledged():
    """
    A run that is finished earlier is committed, and what the broker then refuses is lost (PROTOCOL, P6).
    """
    async with bench(held=True) as made:
        first, second = run_of(record(0), record(1), record(2, value=b"")), run_of(record(3))
        await made.dispatcher.take(first)
        await made.dispatcher.take(second)
        *sends, last = made.producer.sent

        last.acknowledge()
        for sent in sends:
            await idle()
            assert made.finished == []
            sent.acknowledge()
        await until(lambda: len(made.finished) == 2)

        assert made.finished == [first, second]


async def test_a_run_that_touches_nothing_is_finished():
    """
    An event with an empty list sends nothing to the videos; a run of nothing else must not hold up the commits.
    """
    async with bench() as made:
        only_videos = Dispatcher(
            {"shown": SourceDecoder(SHOWN, GROUPS[1:])},
            producer=lambda: made.producer,
            finish=made.finished.append,
            metrics=Metrics(),
            topic_ids={},
        )
        run = run_of(record(0))
        await only_videos.take(run)
        task = asyncio.create_task(only_videos.acknowledge())
        await until(lambda: made.finished == [run])
        task.cancel()

        assert made.producer.sent == []


async def test_a_refused_send_finishes_nothing_and_is_told():
    """
    Going on would let later events of a key overtake, and the stamps would then call the lost one a replay.
    """
    made = Bench(FakeProducer(held=True))
    await made.dispatcher.take(run_of(record(0, user=1), record(1, user=2)))
    await made.dispatcher.take(run_of(record(2)))
    for sent in made.producer.sent[1:]:
        sent.acknowledge()
    made.producer.sent[0].refuse("not enough replicas")

    with pytest.raises(BrokerError, match=r"a send of shown\[0\] was refused: KafkaError: not enough replicas"):
        await asyncio.wait_for(made.dispatcher.acknowledge(), 5)

    assert made.finished == []


async def test_a_mistake_of_ours_is_not_told_as_a_refusal():
    """
    Whoever reads that the broker has refused something looks at the broker.
    """
    made = Bench(FakeProducer(held=True))
    await made.dispatcher.take(run_of(record(0)))
    made.producer.sent[0].fail(ZeroDivisionError("ours"))

    with pytest.raises(ZeroDivisionError, match="ours"):
        await made.dispatcher.acknowledge()

    assert made.finished == []


async def test_a_run_with_several_refused_sends_tells_the_first():
    """
    A broker that refuses one refuses more; asyncio's complaints about the others would bury the reason.
    """
    complaints = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))

    async def refuse_all():
        made = Bench(FakeProducer(held=True))
        await made.dispatcher.take(run_of(*(record(0, user=user) for user in range(20))))
        first, *others = made.producer.sent
        first.refuse("not enough replicas")
        with pytest.raises(BrokerError, match="not enough replicas"):
            await made.dispatcher.acknowledge()
        assert others
        for sent in others:
            sent.refuse("the broker has gone")
        await idle()

    await refuse_all()
    gc.collect()

    assert complaints == []


async def test_settle_waits_for_all_acknowledgements():
    """
    Partitions are given away after it: what is not acknowledged by then would be sent by two workers.
    """
    async with bench(held=True) as made:
        await made.dispatcher.settle()
        run = run_of(record(0))
        await made.dispatcher.take(run)
        settling = asyncio.create_task(made.dispatcher.settle())
        await idle()
        assert not settling.done()

        made.producer.sent[0].acknowledge()
        await settling

        assert made.finished == [run]
