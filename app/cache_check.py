"""The cache at a worker's start: wrong settings stop it, a cache that is away is warned about."""

import logging

from core.errors import StoreError
from core.ports import Cache
from stores.redis_check import check_redis

log = logging.getLogger(__name__)

_DEADLINE_MS = 2_000


async def check_cache(cache: Cache | None, *, writes: bool) -> None:
    """Ask the cache once.

    Args:
        cache: The cache, or None where there is none.
        writes: Whether this worker's role writes rows.

    Raises:
        ConfigurationError: The settings can never work: password, rights, certificate, cluster or not.
    """
    if cache is None:
        return
    try:
        await check_redis(cache, writes=writes, deadline_ms=_DEADLINE_MS)
    except StoreError as error:
        log.warning("cache does not answer, going on without it until it does: %s", error)
