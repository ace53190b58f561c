"""What we took for granted of Faust, mode and aiokafka below their public surface.

``agents/transport.py``, ``agents/fence.py`` and ``app/faust_app.py`` override methods, call private ones and rely on
the order in which others do their work. Each of these was read at the pinned version. When one differs: read the
new source beside our code at the place that its note names, then record the new hash.
"""

import hashlib
import inspect
from importlib.metadata import version

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.client import AIOKafkaClient
from aiokafka.consumer.fetcher import Fetcher as KafkaFetcher
from aiokafka.consumer.group_coordinator import CoordinatorGroupRebalance, GroupCoordinator
from aiokafka.producer.message_accumulator import BatchBuilder, MessageAccumulator
from aiokafka.producer.sender import Sender, SendProduceReqHandler
from faust.app.base import App, BootStrategy
from faust.serializers.schemas import Schema
from faust.streams import Stream
from faust.tables.manager import TableManager
from faust.tables.recovery import Recovery
from faust.topics import Topic
from faust.transport import consumer as base
from faust.transport.conductor import ConductorCompiler
from faust.transport.drivers import aiokafka as driver
from faust.types.tuples import ConsumerMessage, Message
from faust.web.drivers.aiohttp import Web
from mode.services import Service
from mode.threads import MethodQueue, QueueServiceThread
from mode.utils.queues import FlowControlEvent, FlowControlQueue

PINNED = {"faust-streaming": "0.15.3", "mode-streaming": "0.7.1", "aiokafka": "0.14.0"}

THREAD = driver.AIOKafkaConsumerThread
CONSUMER = base.Consumer
DELEGATE = base.ThreadDelegateConsumer

