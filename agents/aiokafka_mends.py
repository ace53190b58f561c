"""What aiokafka gives up on and a worker must not; ``tests/contract/test_transport.py`` holds it to its version."""

from typing import Any

from aiokafka.errors import KafkaConnectionError

_RESET = "the handler is closed"
_LEADERLESS_S = 3_600.0
"""How long a send may wait for its partition to have a leader: far longer than brokers take to start again."""


def tell_resets(client: Any) -> None:
    """Let an aiokafka client tell of a connection that was reset, and try again, whatever the loop says of it.

    uvloop raises a RuntimeError where asyncio's own loop raises an OSError. aiokafka takes that for the end: the
    producer sends nothing any more [found by the torture].
    """
    send = client.send

    async def told(*args: Any, **kwargs: Any) -> Any:
        try:
            return await send(*args, **kwargs)
        except RuntimeError as error:
            if _RESET not in str(error):
                raise
            raise KafkaConnectionError(str(error)) from error

    client.send = told


def wait_for_leaders(producer: Any) -> None:
    """Let an aiokafka producer keep what waits for a leader.

    It tries a send again for ever, if it is idempotent, but not one whose partition the cluster says has no leader:
    what is older than a request may take is given up then, and that would end the worker.
    """
    producer._message_accumulator._batch_ttl = _LEADERLESS_S  # noqa: SLF001  # aiokafka has no setting for it alone
