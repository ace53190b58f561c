"""Bugs in the stores."""

from tests.mutants.mutant import CACHES, Mutant

_STORES = "tests/contract/test_stores.py::"
_DYNAMODB = "tests/contract/test_dynamodb.py::"
_CACHES = "tests/contract/test_caches.py::"
_TIERS = "tests/unit/test_tiers.py::"

STORING = (
    Mutant(
        "SQLite takes whatever comes last",
        rule="P4",
        file="stores/sqlite.py",
        old='" WHERE excluded.ver > ver OR expires_at_ms <= ?"',
        new='" WHERE excluded.ver <> ver OR expires_at_ms <= ?"',
        caught_by=(_STORES + "test_concurrent_writers_leave_the_highest_version[sqlite]",),
    ),
    Mutant(
        "Redis takes whatever comes last",
        rule="P4",
        file="stores/redis_commands.py",
        old="newer = high > held_high or (high == held_high and low > held_low)",
        new="newer = true",
        caught_by=(_STORES + "test_concurrent_writers_leave_the_highest_version[redis]",),
    ),
    Mutant(
        "Redis compares half of a version",
        rule="P4",
        file="stores/redis_commands.py",
        old="newer = high > held_high or (high == held_high and low > held_low)",
        new="newer = low > held_low",
        caught_by=(_STORES + "test_versions_are_compared_as_unsigned_64_bit_numbers",),
    ),
    Mutant(
        "DynamoDB takes whatever comes last",
        rule="P4",
        file="stores/dynamodb_statements.py",
        old="(ver<? OR expires_at_ms<=?)",
        new="(ver<>? OR expires_at_ms<=?)",
        caught_by=(_STORES + "test_concurrent_writers_leave_the_highest_version[dynamodb]",),
    ),
    Mutant(
        "a statement of a batch that DynamoDB could not do counts as done",
        rule="P6",
        file="stores/dynamodb.py",
        old="reason = self.calls.passing(error)\n                    left.append(statement)",
        new="del waiting[id(statement.row)]",
        caught_by=(
            _DYNAMODB + "test_failures_that_pass_are_tried_again",
            _DYNAMODB + "test_a_refused_statement_of_a_batch_is_an_error",
        ),
    ),
    Mutant(
        "a row that DynamoDB wrote in part is taken for written",
        rule="P6",
        file="stores/dynamodb.py",
        old="""raise PartialWriteError(
                f"{error} ({len(waiting)} of {len(rows)} rows)", frozenset(waiting.values())
            ) from error""",
        new="return taken",
        caught_by=(_DYNAMODB + "test_a_write_that_is_done_in_part_tells_what_is_left",),
    ),
    Mutant(
        "keys that DynamoDB left unprocessed are taken for missing",
        rule="2",
        file="stores/dynamodb.py",
        old="[_key(item) for item in unprocessed]",
        new="[_key(item) for item in unprocessed][:0]",
        caught_by=(
            _DYNAMODB + "test_keys_left_unprocessed_are_asked_for_again",
            _DYNAMODB + "test_keys_that_stay_unprocessed_are_an_error",
        ),
    ),
    Mutant(
        "DynamoDB may answer from a replica that is behind",
        rule="2",
        file="stores/dynamodb.py",
        old='"ConsistentRead": True',
        new='"ConsistentRead": False',
        caught_by=(_DYNAMODB + "test_every_read_is_consistent",),
    ),
    Mutant(
        "a row is read after it has expired",
        rule="Keys",
        file="stores/sqlite.py",
        old='" WHERE expires_at_ms IS NULL OR expires_at_ms > ?"',
        new='" WHERE expires_at_ms IS NULL OR ? > 0"',
        caught_by=(_STORES + "test_a_row_past_its_expiry_is_not_returned[sqlite]",),
    ),
    Mutant(
        "that a key has no row outlives its first event",
        rule="2",
        file="serving/local.py",
        old="                if row.key in self._copies:",
        new="                if row.key in self._copies and self._copies[row.key].row is not None:",
        caught_by=(_TIERS + "test_the_first_event_of_a_key_ends_that_it_has_no_row",),
    ),
    Mutant(
        "a read remembers that there is no row although one was created meanwhile",
        rule="2",
        file="serving/local.py",
        old="and key not in self._announced and",
        new="and",
        caught_by=(_TIERS + "test_a_row_that_is_created_while_it_is_looked_for_is_found_afterwards",),
    ),
    Mutant(
        "a read from before a clearing leaves what it has read",
        rule="2",
        file="serving/local.py",
        old="return next(iter(self._reads.values()), self._announcements) <= self._cleared_at",
        new="return False",
        caught_by=(
            _TIERS + "test_a_read_from_before_a_clearing_leaves_no_copy",
            _TIERS + "test_a_read_from_before_a_clearing_does_not_leave_that_there_is_no_row",
        ),
    ),
    Mutant(
        "what a reader has found is put into Redis without its lease",
        rule="2",
        file="stores/redis_commands.py",
        old="  if redis.call('GETRANGE', key, 0, 7) == ARGV[1] then\n    taken = taken + 1\n    redis.call('SET', key, ARGV[2 * i])",
        new="  if true then\n    taken = taken + 1\n    redis.call('SET', key, ARGV[2 * i])",
        caught_by=(
            _CACHES + "test_what_is_found_takes_the_place_of_its_own_lease_alone[redis]",
            _CACHES + "test_a_write_ends_a_lease[redis]",
        ),
    ),
    Mutant(
        "a filling is taken wherever there is no newer row",
        rule="2",
        file="stores/memory.py",
        old="if held.get(one.key) == token]",
        new="if held.get(one.key, b'')[:8] < one.value[:8] or held.get(one.key) == token]",
        caught_by=(_CACHES + "test_a_lease_ends_by_itself[memory]", CACHES),
    ),
    Mutant(
        "a lease is given to whoever asks",
        rule="2",
        file="stores/redis_commands.py",
        old="  if not found[i] then",
        new="  if not found[i] or #found[i] < 8 then",
        caught_by=(_CACHES + "test_what_is_found_takes_the_place_of_its_own_lease_alone[redis]",),
    ),
    Mutant(
        "who joins a load is told what was there when it began",
        rule="2",
        file="serving/tiers.py",
        old="return (version_of(loaded[key].value) if key in loaded else 0) < self._floor.of(key)",
        new="return False",
        caught_by=(_TIERS + "test_who_joins_a_load_is_told_nothing_older_than_was_served_meanwhile", CACHES),
    ),
    Mutant(
        "that there is no row is never forgotten by the cache",
        rule="2",
        file="serving/fills.py",
        old="return Filling(want.key, NO_ROW, nothing_until_ms)",
        new="return Filling(want.key, NO_ROW, None)",
        caught_by=(_TIERS + "test_what_is_filled_in_is_forgotten_after_a_while[30000]",),
    ),
    Mutant(
        "each reader of a row loads it",
        rule="2",
        file="serving/flights.py",
        old="if key not in self._under_way]",
        new="]",
        caught_by=("tests/unit/test_flights.py::test_ten_thousand_readers_are_one_load",),
    ),
    Mutant(
        "who goes away takes the load from the others",
        rule="2",
        file="serving/flights.py",
        old="await asyncio.shield(flight)",
        new="await flight",
        caught_by=("tests/unit/test_flights.py::test_who_goes_away_takes_the_load_from_nobody",),
    ),
    Mutant(
        "a prepared row is served although a newer one came",
        rule="2",
        file="serving/ready.py",
        old="ready.row is row and",
        new="",
        caught_by=("tests/unit/test_ready.py::test_a_new_version_of_a_row_is_prepared_anew",),
    ),
    Mutant(
        "a prepared row is served beyond its tile boundary",
        rule="Time",
        file="serving/ready.py",
        old="<= instant_ms < ready.until_ms:",
        new="<= instant_ms:",
        caught_by=(
            "tests/unit/test_ready.py::test_a_row_is_prepared_once_until_a_tile_boundary_passes",
            "tests/unit/test_ready.py::test_values_that_became_too_old_are_not_served_from_what_was_prepared",
            "tests/unit/test_ready.py::test_a_row_whose_windows_are_all_empty_is_served_as_none",
        ),
    ),
)
