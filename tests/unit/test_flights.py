"""Flights: one load per key at a time, and whoever waits for one cannot spoil it for the others."""

import asyncio
import gc

import pytest

from core.errors import StoreError
from serving.tiers.flights import LOADS_MAX, Flights
from tests.fakes import idle


class Loader:
    """Loads what it is asked for once it may."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.may = asyncio.Event()
        self.error: Exception | None = None

    async def load(self, keys):
        self.asked.append(list(keys))
        await self.may.wait()
        if self.error is not None:
            raise self.error
        return {key: key.upper() for key in keys if key != "nobody"}


@pytest.fixture
def loader():
    return Loader()


@pytest.fixture
def flights(loader):
    return Flights(loader.load, key_of=lambda key: key)


def begin(flights, *keys: str) -> "asyncio.Task[dict[str, str]]":
    return asyncio.create_task(flights.get(keys))


async def test_ten_thousand_readers_are_one_load(flights, loader):
    """
    The hottest row expires, and the store that it comes from would be asked for it ten thousand times.
    """
    readers = [begin(flights, "hot") for _ in range(10_000)]
    await idle()
    loader.may.set()

    assert await asyncio.gather(*readers) == [{"hot": "HOT"}] * 10_000
    assert loader.asked == [["hot"]]


async def test_only_what_nobody_loads_is_loaded(flights, loader):
    """
    Two feeds share half of their videos.
    """
    first, second = begin(flights, "a", "b", "nobody"), begin(flights, "b", "c", "nobody")
    await idle()
    loader.may.set()

    assert await first == {"a": "A", "b": "B"}
    assert await second == {"b": "B", "c": "C"}
    assert loader.asked == [["a", "b", "nobody"], ["c"]]


async def test_who_goes_away_takes_the_load_from_nobody(flights, loader):
    """
    The client whose request began the load has hung up.
    """
    first, second = begin(flights, "a"), begin(flights, "a")
    await idle()
    first.cancel()
    await idle()
    loader.may.set()

    assert await second == {"a": "A"}
    assert first.cancelled()


async def test_a_load_that_fails_fails_for_all_who_wait_and_for_none_after(flights, loader):
    """
    An error that is remembered would be an outage of its own.
    """
    loader.error = OSError("away")
    readers = [begin(flights, "a"), begin(flights, "a", "b")]
    await idle()
    loader.may.set()

    assert [str(error) for error in await asyncio.gather(*readers, return_exceptions=True)] == ["away", "away"]

    loader.error = None
    assert await flights.get(["a"]) == {"a": "A"}


async def test_what_landed_is_loaded_anew(flights, loader):
    """
    Flights are no cache: they know nothing of age.
    """
    loader.may.set()
    await flights.get(["a"])
    await flights.get(["a"])

    assert loader.asked == [["a"], ["a"]]


async def test_a_load_that_fails_unheard_is_no_noise(flights, loader):
    """
    Everybody has gone; an error that nobody asks for would be logged as a defect of ours.
    """
    told = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    loader.error = OSError("away")
    reader = begin(flights, "a")
    await idle()
    reader.cancel()
    loader.may.set()
    await idle()
    del reader
    gc.collect()

    assert told == []


async def test_loads_of_those_who_have_gone_are_bounded(flights, loader):
    """
    The record hangs, and clients that wait for 50 ms come and go: each left a load behind.
    """
    readers = [begin(flights, f"key {number}") for number in range(LOADS_MAX)]
    await idle()
    for reader in readers:
        reader.cancel()
    await idle()

    with pytest.raises(StoreError, match="256 loads wait"):
        await flights.get(["one more"])

    loader.may.set()
    await idle()
    assert await flights.get(["one more"]) == {"one more": "ONE MORE"}


async def test_a_bug_in_a_load_that_nobody_waits_for_is_told(flights, loader, caplog):
    """
    Copies were read again early by nobody's leave; an error there showed as nothing but more loads.
    """
    loader.error = TypeError("no such row")
    loader.may.set()

    flights.begin(["a"])
    await idle()

    assert "no such row" in caplog.text


async def test_that_a_store_fails_is_no_bug(flights, loader, caplog):
    """
    It is counted where it is asked; here it would be told once for each key.
    """
    loader.error = StoreError("away")
    loader.may.set()

    flights.begin(["a"])
    await idle()

    assert not caplog.records