RELIED_ON = [
    (CONSUMER, "__init__", "302410d59e6972d1", "Consumer.__init__"),
    (CONSUMER, "_reset_state", "488b46f5c7f1d0b0", "OwnedPartitions.deliver_next: the flow at the start"),
    (CONSUMER, "stop_flow", "cf7e875a2b0d40e8", "Consumer.on_partitions_revoked"),
    (CONSUMER, "resume_flow", "db59630f25b5819b", "_Client.fetch"),
    (CONSUMER, "perform_seek", "0e8c130ff4b0afd8", "Consumer.perform_seek"),
    (CONSUMER, "on_partitions_revoked", "d04b7ae72c6fc206", "Consumer.on_partitions_revoked"),
    (CONSUMER, "on_partitions_assigned", "29ce96596f05a18c", "Consumer.on_partitions_assigned"),
    (CONSUMER, "on_buffer_full", "c8961679e0bcdce5", "OwnedPartitions._runs_max"),
    (CONSUMER, "ack", "5fcf41cf45153475", "Consumer.ack"),
    (CONSUMER, "wait_empty", "e4662fe24f094819", "Consumer.wait_empty"),
    (CONSUMER, "commit", "a354437baaa08bf8", "Consumer.commit"),
    (CONSUMER, "on_stop", "45b1d2210ce2b526", "Consumer.wait_empty"),
    (CONSUMER, "_commit_handler", "4e5da5df073082d6", "Consumer.commit"),
    (CONSUMER, "_commit_livelock_detector", "af196ff46fd42a14", "Consumer.verify_event_path"),
    (CONSUMER, "on_task_error", "0d7f23d0bb2607c1", "Consumer.commit"),
    (CONSUMER, "_drain_messages", "44a2500309e83c63", "Consumer._drain_messages"),
    (base.Fetcher, "_fetcher", "68f894f0b577d810", "Consumer._drain_messages"),
    (base.Fetcher, "on_stop", "21f3bae9b455762b", "Consumer._drain_messages"),
    (DELEGATE, "__init__", "7072ae80eac1ff62", "Consumer._new_consumer_thread"),
    (DELEGATE, "threadsafe_partitions_revoked", "6c55d67e9eb06ca5", "Consumer.on_partitions_revoked"),
    (DELEGATE, "threadsafe_partitions_assigned", "50fac26841ad9934", "Consumer.on_partitions_assigned"),
    (DELEGATE, "_getmany", "f9d47aa9010b5ff2", "_Client.fetch"),
    (DELEGATE, "_commit", "a20eec84e4b2ed50", "Consumer.commit"),
    (DELEGATE, "highwater", "f52cb0d26a713c3a", "Consumer.lag"),
    (DELEGATE, "earliest_offsets", "2833b09d2888825b", "OwnedPartitions._take_over"),
    (driver.Consumer, "_new_consumer_thread", "0870ec53dea75083", "Consumer._new_consumer_thread"),
    (driver.Consumer, "on_stop", "173f86b366f3608e", "Consumer.wait_empty"),
    (driver.Consumer, "verify_event_path", "a17e8f0610e1abcb", "Consumer.verify_event_path"),
    (driver.Consumer, "_to_message", "7c24f6511b2fcef7", "_Client.hand_on"),
    (driver.ConsumerRebalanceListener, "on_partitions_revoked", "348c3aec879faf80", "Consumer.on_partitions_revoked"),
    (
        driver.ConsumerRebalanceListener,
        "on_partitions_assigned",
        "1c1f8406ad3698a6",
        "OwnedPartitions.deliver_next: the generation",
    ),
    (THREAD, "__post_init__", "913dc7c0d9578e2d", "_ConsumerThread"),
    (THREAD, "on_start", "38b4e8bd1e10723a", "_ConsumerThread.on_start"),
    (THREAD, "_create_worker_consumer", "c2701bfc3e6f6cad", "_ConsumerThread._create_worker_consumer"),
    (THREAD, "_ensure_consumer", "ff4a4c693b7ec63f", "_ConsumerThread.on_start, _Client.committed"),
    (THREAD, "seek", "1498560d05f02582", "OwnedPartitions._take_over"),
    (THREAD, "getmany", "26fc5fc9f3b667e1", "_Client.fetch"),
    (THREAD, "_fetch_records", "39a2c6c79fc1455a", "_Client.fetch"),
    (THREAD, "commit", "d31c8558ba25310c", "Consumer.commit"),
    (THREAD, "_commit", "932852ce7a23f658", "Consumer.commit"),
    (THREAD, "highwater", "6f7dbe109ae6807f", "Consumer.lag"),
    (THREAD, "earliest_offsets", "5d697cd768735af7", "OwnedPartitions._take_over"),
    (driver.Producer, "__post_init__", "4ae6f6f586b8f149", "Producer"),
    (driver.Producer, "_settings_default", "9c39987fb719e984", "Producer._settings_extra"),
    (driver.Producer, "_settings_extra", "a4c7bc41b6382223", "Producer._settings_extra"),
    (driver.Producer, "_new_producer", "e72355c3430ed02f", "Producer._settings_extra"),
    (driver.Producer, "flush", "36d0cb3615f65b01", "Producer.flush"),
    (driver.Producer, "on_start", "219c9a7a785d77b2", "Producer.on_start"),
    (driver.Producer, "on_stop", "86799c5ab7b662f7", "Producer.on_start"),
    (driver.Transport, "__init__", "a06006f6ae8ed716", "Transport.__init__"),
    (QueueServiceThread, "call_thread", "479edda75b54734b", "_Client.committed"),
    (MethodQueue, "call", "57bd4157ba4e349f", "_Client.committed"),
    (
        MethodQueue,
        "_process_enqueued",
        "d88a086d148c8012",
        "OwnedPartitions.deliver_next: what a fetch returns to nobody",
    ),
    (FlowControlEvent, "resume", "4dcdc1253fd0dcb4", "_Client.hand_on: nothing may be in a queue before"),
    (FlowControlEvent, "suspend", "807929ab275a3b63", "Consumer.on_partitions_revoked"),
    (FlowControlEvent, "clear", "dda5e40d80288a8f", "Consumer.on_partitions_revoked"),
    (FlowControlEvent, "acquire", "ed0208e866e64d0b", "_Client.hand_on"),
    (FlowControlQueue, "clear", "fa9a86f6b097c90f", "OwnedPartitions._runs_max"),
    (FlowControlQueue, "put_nowait_enhanced", "f1839f43dda3d2cf", "_Client.hand_on"),
    (FlowControlQueue, "force_put_nowait", "e029f3d278247909", "_Client.hand_on"),
    (ConductorCompiler, "build", "837cf521368c1ee4", "_Client.hand_on"),
    (Schema, "loads_key", "9adc30303f20915c", "RunSchema"),
    (Schema, "loads_value", "61a4628b4e0966e6", "RunSchema"),
    (Schema, "compile", "d46eec5ce3195b2c", "RunSchema"),
    (Topic, "decode", "c5cf3eebd64fcf3b", "RunSchema"),
    (Stream, "noack", "921a6f5c674d32d4", "Platform._attach_agents in app/wiring.py"),
    (Stream, "events", "c62f4dd3a73fe7aa", "Platform._attach_agents in app/wiring.py"),
    (Message, "__init__", "afe1f75975597bc3", "RunMessage"),
    (Recovery, "_resume_streams", "d986a6710c1aca98", "Consumer.perform_seek, _Client.hand_on"),
    (Recovery, "on_rebalance", "aa4d997a1795ceae", "Consumer.on_partitions_assigned"),
    (TableManager, "on_rebalance", "2d2c23a07bf54328", "Consumer.on_partitions_assigned"),
    (TableManager, "on_partitions_revoked", "382852adff42ab99", "Consumer.on_partitions_revoked"),
    (App, "_on_partitions_revoked", "d5c895bbe57dc73a", "Consumer.on_partitions_revoked, Consumer.wait_empty"),
    (App, "_on_partitions_assigned", "de932b7927db85b3", "Consumer.on_partitions_assigned"),
    (App, "_consumer_wait_empty", "6bc313c48c064b16", "Consumer.wait_empty"),
    (App, "_stop_consumer", "55854a5de12c3f52", "Consumer.wait_empty"),
    (App, "_stop_fetcher", "68494554c248efcc", "Consumer._drain_messages"),
    (App, "_new_consumer", "bff6ccd646b71ea9", "Transport"),
    (App, "_new_producer", "e7e1814e715d8b30", "Transport"),
    (App, "on_first_start", "ec655d9c223403cc", "App.on_first_start in app/faust_app.py"),
    (App, "on_stop", "bfe5a933defb2324", "App.on_shutdown in app/faust_app.py"),
    (App, "on_webserver_init", "74ea16edc3fd9eb8", "App.on_webserver_init in app/faust_app.py"),
    (App, "_create_directories", "a9f571c3b04abec3", "App._create_directories in app/faust_app.py"),
    (Service, "stop", "e17cd2b6bd01e861", "App.on_shutdown in app/faust_app.py"),
    (Service, "on_shutdown", "c00b1dbba64a95c2", "App.on_shutdown in app/faust_app.py"),
    (BootStrategy, "server", "97e47ea1dec34b55", "ServingBoot in app/faust_app.py"),
    (Web, "init_server", "bd11a60294bb1e4f", "App.on_webserver_init in app/faust_app.py"),
    (GroupCoordinator, "_send_req", "fa4b12e914ce9fcf", "Fence.watch_coordinator"),
    (CoordinatorGroupRebalance, "_send_sync_group_request", "7429ca078ddf9bb7", "Fence.watch_coordinator"),
    (GroupCoordinator, "_do_heartbeat", "dc1d6632aaa68e96", "Fence.watch_coordinator"),
    (GroupCoordinator, "_do_commit_offsets", "c3a3ea5613f39cac", "Fence.watch_coordinator"),
    (GroupCoordinator, "_heartbeat_routine", "61d01028952239d0", "Fence: no heartbeat during a join"),
    (GroupCoordinator, "ensure_active_group", "33c84c1a93012e81", "Fence, Consumer.on_partitions_revoked"),
    (GroupCoordinator, "_on_join_prepare", "4d9524afc0ee2c2f", "Consumer.on_partitions_revoked"),
    (Sender, "_send_produce_req", "aea01ae4b6c794cc", "Fence.guard_sends"),
    (Sender, "_sender_routine", "2380dc5e333d9ebd", "Fence.guard_sends"),
    (SendProduceReqHandler, "handle_response", "850323cc8f77abc3", "ChangelogWriter: an answer without an offset"),
    (
        SendProduceReqHandler,
        "_can_retry",
        "7ff5d491d977aacf",
        "Dispatcher.acknowledge: a refused send is refused for good",
    ),
    (MessageAccumulator, "add_batch", "5ed1c5b1367ad854", "ChangelogWriter._send"),
    (MessageAccumulator, "add_message", "56ff7e6c19185f83", "Dispatcher._send_run: the order of sends"),
    (MessageAccumulator, "_pop_batch", "41cc98a298ef2628", "Dispatcher._send_run: no send overtakes"),
    (MessageAccumulator, "reenqueue", "f75f518a1ae27ade", "Dispatcher._send_run: no send overtakes"),
    (MessageAccumulator, "drain_by_nodes", "fc995afbfc5718e2", "wait_for_leaders"),
    (BatchBuilder, "append", "657d76f55157d9ca", "ChangelogWriter._batches"),
    (GroupCoordinator, "_maybe_leave_group", "016cd88a16e6c4b5", "_ConsumerThread.leave_at_stop"),
    (AIOKafkaClient, "send", "246b277687d7b687", "tell_resets"),
    (AIOKafkaProducer, "send", "08ce81263f439838", "Dispatcher._send_run"),
    (AIOKafkaProducer, "send_batch", "bf42b0f0c5c0646d", "ChangelogWriter._send"),
    (AIOKafkaProducer, "create_batch", "c4efda4bb7a09741", "ChangelogWriter._batches"),
    (AIOKafkaProducer, "_serialize", "eb7723aa42b2a40e", "DeadLetter: the largest request"),
    (AIOKafkaConsumer, "start", "2f1ba70443327538", "_ConsumerThread._create_worker_consumer"),
    (AIOKafkaConsumer, "seek", "a9430f1f3b9ac419", "OwnedPartitions._take_over"),
    (AIOKafkaConsumer, "committed", "d8706147ab1573ad", "_Client.committed"),
    (AIOKafkaConsumer, "commit", "79b057d88220e5a2", "Consumer.commit"),
    (AIOKafkaConsumer, "highwater", "044275efc968e286", "Consumer.lag"),
    (
        KafkaFetcher,
        "fetched_records",
        "be4348896b9b66af",
        "_Client.fetch: an empty set of partitions means all",
    ),
]


