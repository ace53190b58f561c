"""Bugs between a source topic and the repartition topics."""

from tests.mutants.mutant import FUZZ, SIMULATION, Mutant

DISPATCHING = (
    Mutant(
        "late is decided by the clock",
        rule="Time",
        file="agents/decode.py",
        old="<= record_time_ms - time_ms <= {lateness_ms}:",
        new="<= __import__('time').time_ns() // 1_000_000 - time_ms <= {lateness_ms}:",
        caught_by=("tests/unit/test_decode.py::test_late_and_future_depend_on_the_record_alone", FUZZ),
    ),
    Mutant(
        "events of the future are taken",
        rule="Time",
        file="agents/decode.py",
        old="if not {-FUTURE_MS} <= record_time_ms",
        new="if not {-1_000 * FUTURE_MS} <= record_time_ms",
        caught_by=("tests/unit/test_decode.py::test_late_and_future_depend_on_the_record_alone", FUZZ),
    ),
    Mutant(
        "a bad event is dropped instead of buried",
        rule="P8",
        file="agents/dispatch.py",
        old="letters.append(DeadLetter.of(record, error))",
        new='log.info("event dropped: %s", error)',
        caught_by=("tests/unit/test_dispatch.py::test_bad_events_are_buried_and_the_others_go_on", FUZZ),
    ),
    Mutant(
        "an event whose key cannot be encoded is passed over",
        rule="P8",
        file="agents/decode.py",
        old="""code.add(f"raise {code.name('refuse', _refuse_key)}(error) from error")""",
        new='code.add(" = ".join([*found, "[]"]))',
        caught_by=("tests/unit/test_decode.py::test_a_malformed_event_is_told_by_its_field_and_its_flaw", FUZZ),
    ),
    Mutant(
        "a run is finished before its dead letters are acknowledged",
        rule="P6",
        file="agents/dispatch.py",
        old="return sends + [await self._bury(letter) for letter in letters]",
        new="return sends + [await self._bury(letter) for letter in letters][:0]",
        caught_by=("tests/unit/test_dispatch.py::test_a_run_is_finished_when_every_send_is_acknowledged", SIMULATION),
    ),
    Mutant(
        "a run is finished before its packs are acknowledged",
        rule="P1",
        file="agents/dispatch.py",
        old="for acknowledgement in acknowledgements:",
        new="for acknowledgement in acknowledgements[:0]:",
        caught_by=(
            "tests/unit/test_dispatch.py::test_a_run_is_finished_when_every_send_is_acknowledged",
            "tests/unit/test_dispatch.py::test_a_refused_send_finishes_nothing_and_is_told",
        ),
    ),
    Mutant(
        "later packs of a key overtake earlier ones",
        rule="P1",
        file="agents/dispatch.py",
        old="for entity, partition, packed in packer.packs()",
        new="for entity, partition, packed in reversed(list(packer.packs()))",
        caught_by=("tests/unit/test_dispatch.py::test_packs_are_split_at_their_number_of_updates",),
    ),
    Mutant(
        "an update goes to a partition that is not its key's",
        rule="P10",
        file="agents/places.py",
        old="((kafka_partition(key, partitions), key),)",
        new="((len(key) % partitions, key),)",
        caught_by=("tests/unit/test_dispatch.py::test_every_update_goes_once_to_its_partition_in_order", FUZZ),
    ),
    Mutant(
        "the producer is not idempotent",
        rule="P1",
        file="agents/transport.py",
        old='"enable_idempotence": True',
        new='"enable_idempotence": False',
        caught_by=("tests/unit/test_runs.py::test_a_producer_is_idempotent_and_waits_for_every_replica",),
    ),
    Mutant(
        "the producer does not wait for every replica",
        rule="P1",
        file="agents/transport.py",
        old='"acks": "all"',
        new='"acks": 1',
        caught_by=("tests/unit/test_runs.py::test_a_producer_is_idempotent_and_waits_for_every_replica",),
    ),
)
