"""Calls to DynamoDB: one client, one layer of attempts, and errors that say what to do.

botocore would by itself try up to ten times and wait 60 s for each answer, unseen behind our deadline. Here it tries
once, and what a call may spend on further attempts is written down: its deadline, and a number of attempts in a row
that brought nothing. Amazon's client is known in this module alone; its errors end here.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from json import JSONDecodeError
from typing import Any, TypeAlias, TypeVar

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, ReadTimeoutError, SSLError
from botocore.exceptions import ConnectionError as NoConnectionError
from botocore.parsers import ResponseParserError

from core.errors import StoreError, StoreTimeoutError
from stores.dynamodb_place import TablePlace

CONNECTIONS_MAX = 16
CONNECT_TIMEOUT_MS = 1_000
# Longest silence of the server, whatever the deadline of the call: a connection that died leaves time for another.
SILENCE_MAX_MS = 2_000
# Attempts in a row that brought nothing. With the pauses below they last 1.6 s at the most, then somebody is told.
ATTEMPTS_MAX = 8
PAUSE_FIRST_MS, PAUSE_LAST_MS = 25, 800

_DETAIL_MAX = 300

# Of whole calls, and of single statements in a batch: there the same reasons have other names.
_AGAIN = frozenset(
    {
        "ThrottlingException", "ProvisionedThroughputExceededException", "RequestLimitExceeded", "InternalServerError",
        "InternalFailure", "ServiceUnavailable", "LimitExceededException", "ContinuousBackupsUnavailableException",
        "ProvisionedThroughputExceeded", "ThrottlingError", "TransactionConflict",
    }
)  # fmt: skip

_RENEW = "renew them (environment, profile or role) and start again"
_REMEDIES = {
    "ResourceNotFoundException": "there is no such table there: run `freshet tables create`, or correct table, region "
    "and endpoint in FRESHET_RECORD",
    "ResourceNotFound": "there is no such table there: run `freshet tables create`",
    "AccessDeniedException": "the credentials may not do this: docs/how-to/aws.md has the policy",
    "AccessDenied": "the credentials may not do this: docs/how-to/aws.md has the policy",
    "ExpiredTokenException": f"the credentials have expired: {_RENEW}",
    "ExpiredToken": f"the credentials have expired: {_RENEW}",
    "UnrecognizedClientException": f"the credentials are not known there (another account or partition?): {_RENEW}",
    "MissingAuthenticationTokenException": f"the credentials are not known there: {_RENEW}",
    "IncompleteSignatureException": f"the credentials cannot be read: {_RENEW}",
    "InvalidSignatureException": "the signature is not accepted: the secret key is another's, the endpoint belongs to "
    "another region than FRESHET_RECORD names, or this machine's clock is wrong",
}
# Their texts may quote the signed headers, and a session token is one of those.
_SECRETIVE = frozenset(_REMEDIES) - {"ResourceNotFoundException", "AccessDeniedException", "AccessDenied"}

Work = TypeVar("Work")
Attempt: TypeAlias = Callable[[Sequence[Work]], Awaitable[tuple[Sequence[Work], str]]]


class TryAgainError(StoreError):
    """An attempt that failed for a reason that passes: throttling, a server's own error, a broken connection."""


