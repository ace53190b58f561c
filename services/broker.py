"""An in-memory Kafka broker inside this process, so that trying Freshet takes nothing but ``pip``.

librdkafka brings a mock cluster for its own tests, and the confluent-kafka wheel brings librdkafka. Its C functions
are not part of the Python client, so they are called through ctypes.

What it does not do: it keeps nothing on disk; a partition holds its newest 5 MB and drops older records silently; an
unknown topic that somebody asks for springs up with 4 partitions; CreateTopics is not served; and an empty fetch waits
its whole ``fetch.max.wait.ms``, whatever arrives meanwhile, so that a consumer sets that low.
"""

import ctypes
from collections.abc import Mapping
from pathlib import Path

import confluent_kafka

from core.errors import BrokerError

# Kafka waits 3 s for more members before a group's first rebalance; here there is one, and it is known to be alone.
GROUP_INITIAL_REBALANCE_DELAY_MS = 10

_PRODUCER = 0
_LOG_ERRORS = b"3"


class EmbeddedBroker:
    """One broker on a free port of 127.0.0.1, alive until ``close``; replication factor 1.

    Its threads belong to this process and die with it.

    Attributes:
        bootstrap: ``host:port`` for clients.
    """

    def __init__(self, topics: Mapping[str, int]) -> None:
        """Start the broker with topics by name and number of partitions.

        Raises:
            BrokerError: The wheel has no librdkafka with a mock cluster, or it refuses to start or to make a topic.
        """
        for name, partitions in topics.items():
            if partitions < 1:
                raise BrokerError(f"embedded broker: topic {name!r} with {partitions} partitions: at least 1 is needed")
        self._library = _load_library()
        self._client = _new_client(self._library)
        self._cluster = self._library.rd_kafka_mock_cluster_new(self._client, 1)
        if not self._cluster:
            self._library.rd_kafka_destroy(self._client)
            raise BrokerError("embedded broker: librdkafka made no mock cluster")
        self._library.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, GROUP_INITIAL_REBALANCE_DELAY_MS)
        self.bootstrap = str(self._library.rd_kafka_mock_cluster_bootstraps(self._cluster).decode())
        try:
            for name, partitions in topics.items():
                self._create_topic(name, partitions)
        except BrokerError:
            self.close()
            raise

    def close(self) -> None:
        """Stop the broker and free its memory; a second call does nothing."""
        if self._cluster:
            self._library.rd_kafka_mock_cluster_destroy(self._cluster)
            self._library.rd_kafka_destroy(self._client)
            self._cluster = None

    def _create_topic(self, name: str, partitions: int) -> None:
        error = self._library.rd_kafka_mock_topic_create(self._cluster, name.encode(), partitions, 1)
        if error:
            reason = self._library.rd_kafka_err2str(error).decode()
            raise BrokerError(f"embedded broker: topic {name!r} with {partitions} partitions: {reason}")


def _load_library() -> ctypes.CDLL:
    path = _library_path(Path(confluent_kafka.__file__).parent)
    library = ctypes.CDLL(str(path))
    pointer, integer, text = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
    # Without these ctypes would cut pointers to 32 bits.
    signatures: dict[str, tuple[object, list[object]]] = {
        "rd_kafka_conf_new": (pointer, []),
        "rd_kafka_conf_set": (integer, [pointer, text, text, text, ctypes.c_size_t]),
        "rd_kafka_new": (pointer, [integer, pointer, text, ctypes.c_size_t]),
        "rd_kafka_destroy": (None, [pointer]),
        "rd_kafka_err2str": (text, [integer]),
        "rd_kafka_mock_cluster_new": (pointer, [pointer, integer]),
        "rd_kafka_mock_cluster_destroy": (None, [pointer]),
        "rd_kafka_mock_cluster_bootstraps": (text, [pointer]),
        "rd_kafka_mock_topic_create": (integer, [pointer, text, integer, integer]),
        "rd_kafka_mock_group_initial_rebalance_delay_ms": (None, [pointer, ctypes.c_int32]),
    }
    for name, (result, arguments) in signatures.items():
        try:
            function = getattr(library, name)
        except AttributeError as error:
            raise BrokerError(f"embedded broker: {path.name} has no {name}; confluent-kafka 2.11 has it") from error
        function.restype, function.argtypes = result, arguments
    return library


def _library_path(package: Path) -> Path:
    """Return librdkafka as the wheel ships it: beside the package on Linux, inside it on macOS."""
    folders = (package.parent / "confluent_kafka.libs", package / ".dylibs")
    for folder in folders:
        for found in sorted(folder.glob("librdkafka*")):
            # The name asks for the C library, not for its C++ wrapper.
            if "++" not in found.name:
                return found
    looked = " or ".join(str(folder) for folder in folders)
    raise BrokerError(f"embedded broker: no librdkafka in {looked}; install confluent-kafka from its wheel")


def _new_client(library: ctypes.CDLL) -> int:
    """Return the librdkafka instance that the cluster belongs to; it connects to nothing."""
    reason = ctypes.create_string_buffer(512)
    settings = library.rd_kafka_conf_new()
    # It would warn on stderr that it has no servers to connect to.
    library.rd_kafka_conf_set(settings, b"log_level", _LOG_ERRORS, reason, len(reason))
    client = library.rd_kafka_new(_PRODUCER, settings, reason, len(reason))
    if not client:
        raise BrokerError(f"embedded broker: librdkafka does not start: {reason.value.decode()}")
    return int(client)
