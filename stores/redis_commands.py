"""Redis commands for rows: what is sent for a read and for a write, the same to one server and to a cluster.

A row's value is the packed row itself; its first 8 bytes are its version, big-endian. A write compares and sets on
the server, many rows a script, so that a late write never undoes a newer one.
"""

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from hiredis import pack_command

from core.errors import PartialWriteError, StoreError
from core.ports import Filling, RowKey, StoredRow
from core.versions import VERSION_BYTES

_Written = TypeVar("_Written", StoredRow, Filling)

# One script blocks the whole server: 128 rows of 500 bytes for about 0.3 ms, and large rows are fewer a script.
SCRIPT_ROWS_MAX = 128
SCRIPT_BYTES_MAX = 1 << 20
MGET_KEYS_MAX = 256

# Versions are compared as two halves, because Lua's numbers hold 53 bits, and not as strings, because Lua compares
# those by the server's locale. A value too short to have a version is not ours and is replaced. SET ends an older
# expiry by itself.
_COMPARE_AND_SET = b"""
local taken = 0
for i, key in ipairs(KEYS) do
  local value, expires_at_ms = ARGV[2 * i - 1], ARGV[2 * i]
  local held = redis.call('GETRANGE', key, 0, 7)
  local newer = #held < 8
  if not newer then
    local held_high, held_low = struct.unpack('>I4I4', held)
    local high, low = struct.unpack('>I4I4', value)
    newer = high > held_high or (high == held_high and low > held_low)
  end
  if newer then
    taken = taken + 1
    redis.call('SET', key, value)
    if expires_at_ms ~= '' then
      redis.call('PEXPIREAT', key, expires_at_ms)
    end
  end
end
return taken
"""


# A row is compared by as many bytes as it takes to see that it is no lease.
_LEASE = b"""
local found = {}
for i, key in ipairs(KEYS) do
  found[i] = redis.call('GET', key)
  if not found[i] then
    redis.call('SET', key, ARGV[1], 'PX', ARGV[2])
  end
end
return found
"""

_FILL = b"""
local taken = 0
for i, key in ipairs(KEYS) do
  if redis.call('GETRANGE', key, 0, 7) == ARGV[1] then
    taken = taken + 1
    redis.call('SET', key, ARGV[2 * i])
    if ARGV[2 * i + 1] ~= '' then
      redis.call('PEXPIREAT', key, ARGV[2 * i + 1])
    end
  end
end
return taken
"""

_RENEW = b"""
local taken = 0
for i, key in ipairs(KEYS) do
  if redis.call('GETRANGE', key, 0, 7) == ARGV[2 * i - 1] then
    taken = taken + 1
    redis.call('PEXPIREAT', key, ARGV[2 * i])
  end
end
return taken
"""


def redis_key(key: RowKey) -> str:
    """Return the name of a row in Redis: the tag in braces keeps an entity's rows in one slot of a cluster.

    >>> redis_key(RowKey("user#i1", "taste@v1"))
    '{user#i1}taste@v1'
    """
    return f"{{{key.pk}}}{key.sk}"


def pack(command: Sequence[bytes | str | int]) -> bytes:
    """Return the bytes of a command."""
    # Not redis-py's packing: it is written in Python and would cost more than everything else here together.
    packed: bytes = pack_command(tuple(command))  # type: ignore[arg-type]  # its stub asks for a tuple of one
    return packed


def pack_read(keys: Sequence[RowKey]) -> bytes:
    """Return one MGET."""
    return pack([b"MGET", *map(redis_key, keys)])


def pack_write(rows: Sequence[StoredRow]) -> bytes:
    """Return one EVAL: its text is under 1 % of a full call, and the server never has to know the script before."""
    command: list[bytes | str | int] = [b"EVAL", _COMPARE_AND_SET, len(rows)]
    command += [redis_key(row.key) for row in rows]
    for row in rows:
        command += (row.value, b"" if row.expires_at_ms is None else row.expires_at_ms)
    return pack(command)


def pack_lease(keys: Sequence[RowKey], token: bytes, lease_ms: int) -> bytes:
    """Return one EVAL that leaves leases; its reply is as that of MGET."""
    return pack([b"EVAL", _LEASE, len(keys), *map(redis_key, keys), token, lease_ms])


def pack_fill(fillings: Sequence[Filling], token: bytes) -> bytes:
    """Return one EVAL that puts what was found in the place of leases; its reply is their number."""
    command: list[bytes | str | int] = [b"EVAL", _FILL, len(fillings), *(redis_key(one.key) for one in fillings), token]
    for one in fillings:
        command += (one.value, b"" if one.expires_at_ms is None else one.expires_at_ms)
    return pack(command)


def pack_renew(fillings: Sequence[Filling]) -> bytes:
    """Return one EVAL that lets rows of the same version live longer; its reply is their number."""
    command: list[bytes | str | int] = [b"EVAL", _RENEW, len(fillings), *(redis_key(one.key) for one in fillings)]
    for one in fillings:
        command += (one.value[:VERSION_BYTES], one.expires_at_ms or 0)
    return pack(command)


def read_chunks(keys: Sequence[RowKey]) -> Iterator[Sequence[RowKey]]:
    """Yield the keys of each MGET."""
    for start in range(0, len(keys), MGET_KEYS_MAX):
        yield keys[start : start + MGET_KEYS_MAX]


def write_chunks(rows: Sequence[_Written]) -> Iterator[Sequence[_Written]]:
    """Yield the rows of each script, bounded in number and in bytes."""
    start, size = 0, 0
    for index, row in enumerate(rows):
        if index > start and (index - start == SCRIPT_ROWS_MAX or size + len(row.value) > SCRIPT_BYTES_MAX):
            yield rows[start:index]
            start, size = index, 0
        size += len(row.value)
    if rows:
        yield rows[start:]


def raise_partial(error: StoreError, chunks: Sequence[Sequence[StoredRow]], replies: Sequence[Any]) -> None:
    """Raise what a write came to if some of its scripts ran; return if nobody knows of one that did.

    Args:
        error: What ended the write.
        chunks: The rows of each script.
        replies: Per script the number that it returned, or anything else where it was refused or gave no answer.

    Raises:
        PartialWriteError: With the keys of the other scripts.
    """
    # A script that is refused in its middle keeps what it wrote, and nobody knows where it stopped.
    failed = [
        row.key for chunk, reply in zip(chunks, replies, strict=True) if not isinstance(reply, int) for row in chunk
    ]
    rows = sum(map(len, chunks))
    if len(failed) < rows:
        raise PartialWriteError(f"{error} ({len(failed)} of {rows} rows)", frozenset(failed)) from error