class RefusedError(StoreError):
    """A call that would be refused again.

    Attributes:
        code: DynamoDB's name for the reason, or the name of the client's error.
    """

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class Spending:
    """What one call may spend on attempts. One for all parts of the call: they share its deadline.

    Attributes:
        what: Place and purpose, for messages.
        last: Why the latest attempt that brought nothing did not, or nothing.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self.last = ""

    async def exhaust(self, work: Sequence[Work], attempt: Attempt[Work]) -> None:
        """Attempt until no work is left, with pauses after attempts that failed or were answered in part.

        Args:
            work: What shall be done.
            attempt: Does what it can of it and returns what is left and why, or raises ``TryAgainError`` if nothing
                was done. Work that is left for no reason only goes on to its next step, and at once.

        Raises:
            StoreError: Too many attempts in a row brought nothing, or one was refused.
        """
        failures, left = 0, work
        while left:
            try:
                rest, reason = await attempt(left)
            except TryAgainError as error:
                rest, reason = left, str(error)
            if reason:
                self.last = reason
                failures = failures + 1 if len(rest) == len(left) else 0
                if failures == ATTEMPTS_MAX:
                    raise StoreError(f"{self.what}: gave up after {failures} attempts{self.reason}")
                await asyncio.sleep(_pause_ms(failures) / 1000)
            left = rest

    @property
    def reason(self) -> str:
        """The latest failure as the end of a message."""
        return f"; the last one: {self.last}" if self.last else ""


class DynamoCalls:
    """A client of DynamoDB for one table, opened by the first call."""

    def __init__(
        self,
        place: TablePlace,
        *,
        connections_max: int = CONNECTIONS_MAX,
        silence_max_ms: int = SILENCE_MAX_MS,
        session: AioSession | None = None,
    ) -> None:
        """Prepare; nothing connects and no credentials are looked for before the first call.

        Args:
            place: The table.
            connections_max: Requests on their way at the same time; further ones wait within their deadlines.
            silence_max_ms: Longest wait for a piece of an answer.
            session: Where Amazon's models and credentials are loaded; None makes one. Shared ones load once.
        """
        self.place = place
        self._session = AioSession() if session is None else session
        self._slots = asyncio.Semaphore(connections_max)
        self._opening = asyncio.Lock()
        self._exits = AsyncExitStack()
        self._client: Any = None
        self._config = AioConfig(
            connect_timeout=CONNECT_TIMEOUT_MS / 1000,
            read_timeout=silence_max_ms / 1000,
            max_pool_connections=connections_max,
            retries={"mode": "standard", "total_max_attempts": 1},
            # The requests are built here and nowhere else; checking them again costs a fifth of a batch.
            parameter_validation=False,
            # Region and endpoint are what the URL says, whatever the environment holds.
            ignore_configured_endpoint_urls=True,
        )

    @asynccontextmanager
    async def spending(self, what: str, *, deadline_ms: int) -> AsyncIterator[Spending]:
        """Bound everything inside by the deadline.

        Raises:
            StoreTimeoutError: It was not done in time.
        """
        spending = Spending(f"{self.place}: {what}")
        try:
            async with asyncio.timeout(deadline_ms / 1000):
                yield spending
        except TimeoutError as error:
            raise StoreTimeoutError(f"{spending.what}: no answer within {deadline_ms} ms{spending.reason}") from error

    async def call(self, operation: str, **parameters: Any) -> dict[str, Any]:
        """Make one attempt.

        Raises:
            TryAgainError: It failed for a reason that passes.
            RefusedError: It was refused; the message says why and what to do.
        """
        try:
            async with self._slots:
                client = await self._open()
                answer: dict[str, Any] = await getattr(client, operation)(**parameters)
        except ClientError as error:
            raise self._answered(operation, error) from (None if _code(error) in _SECRETIVE else error)
        except SSLError as error:
            raise RefusedError(
                f"{self.place}: the server's certificate is not trusted; check the endpoint, or AWS_CA_BUNDLE: "
                f"{_short(error)}", "SSLError"
            ) from error  # fmt: skip
        except ReadTimeoutError as error:
            raise TryAgainError(f"ReadTimeoutError: silent for {self._config.read_timeout:g} s, it is slow") from error
        except (HTTPClientError, NoConnectionError, ResponseParserError, JSONDecodeError) as error:
            raise TryAgainError(
                f"{type(error).__name__}: it cannot be reached or gives no proper answer; check that region and "
                f"endpoint in FRESHET_RECORD are right and that it runs"
            ) from error
        except BotoCoreError as error:
            # Not "from": what a credentials' helper printed may stand in it.
            raise RefusedError(
                f"{self.place}: no usable AWS credentials ({type(error).__name__}): set AWS_ACCESS_KEY_ID and "
                f"AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or give the machine a role", type(error).__name__
            ) from None  # fmt: skip
        return answer

    async def ask(self, spending: Spending, operation: str, **parameters: Any) -> dict[str, Any]:
        """Make attempts until there is an answer; for calls that are answered as a whole."""
        answers: list[dict[str, Any]] = []

        async def attempt(_: Sequence[str]) -> tuple[Sequence[str], str]:
            answers.append(await self.call(operation, **parameters))
            return (), ""

        await spending.exhaust([operation], attempt)
        return answers[0]

    def passing(self, error: Mapping[str, Any]) -> str:
        """Return the code of a statement's error that passes.

        Raises:
            RefusedError: It does not pass.
        """
        code = str(error.get("Code", ""))
        if code not in _AGAIN:
            told = _REMEDIES.get(code) or _short(error.get("Message", ""))
            raise RefusedError(f"{self.place}: a statement was refused: {code}: {told}", code)
        return code

    async def close(self) -> None:
        """Close the connections."""
        await self._exits.aclose()

    async def _open(self) -> Any:
        async with self._opening:
            if self._client is None:
                self._client = await self._exits.enter_async_context(
                    self._session.create_client(
                        "dynamodb",
                        region_name=self.place.region,
                        endpoint_url=self.place.endpoint,
                        config=self._config,
                    )
                )
        return self._client

    def _answered(self, operation: str, error: ClientError) -> StoreError:
        code = _code(error)
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        detail = "" if code in _SECRETIVE else f": {_short(error.response.get('Error', {}).get('Message', ''))}"
        told = f"{code}{detail}"
        if code in _AGAIN or status >= 500:
            return TryAgainError(told)
        remedy = f"{_REMEDIES[code]} ({told})" if code in _REMEDIES else f"{operation} was refused: {told}"
        return RefusedError(f"{self.place}: {remedy}", code)


async def together(works: Iterable[Awaitable[None]]) -> None:
    """Await all; the first error ends the others."""
    try:
        async with asyncio.TaskGroup() as group:
            for work in works:
                group.create_task(_awaited(work))
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None


async def _awaited(work: Awaitable[None]) -> None:
    await work


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _short(detail: object) -> str:
    return str(detail)[:_DETAIL_MAX]


def _pause_ms(failures: int) -> float:
    """Return a pause that grows with the failures, drawn at random: many workers must not come back together."""
    longest = min(PAUSE_FIRST_MS * 2 ** max(failures - 1, 0), PAUSE_LAST_MS)
    return random.uniform(longest / 2, longest)  # noqa: S311  # spreads attempts, keeps no secret
