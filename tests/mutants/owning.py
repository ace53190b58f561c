"""Bugs in the coming and going of partitions: fence, offsets, take-over, changelog."""

from tests.mutants.mutant import SIMULATION, Mutant

_RUNS = "tests/unit/test_runs.py::"
_FENCE = "tests/unit/test_fence.py::"
_CHANGELOG = "tests/unit/test_changelog.py::"
_REMOVAL = "tests/unit/test_removal.py::"

OWNING = (
    Mutant(
        "a worker that was paused writes on",
        rule="P7",
        file="agents/fence.py",
        old="while not self.is_open:",
        new="while self._fresh_s < 0:",
        caught_by=(_FENCE + "test_writes_wait_while_the_coordinator_is_silent", SIMULATION),
    ),
    Mutant(
        "an answer counts from when it is heard",
        rule="P7",
        file="agents/fence.py",
        old="self._answered_at = max(self._answered_at, asked_at)",
        new="self._answered_at = self._monotonic()",
        caught_by=(_FENCE + "test_an_answer_that_was_heard_late_opens_nothing",),
    ),
    Mutant(
        "an assignment counts from when it is heard",
        rule="P7",
        file="agents/fence.py",
        old="self._answered_at = self._assigned_at\n",
        new="self._answered_at = self._monotonic()\n",
        caught_by=(_FENCE + "test_an_assignment_that_was_heard_late_opens_nothing",),
    ),
    Mutant(
        "a group whose offsets were dropped begins where the log begins now",
        rule="P9",
        file="agents/owned_partitions.py",
        old="and self._ownership.has_state:",
        new="and False:",
        caught_by=(
            _RUNS + "test_offsets_that_the_broker_has_dropped_end_the_worker_only_if_events_may_be_lost[True-5-True]",
        ),
    ),
    Mutant(
        "a refused heartbeat is passed over",
        rule="P7",
        file="agents/fence.py",
        old='self._refused({answer.error_code}, "heartbeat", era)',
        new='self._refused(set(), "heartbeat", era)',
        caught_by=(_FENCE + "test_a_refused_heartbeat_ends_an_owner",),
    ),
    Mutant(
        "any answer of the coordinator opens the fence",
        rule="P7",
        file="agents/fence.py",
        old="if error in (kafka_errors.NoError, kafka_errors.RebalanceInProgressError):",
        new="if error:",
        caught_by=(_FENCE + "test_what_is_no_answer_to_a_heartbeat_opens_nothing",),
    ),
    Mutant(
        "offsets are committed past a run that is not finished",
        rule="P9",
        file="core/offsets.py",
        old="while queue and queue[0].done:",
        new="while queue and any(one.done for one in queue):",
        caught_by=(
            "tests/unit/test_offsets.py::test_nothing_that_is_unfinished_is_ever_passed",
            _RUNS + "test_a_commit_covers_what_is_finished_in_order",
        ),
    ),
    Mutant(
        "a run that waits with the next one is committed before it",
        rule="P9",
        file="core/offsets.py",
        old="            queue.remove(first)\n",
        new="            self.finish(first)\n",
        caught_by=(
            "tests/unit/test_offsets.py::test_joined_runs_are_one_run_that_is_finished_with_its_last",
            "tests/unit/test_publish.py::test_runs_that_wait_for_a_group_that_is_seldom_flushed_become_one",
        ),
    ),
    Mutant(
        "partitions are given away uncommitted",
        rule="P9",
        file="agents/owned_partitions.py",
        old="await self._ownership.settle()\n                await self.commit()",
        new="await self._ownership.settle()",
        caught_by=(_RUNS + "test_partitions_are_given_away_settled_and_committed",),
    ),
    Mutant(
        "partitions are given away unsettled",
        rule="P9",
        file="agents/owned_partitions.py",
        old="await self._ownership.settle()\n                await self.commit()",
        new="await self.commit()",
        caught_by=(_RUNS + "test_partitions_are_given_away_settled_and_committed",),
    ),
    Mutant(
        "a partition is read before it was sought",
        rule="P9",
        file="agents/owned_partitions.py",
        old="self._client.seek(tp, offset)",
        new="self._client.seek(tp, 0)",
        caught_by=(_RUNS + "test_a_partition_is_read_from_its_commit_once_it_is_taken_over",),
    ),
    Mutant(
        "a fetch of a former generation is delivered",
        rule="P9",
        file="agents/owned_partitions.py",
        old="if generation != self._client.generation or not self._client.is_flowing:",
        new="if not self._client.is_flowing:",
        caught_by=(_RUNS + "test_the_rest_of_a_fetch_is_dropped_when_the_generation_changes",),
    ),
    Mutant(
        "a topic that was made anew is read on",
        rule="P2",
        file="agents/owned_partitions.py",
        old="if offset > ends[tp]:",
        new="if offset > ends[tp] + 2**40:",
        caught_by=(_RUNS + "test_a_commit_beyond_the_end_of_the_log_ends_the_worker",),
    ),
    Mutant(
        "a commit that moves on during a take-over passes for a loss",
        rule="P9",
        file="agents/owned_partitions.py",
        old="""        starts, committed = await self._client.starts(assigned), await self._client.committed(assigned)
        ends = await self._client.ends(assigned)
""",
        new="""        starts, ends = await self._client.starts(assigned), await self._client.ends(assigned)
        committed = await self._client.committed(assigned)
""",
        caught_by=(_RUNS + "test_a_commit_that_moves_on_during_a_take_over_is_no_loss",),
    ),
    Mutant(
        "late bytes from before a take-over stay at the end of the changelog",
        rule="P7b",
        file="tables/restore.py",
        old="            group.touch(name)\n        if set_back:",
        new="            group.row(name)\n        if set_back:",
        caught_by=(_REMOVAL + "test_a_restored_row_is_written_again_if_something_older_stands_last",),
    ),
    Mutant(
        "events that were deleted unread are passed over",
        rule="P9",
        file="agents/owned_partitions.py",
        old="if start > self._expected[tp]:",
        new="if start > self._expected[tp] + 2**40:",
        caught_by=(_RUNS + "test_records_that_were_deleted_unread_end_the_worker",),
    ),
    Mutant(
        "a restore takes the last row instead of the highest",
        rule="P7b",
        file="tables/restore.py",
        old="elif ver > row.ver:",
        new="elif ver != row.ver:",
        caught_by=(
            "tests/contract/test_restore.py::test_of_every_key_the_highest_version_is_restored",
            _REMOVAL + "test_a_restore_takes_the_highest_version_of_rows_and_tombstones",
        ),
    ),
    Mutant(
        "a restore takes the last row instead of the highest where the short way gives up",
        rule="P7b",
        file="tables/table.py",
        old="elif ver > known:",
        new="else:",
        caught_by=(
            "tests/unit/test_apply.py::test_a_restore_takes_the_highest_version",
            "tests/contract/test_restore.py::test_of_every_key_the_highest_version_is_restored",
            _REMOVAL + "test_a_restore_takes_the_highest_version_of_rows_and_tombstones",
        ),
    ),
    Mutant(
        "a restore takes a row that it has no more at hand for a new one",
        rule="P7b",
        file="tables/restore.py",
        old='ver = version_bytes(known) if known is not None else b""',
        new='ver = b""',
        caught_by=(_REMOVAL + "test_a_restore_is_the_same_however_few_rows_it_has_at_hand",),
    ),
    Mutant(
        "a tombstone removes a newer row",
        rule="P7b",
        file="tables/table.py",
        old="if known is not None and known <= ver:",
        new="if known is not None:",
        caught_by=(_REMOVAL + "test_a_restore_takes_the_highest_version_of_rows_and_tombstones",),
    ),
    Mutant(
        "a row that was removed comes back with late bytes",
        rule="P7b",
        file="tables/restore.py",
        old="if ver > gone:",
        new="if ver > -1:",
        caught_by=(_REMOVAL + "test_a_restore_takes_the_highest_version_of_rows_and_tombstones",),
    ),
    Mutant(
        "event ids are forgotten at a take-over",
        rule="P3",
        file="tables/owned.py",
        old="await self._reader.warm_ids({table: committed.get(tp, 0) for tp, table in tables.items()})",
        new="await self._reader.warm_ids({})",
        caught_by=("tests/contract/test_restore.py::test_a_take_over_brings_rows_and_ids",),
    ),
    Mutant(
        "foreign bytes in a changelog are not noticed",
        rule="P7b",
        file="tables/changelog.py",
        old="if start > expected:",
        new="if start > expected + 2**40:",
        caught_by=(
            _CHANGELOG + "test_a_hole_between_our_records_is_foreign",
            _CHANGELOG + "test_an_end_beyond_our_records_is_foreign",
        ),
    ),
    Mutant(
        "a row behind which a lower version landed is left alone",
        rule="P7b",
        file="tables/mend.py",
        old="if version_of(row) < known:",
        new="if version_of(row) < 0:",
        caught_by=(_CHANGELOG + "test_a_row_behind_which_a_lower_version_landed_is_written_again",),
    ),
    Mutant(
        "late bytes are mended in a table that was given away",
        rule="P7b",
        file="tables/mend.py",
        old="""        if not (changelogs := self._by_changelog()):
            return 0
        self._writer.note_ends(await self._reader.ends(changelogs))
        # Asked for anew: during the question all may have been given away and restored, and these are other tables.
        tables = self._by_changelog()
""",
        new="""        if not (tables := self._by_changelog()):
            return 0
        self._writer.note_ends(await self._reader.ends(tables))
""",
        caught_by=(_CHANGELOG + "test_bytes_that_landed_during_a_rebalance_are_mended_in_the_table_of_now",),
    ),
    Mutant(
        "a row behind which a tombstone landed is left alone",
        rule="P7b",
        file="tables/mend.py",
        old="""            group.touch(name)
            found.behind += 1
            return 0
        try:""",
        new="""            return 0
        try:""",
        caught_by=(_CHANGELOG + "test_a_row_behind_which_a_tombstone_landed_is_written_again",),
    ),
)
