"""Bugs in what an update does to a row, and in how rows become values."""

from tests.mutants.mutant import SIMULATION, Mutant

_APPLY = "tests/unit/test_apply.py::"
_DEDUPE = "tests/unit/test_dedupe.py::"

APPLYING = (
    Mutant(
        "the stamp is not asked",
        rule="P2",
        file="tables/program.py",
        old='with code.block("if offset > stamps.get(partition, -1):"):',
        new='with code.block("if True:"):',
        caught_by=(
            _APPLY + "test_crashes_lose_and_double_nothing",
            _APPLY + "test_a_replay_publishes_again_and_changes_nothing",
            SIMULATION,
        ),
    ),
    Mutant(
        "the stamp is of the repartition offset",
        rule="P1",
        file="tables/apply.py",
        old="program = compile_program(table.plans, pack.source)",
        new="""program = compile_program(table.plans, pack.source)
        pack.offsets = [offset << 10 | number for number in range(len(pack.offsets))]""",
        caught_by=(_APPLY + "test_every_event_counts_once_per_key", SIMULATION),
    ),
    Mutant(
        "a duplicate does not move the stamp",
        rule="P3",
        file="tables/program.py",
        old=r'code.add("stamps[partition] = offset\nrow.ver = ver\nis_fresh = True")',
        new=r'code.add("if is_first:\n    stamps[partition] = offset\nrow.ver = ver\nis_fresh = True")',
        caught_by=(_APPLY + "test_a_duplicate_moves_the_stamp", SIMULATION),
    ),
    Mutant(
        "a replay is not published again",
        rule="P5",
        file="tables/program.py",
        old=r'code.add(f"dirty{number}[key] = row\nstamps = row.stamps.get(origin)")',
        new='code.add(f"if offset > row.stamps.get(origin, {{}}).get(partition, -1):\\n    dirty{number}[key] = row")\n'
        '    code.add("stamps = row.stamps.get(origin)")',
        caught_by=(
            _APPLY + "test_a_replay_publishes_again_and_changes_nothing",
            "tests/unit/test_publish.py::test_a_replay_is_published_again",
            SIMULATION,
        ),
    ),
    Mutant(
        "nothing is taken for a duplicate",
        rule="P3",
        file="tables/apply.py",
        old="if seen is not None else [Verdict.FIRST]",
        new="if seen is not None and not pack.offsets else [Verdict.FIRST]",
        caught_by=(_APPLY + "test_every_event_counts_once_per_key", SIMULATION),
    ),
    Mutant(
        "a replayed id is taken for a duplicate",
        rule="P3",
        file="core/dedupe.py",
        old="elif known[0] == position:",
        new="elif known[0] == position < 0:",
        caught_by=(
            _DEDUPE + "test_a_replay_enters_again",
            _DEDUPE + "test_a_full_memory_refuses_new_ids",
            _DEDUPE + "test_every_verdict_is_that_of_a_plain_dict",
        ),
    ),
    Mutant(
        "ids are forgotten by the time of other partitions",
        rule="P3",
        file="core/dedupe.py",
        old="return self._clocks[entry[0] >> OFFSET_BITS] - entry[1] <= SLICES",
        new="return max(self._clocks.values()) - entry[1] <= SLICES",
        caught_by=(_DEDUPE + "test_every_verdict_is_that_of_a_plain_dict",),
    ),
    Mutant(
        "a topic that was made anew has the positions of the old one",
        rule="P3",
        file="core/dedupe.py",
        old="return [base ^ offset for offset in offsets]",
        new="return [base >> OFFSET_BITS << OFFSET_BITS | offset for offset in offsets]",
        caught_by=(_APPLY + "test_a_topic_that_is_made_anew_and_filled_again_counts_once",),
    ),
    Mutant(
        "versions are of the clock",
        rule="P2",
        file="tables/apply.py",
        old="version(table.epoch, offset)",
        new='version(table.epoch, __import__("time").time_ns() // 1_000_000)',
        caught_by=(
            _APPLY + "test_a_version_is_the_place_of_the_last_applied_pack",
            _APPLY + "test_two_owners_of_one_prefix_have_the_same_bytes",
        ),
    ),
    Mutant(
        "an event at a boundary is put into the tile before it",
        rule="Time",
        file="tables/program.py",
        old='code.add(f"i{tile_ms} = time_ms // {tile_ms}")',
        new='code.add(f"i{tile_ms} = (time_ms - 1) // {tile_ms}")',
        caught_by=(
            _APPLY + "test_late_tiles_are_dropped_only_when_they_are_past",
            "tests/unit/test_decay.py::test_every_edge_of_the_window_is_where_the_oracle_has_it",
        ),
    ),
    Mutant(
        "a window begins one tile late",
        rule="Time",
        file="core/windows.py",
        old="return (instant_ms - self.size_ms) // self.tile_ms if self.tile_ms else 0",
        new="return (instant_ms - self.size_ms) // self.tile_ms + 1 if self.tile_ms else 0",
        caught_by=(
            "tests/unit/test_windows.py::test_a_window_holds_its_whole_size_and_at_most_one_tile_more",
            "tests/unit/test_tiles.py::test_every_window_is_the_naive_loop_over_raw_events",
        ),
    ),
    Mutant(
        "a window begins one tile early",
        rule="Time",
        file="core/tiles.py",
        old='code.add(f"first = (instant_ms - {window.size_ms}) // {window.tile_ms}")',
        new='code.add(f"first = (instant_ms - {window.size_ms}) // {window.tile_ms} - 1")',
        caught_by=("tests/unit/test_tiles.py::test_every_window_is_the_naive_loop_over_raw_events",),
    ),
    Mutant(
        "a tile leaves its window one tile late",
        rule="Time",
        file="core/windows.py",
        old="return (tile + 1) * self.tile_ms + self.size_ms if self.tile_ms else NEVER_MS",
        new="return (tile + 2) * self.tile_ms + self.size_ms if self.tile_ms else NEVER_MS",
        caught_by=(
            "tests/unit/test_windows.py::test_a_tile_leaves_at_the_first_instant_without_it",
            "tests/unit/test_tiles.py::test_a_head_is_right_until_it_says_it_is_not",
        ),
    ),
    Mutant(
        "tiles are dropped while a window still needs them",
        rule="Time",
        file="core/plans.py",
        old="return (instant_ms - self.size_max_ms) // self.tile_ms - 1 if self.tile_ms else 0",
        new="return (instant_ms - self.size_max_ms) // self.tile_ms + 1 if self.tile_ms else 0",
        caught_by=(_APPLY + "test_late_tiles_are_dropped_only_when_they_are_past",),
    ),
    Mutant(
        "a row that cools down is lost",
        rule="P2",
        file="tables/table.py",
        old="        self._cold.update(cooled)",
        new="        pass",
        caught_by=(_APPLY + "test_crashes_lose_and_double_nothing", SIMULATION),
    ),
    Mutant(
        "a row cools down while it is dirty",
        rule="P2",
        file="tables/table.py",
        old="if key in self.dirty or row.packed is None:",
        new="if row.packed is None:",
        caught_by=(_APPLY + "test_rows_cool_down_beyond_a_bound_and_dirty_ones_do_not",),
    ),
    Mutant(
        "groups on disk find the rows of others",
        rule="Keys",
        file="tables/disk.py",
        old='next(self._numbers).to_bytes(_PREFIX_BYTES, "big")',
        new="bytes(_PREFIX_BYTES)",
        caught_by=("tests/unit/test_disk.py::test_rows_on_disk_are_those_in_memory", SIMULATION),
    ),
    Mutant(
        "rows are removed while a window still needs them",
        rule="Keys",
        file="tables/expiry.py",
        old="resolution.size_max_ms + 2 * resolution.tile_ms",
        new="resolution.size_max_ms - 2 * resolution.tile_ms",
        caught_by=("tests/unit/test_removal.py::test_no_served_number_tells_whether_rows_were_removed",),
    ),
    Mutant(
        "a producer whose clock is ahead removes everybody's rows",
        rule="Keys",
        file="tables/remove.py",
        old="progress_ms = min(table.as_of_ms, now_ms)",
        new="progress_ms = table.as_of_ms",
        caught_by=("tests/unit/test_removal.py::test_the_clock_only_holds_back",),
    ),
)
