"""Bugs between a changed row and its commit."""

from tests.mutants.mutant import Mutant

_PUBLISH = "tests/unit/test_publish.py::"
_DEBT = "tests/unit/test_cache_debt.py::"
_OWNERSHIP = "tests/unit/test_ownership.py::"

PUBLISHING = (
    Mutant(
        "offsets are committed before the changelog's acknowledgement",
        rule="P6",
        file="agents/publish.py",
        old="await self._changelog.write(rows)",
        new="self._early = asyncio.ensure_future(self._changelog.write(rows))",
        caught_by=(_PUBLISH + "test_nothing_passes_a_step_that_has_not_answered",),
    ),
    Mutant(
        "offsets are committed before the record's acknowledgement",
        rule="P6",
        file="agents/publish.py",
        old="await self._record.write(stored)",
        new="self._early = asyncio.ensure_future(self._record.write(stored))",
        caught_by=(_PUBLISH + "test_nothing_passes_a_step_that_has_not_answered",),
    ),
    Mutant(
        "the cache is written before the record",
        rule="2",
        file="agents/publish.py",
        old="        await self._record.write(stored)\n",
        new="        await self._cache.write(stored)\n        await self._record.write(stored)\n",
        caught_by=(_PUBLISH + "test_a_row_goes_to_changelog_record_and_cache_before_its_run_is_finished",),
    ),
    Mutant(
        "a run is finished while some of its groups wait for their flush",
        rule="P6",
        file="agents/publish.py",
        old="if run.groups or before is not None:",
        new="if before is not None:",
        caught_by=(_PUBLISH + "test_a_run_waits_for_all_its_groups_and_for_the_runs_before_it",),
    ),
    Mutant(
        "runs that wait for a group that is seldom flushed stay as many as they are",
        rule="P9",
        file="agents/publish.py",
        old="if before is not None and before.groups == run.groups:",
        new="if before is run:",
        caught_by=(_PUBLISH + "test_runs_that_wait_for_a_group_that_is_seldom_flushed_become_one",),
    ),
    Mutant(
        "a run is finished while some of its rows wait for their group",
        rule="P6",
        file="agents/publish.py",
        old="for one in taken if one.is_all}",
        new="for one in taken}",
        caught_by=(_PUBLISH + "test_rows_that_have_not_just_been_flushed_go_out_before_their_group_is_due",),
    ),
    Mutant(
        "rows that the record refused are given up",
        rule="P8",
        file="agents/record_writer.py",
        old="left = failed + left",
        new="left = failed[:0] + left",
        caught_by=(_PUBLISH + "test_a_record_that_fails_is_tried_again_and_nothing_is_finished_before",),
    ),
    Mutant(
        "a flush goes on writing after its partitions were given away",
        rule="P9",
        file="agents/publish.py",
        old="self._era += 1",
        new="self._era += 0",
        caught_by=("tests/unit/test_ownership.py::test_a_flush_in_flight_ends_when_its_partitions_go",),
    ),
    Mutant(
        "an unknown error leaves the agent",
        rule="P8",
        file="agents/guard.py",
        old='end(f"{what}: {type(error).__name__}: {error}")',
        new="raise",
        caught_by=("tests/unit/test_guard.py::test_an_unknown_error_ends_the_process_at_once",),
    ),
    Mutant(
        "rows that the cache did not take are forgotten",
        rule="2",
        file="agents/cache_debt.py",
        old="if era == self._era:\n                self._owe(left)",
        new="if era == self._era:\n                pass",
        caught_by=(_DEBT + "test_a_cache_that_fails_is_owed_the_newest_rows",),
    ),
    Mutant(
        "the cache is paid an older row than it is owed",
        rule="2",
        file="agents/cache_debt.py",
        old="if known is None or known.ver <= row.ver:",
        new="if known is None:",
        caught_by=(_DEBT + "test_a_cache_that_fails_is_owed_the_newest_rows",),
    ),
    Mutant(
        "a debt is paid by one who has given its partition away",
        rule="2",
        file="agents/cache_debt.py",
        old="        self._owed.clear()\n",
        new="",
        caught_by=(_DEBT + "test_who_gives_partitions_away_pays_nothing_more",),
    ),
    Mutant(
        "a debt is paid by one who may have been replaced",
        rule="2",
        file="agents/cache_debt.py",
        old="            await self._wait_owner()\n",
        new="",
        caught_by=(_DEBT + "test_nothing_is_paid_by_one_who_may_have_been_replaced",),
    ),
    Mutant(
        "the cache is given rows of partitions that have gone",
        rule="2",
        file="agents/publish.py",
        old="""            # The next owner applies the same again, and owes the cache what we would write over its newer rows.
            return
""",
        new="            pass\n",
        caught_by=(_OWNERSHIP + "test_the_cache_gets_nothing_of_partitions_that_went_while_the_record_was_away",),
    ),
    Mutant(
        "a debt to the cache ends with its worker",
        rule="2",
        file="agents/cache_debt.py",
        old="if self._cache is not None and until > 0:",
        new="if self._cache is not None and until < 0:",
        caught_by=(_DEBT + "test_a_debt_outlives_the_worker_that_had_it",),
    ),
    Mutant(
        "a partition is marked as cached while rows are owed",
        rule="2",
        file="agents/progress.py",
        old="marks = self._take_marks(steps) if self._cache.is_clear else []",
        new="marks = self._take_marks(steps)",
        caught_by=(_DEBT + "test_a_partition_is_marked_as_cached_only_without_debt",),
    ),
)
