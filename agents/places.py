"""Places: from the values of a key to where its events go, its partition and the key, encoded. Pure."""

from collections.abc import Sequence
from itertools import islice
from typing import Any, TypeAlias

from core.keys import encode_key, kafka_partition, known_partition

PLACES_KEPT = 1 << 17
_FORGOTTEN_AT_ONCE = 1 << 10

Place: TypeAlias = tuple[int, str]
"""A key that an event touches: its partition in the entity's repartition topic, and the key, encoded."""


class Places(dict[Any, tuple[Place]]):
    """The place of each key of an entity by its values, a tuple of them if there are several.

    The same keys come again and again, so each is encoded once; of more than are kept, the oldest are forgotten. A
    dictionary, because ``lru_cache`` moves what it finds to its end: in memory that no processor's cache holds, that
    takes longer than all else.
    """

    def __init__(self, partitions: int, *, kept: int = PLACES_KEPT) -> None:
        super().__init__()
        self._partitions = partitions
        self._kept = kept

    def __missing__(self, values: Any) -> tuple[Place]:
        if len(self) >= self._kept:
            for oldest in list(islice(self, _FORGOTTEN_AT_ONCE)):
                del self[oldest]
        place = self[values] = place_of(self._partitions, *(values if type(values) is tuple else (values,)))
        return place


def place_of(partitions: int, *parts: Any) -> tuple[Place]:
    """Return the place of a key.

    Raises:
        ValueError: It is none; the message says why.
    """
    key = _encode(parts)
    return ((kafka_partition(key, partitions), key),)


def every_place(partitions: int, exploded: Sequence[bool], *values: Any) -> list[Place]:
    """Return the places of the keys that lists are exploded into, each once.

    Raises:
        ValueError: One of them is no key; the message says why.
    """
    found: list[Sequence[Any]] = [()]
    for value, is_list in zip(values, exploded, strict=True):
        items = (value or ()) if is_list else (value,)
        found = [(*key, item) for key in found for item in items]
    return [(known_partition(key, partitions), key) for key in dict.fromkeys(map(_encode, found))]


def _encode(parts: Sequence[Any]) -> str:
    try:
        return encode_key(parts)
    except ValueError:
        # What is neither a number nor a text may be an enum's member, or null.
        return encode_key([_part(part) for part in parts])


def _part(value: Any) -> Any:
    if value is None:
        raise ValueError("it is null")
    return getattr(value, "value", value)
