"""What the aggregator does with records that are no packs, or packs of another release."""

import asyncio

import pytest

from agents.dead_letters import DeadLetter
from core.errors import NewerFormatError
from core.topics import DEAD_LETTERS
from core.versions import version
from tests.aggregating import NOW_MS, TOPIC, bench, taps
from tests.fakes import Record, Run, idle, until


async def test_a_strangers_record_is_buried_and_the_partition_goes_on():
    """
    One foreign record in a repartition topic ended every worker that came to it, restart after restart.
    """
    async with bench(held=True) as made:
        garbage = Record(TOPIC, 0, 1, NOW_MS, b"key", b"<xml/>")
        run = Run(TOPIC, 0, [*taps(0).value, garbage, *taps(2).value])
        taking = asyncio.create_task(made.take(run))
        await until(lambda: made.producer.to(DEAD_LETTERS))
        await idle()
        assert not taking.done()

        made.producer.held = False
        made.acknowledge()
        await taking
        await until(lambda: made.finished)

        (sent,) = made.producer.to(DEAD_LETTERS)
        letter = DeadLetter.from_record(sent.headers, sent.value)
        assert (sent.key, letter.payload, letter.key) == (b"freshet.user/0/1", b"<xml/>", b"key")
        assert (letter.reason, letter.offset) == ("unreadable", 1)
        assert letter.detail.startswith("not a packed record (6 bytes)")
        labels = {"source": TOPIC, "outcome": "unreadable"}
        assert made.metrics.registry.get_sample_value("freshet_events_total", labels) == 1
        assert await made.stored() == version(0, 2)


async def test_a_pack_of_a_newer_release_stops_the_partition_with_its_place():
    """
    It holds events: buried they would be missing from every value until somebody noticed.
    """
    async with bench() as made:
        newer = Record(TOPIC, 0, 7, NOW_MS, None, b"\x92\x02\xa4taps")

        with pytest.raises(NewerFormatError, match=r"freshet.user\[0\] offset 7: pack format 2 .* upgrade"):
            await made.take(Run(TOPIC, 0, [newer]))

        assert not made.producer.to(DEAD_LETTERS)
        assert not made.finished
