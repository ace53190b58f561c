"""The packed record: many updates of one source run for one partition of an entity's repartition topic.

Columns, not rows: a pack is decoded into a few flat lists instead of an object per update. Every update carries its
source position and event id (PROTOCOL, P1), so a pack that is sent again under a new offset is recognised.
"""

from typing import Any

import msgspec

from core.errors import FormatError, NewerFormatError
from core.unreadable import UNREADABLE

PACK_FORMAT = 1
PACK_UPDATES_MAX = 500


class Pack(msgspec.Struct, array_like=True):
    """Updates of one source partition, in its order, for one partition of one entity.

    Attributes:
        source: Topic of the source.
        topic_id: Identity of that topic's incarnation, empty where the broker tells none.
        partition: Source partition.
        names: Texts of the expressions whose values ``columns`` holds, in the same order.
        offsets: Source offsets, ascending; all lists below run parallel to it.
        record_times: Kafka timestamps of the source records, milliseconds.
        event_times: Event times, milliseconds.
        event_ids: Producers' identities; empty strings where the source has none.
        checks: 16 bits of a hash over the record's value, to tell a repetition from a conflict.
        keys: Encoded entity keys.
        columns: One list of values per name.
    """

    format: int
    source: str
    topic_id: str
    partition: int
    names: list[str]
    offsets: list[int]
    record_times: list[int]
    event_times: list[int]
    event_ids: list[str]
    checks: list[int]
    keys: list[str]
    columns: list[list[Any]]

    @property
    def origin(self) -> str:
        """The name under which stamps know the source: ``<topic>@<topic id>``."""
        return f"{self.source}@{self.topic_id}"


pack_bytes = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Pack).decode


class _Begin(msgspec.Struct, array_like=True):
    """What every format begins with, so that one that is not known yet can be told from garbage."""

    format: int
    source: str


_decode_begin = msgspec.msgpack.Decoder(_Begin).decode


def unpack(value: bytes | None) -> Pack:
    """Return a pack from its bytes.

    Raises:
        NewerFormatError: They are a pack of a later format.
        FormatError: They are no pack, or its lists differ in length.
    """
    if value is None:
        raise FormatError("not a packed record, but a tombstone")
    try:
        pack = _decode(value)
    except UNREADABLE as error:
        _refuse_newer(value)
        raise FormatError(f"not a packed record ({len(value)} bytes): {error}") from error
    if pack.format != PACK_FORMAT:
        _refuse_newer(value)
        raise FormatError(f"pack format {pack.format} is none, this is format {PACK_FORMAT}")
    lists: tuple[list[Any], ...] = (
        pack.record_times,
        pack.event_times,
        pack.event_ids,
        pack.checks,
        pack.keys,
        *pack.columns,
    )
    if len(pack.names) != len(pack.columns) or any(len(values) != len(pack.offsets) for values in lists):
        raise FormatError("the lists of a packed record differ in length")
    return pack


def _refuse_newer(value: bytes) -> None:
    try:
        begin = _decode_begin(value)
    except UNREADABLE:
        return
    if begin.format > PACK_FORMAT:
        raise NewerFormatError(
            f"pack format {begin.format} of source {begin.source[:200]!r} is newer than {PACK_FORMAT}, which this "
            f"release reads: upgrade this worker; dispatchers are upgraded last"
        )
