"""The check of Redis at a worker's start: settings that can never work are told from a Redis that is merely away.

Redis is a cache. One that is down must not stop a worker: reads go to the record, and rows are owed. But a wrong
password, a certificate of another host or a user without the right to write do not mend themselves.
"""

import ssl

from redis.exceptions import (
    AuthenticationError,
    ClusterCrossSlotError,
    MovedError,
    NoPermissionError,
    ReadOnlyError,
    ResponseError,
)

from core.errors import ConfigurationError, StoreError
from core.leases import new_token
from core.ports import Cache, RowKey, StoredRow
from core.versions import version_bytes

# Two slots of a cluster: one server that is a node of a cluster refuses to read them together.
_PROBES = [RowKey("#probe", "#probe"), RowKey("#probe2", "#probe")]
# In the past: it is gone when it is written, and the right to write it was asked for all the same.
_PROBE_ROW = StoredRow(_PROBES[0], 0, version_bytes(0), expires_at_ms=1)
_HOW_TO = "see docs/how-to/redis.md"


async def check_redis(store: Cache, *, writes: bool, deadline_ms: int) -> None:
    """Read, and write if asked to, in a place of no entity.

    Raises:
        ConfigurationError: The settings cannot work; the message says what to do.
        StoreError: Redis cannot be reached now.
    """
    try:
        await store.read(_PROBES, deadline_ms=deadline_ms)
        if writes:
            await store.write([_PROBE_ROW], deadline_ms=deadline_ms)
            await store.lease(_PROBES[:1], token=new_token(), lease_ms=1, deadline_ms=deadline_ms)
    except StoreError as error:
        remedy = _remedy(error)
        if remedy is None:
            raise
        # Not "from": the sentence is all that helps, and it is printed without a trace.
        raise ConfigurationError(f"FRESHET_REDIS: {str(error).rstrip('.')}; {remedy}") from None


def _remedy(error: BaseException) -> str | None:
    """Return what to do about a mistake in the settings, or None if it is none."""
    cause: BaseException | None = error
    while cause is not None:
        if (remedy := _remedy_of(cause)) is not None:
            return remedy
        cause = cause.__cause__ or cause.__context__
    return None


def _remedy_of(error: BaseException) -> str | None:
    match error:
        case AuthenticationError():
            return f"give the right user and password: redis://user:password@host:port ({_HOW_TO})"
        case NoPermissionError():
            return f"give that user the rules that this role needs ({_HOW_TO})"
        case ssl.SSLCertVerificationError():
            return (
                "set FRESHET_REDIS_CA to the authority's certificates if it is not trusted here, and name the host as "
                "its certificate does"
            )
        case ssl.SSLError():
            return "it does not speak TLS there: use redis:// instead of rediss://, or its TLS port"
        case ClusterCrossSlotError() | MovedError():
            return "it is a node of a cluster: use redis+cluster://host:port,host:port"
        case ResponseError() if "cluster support disabled" in str(error):
            return "it is no cluster: use redis://host:port/0"
        case ResponseError() if isinstance(error, ReadOnlyError) or "READONLY" in str(error):
            # Before Redis 7 it is told inside of the script's failure.
            return "it is a replica: name the primary (ElastiCache's primary endpoint, not the reader endpoint)"
    return None
