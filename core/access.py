"""API keys: who may do what. Pure.

A key is 32 random bytes, so its SHA-256 can be kept and shown: nobody finds the key from it, and a slow hash, which
passwords need, would only make every request slow. What is configured are lines without a secret:

    <name>:<scope>[,<scope>]:<last day, or ->:<SHA-256 of the key, hexadecimal>

A name may have two keys, so that a new one is handed out before the old one is taken away.
"""

import hashlib
import hmac
import re
import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import StrEnum

from core.errors import ConfigurationError

KEYS_PER_NAME = 2
KEYS_MAX = 200
"""Each is compared at each request, at half a microsecond."""

_PREFIX = "freshet_"
_SECRET_BYTES = 32
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Scope(StrEnum):
    """What a key allows: to read features and figures, to send events, or everything."""

    READ = "read"
    PUSH = "push"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is configured.

    Attributes:
        name: Who holds it.
        digest: SHA-256 of the key.
        last_day: Day, in UTC, at whose end it expires, or None for never.
    """

    name: str
    scopes: frozenset[Scope]
    digest: bytes
    last_day: date | None

    @property
    def line(self) -> str:
        """The key as it is written into the configuration."""
        scopes = ",".join(scope for scope in Scope if scope in self.scopes)
        return f"{self.name}:{scopes}:{self.last_day or '-'}:{self.digest.hex()}"

    def allows(self, scope: Scope) -> bool:
        """Whether the key has a scope; ``admin`` has all."""
        return scope in self.scopes or Scope.ADMIN in self.scopes

    def is_expired(self, now_ms: int) -> bool:
        """Whether its last day has ended."""
        return self.last_day is not None and datetime.fromtimestamp(now_ms / 1000, tz=UTC).date() > self.last_day


def new_key(name: str, scopes: Sequence[Scope], last_day: date | None) -> tuple[str, ApiKey]:
    """Return a new key, which is kept nowhere, and what is configured of it.

    Raises:
        ConfigurationError: The name cannot be one.
    """
    if not _NAME.fullmatch(name):
        raise ConfigurationError(f"name {name!r}: small letters, digits, - and _ are allowed, 64 at the most")
    key = f"{_PREFIX}{secrets.token_urlsafe(_SECRET_BYTES)}"
    return key, ApiKey(name, frozenset(scopes), _digest(key), last_day)


def parse_keys(text: str) -> tuple[ApiKey, ...]:
    """Return the keys of a configuration: lines as ``ApiKey.line`` writes them, separated by white space.

    Raises:
        ConfigurationError: One cannot be; it is told by its number, never by its text, which may be a key by mistake.
    """
    lines = text.split()
    if len(lines) > KEYS_MAX:
        raise ConfigurationError(f"{len(lines)} keys, the limit is {KEYS_MAX}")
    keys = tuple(_parse(number, line) for number, line in enumerate(lines, start=1))
    for name, number in Counter(key.name for key in keys).items():
        if number > KEYS_PER_NAME:
            raise ConfigurationError(
                f"{name} has {number} keys, {KEYS_PER_NAME} are allowed: one to replace the other; remove the oldest"
            )
    return keys


def find_key(keys: Sequence[ApiKey], presented: str) -> ApiKey | None:
    """Return the configured key that was presented, or None; the time it takes tells nothing about any of them."""
    digest, found = _digest(presented), None
    for key in keys:
        if hmac.compare_digest(key.digest, digest):
            found = key
    return found


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="surrogateescape")).digest()


def _parse(number: int, line: str) -> ApiKey:
    parts = line.split(":")
    if len(parts) != 4:
        raise ConfigurationError(
            f"key {number}: {len(parts)} parts instead of name:scopes:last-day:hash, as `freshet keys new` writes it"
        )
    name, scopes, day, digest = parts
    if not _NAME.fullmatch(name):
        raise ConfigurationError(f"key {number}: the name has other characters than small letters, digits, - and _")
    if not _DIGEST.fullmatch(digest):
        raise ConfigurationError(f"key {number} of {name}: the hash is no SHA-256 of 64 hexadecimal digits")
    try:
        allowed = frozenset(map(Scope, scopes.split(",")))
    except ValueError:
        raise ConfigurationError(f"key {number} of {name}: a scope is read, push or admin") from None
    try:
        last_day = None if day == "-" else date.fromisoformat(day)
    except ValueError:
        raise ConfigurationError(f"key {number} of {name}: the last day is YYYY-MM-DD, or - for never") from None
    return ApiKey(name, allowed, bytes.fromhex(digest), last_day)