def plain(function):
    """A method without what decorators and descriptors put around it."""
    for name in ("fun", "fget", "func"):
        function = getattr(function, name, function)
    return inspect.unwrap(function)


@pytest.mark.parametrize("package", PINNED)
def test_the_installed_versions_are_the_pinned_ones(package):
    """
    Everything below was read at these versions and no other.
    """
    assert version(package) == PINNED[package]


@pytest.mark.parametrize(
    ("owner", "name", "digest", "where"),
    [pytest.param(*row, id=f"{row[0].__qualname__}.{row[1]}") for row in RELIED_ON],
)
def test_what_we_rely_on_is_as_it_was_read(owner, name, digest, where):
    """
    A patch release may change a private method without a word; the loss of events would be the first to tell.
    """
    source = inspect.getsource(plain(inspect.getattr_static(owner, name)))

    found = hashlib.sha256(source.encode()).hexdigest()[:16]
    assert found == digest, (
        f"{owner.__module__}.{owner.__qualname__}.{name} has changed: read it beside {where}, then record {found}"
    )


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (AIOKafkaConsumer, "_fetch_max_wait_ms"),
        (AIOKafkaConsumer, "_coordinator"),
        (AIOKafkaProducer, "_sender"),
        (AIOKafkaProducer, "_message_accumulator"),
        (MessageAccumulator, "_batch_ttl"),
    ],
)
def test_the_attributes_that_we_set_or_take_exist(owner, name):
    """
    An attribute that nobody reads any more can be set for ever.
    """
    assert f"self.{name} = " in inspect.getsource(owner)


def test_the_wait_of_a_fetch_is_read_when_the_consumer_starts():
    """
    We set it between making the consumer and starting it.
    """
    assert "fetch_max_wait_ms=self._fetch_max_wait_ms" in inspect.getsource(AIOKafkaConsumer.start)


def test_a_message_takes_what_a_run_gives_it():
    """
    A run is a Faust message whose value is a list of records, with a place for its delivery.
    """
    assert list(inspect.signature(ConsumerMessage.__init__).parameters) == [
        "self", "topic", "partition", "offset", "timestamp", "timestamp_type", "headers", "key", "value", "checksum",
        "serialized_key_size", "serialized_value_size", "tp", "time_in", "time_out", "time_total", "generation_id",
    ]  # fmt: skip
    assert not hasattr(ConsumerMessage, "delivery")
