"""The torture in short, with every run of the tests: kills alone, at failpoints and at random."""

import pytest

from tests.chaos.torture import Targets, torture

KILLS, EVENTS, FAILPOINTS = 11, 30_000, 6


@pytest.fixture
def targets():
    return Targets(
        kills=KILLS,
        faults=0,
        minutes=0,
        events=EVENTS,
        seed=1,
        workers=2,
        brokers=1,
        quiet_share=0,
        pause_s=(0.5, 2.0),
        events_per_s=1_500,
    )


def test_workers_that_are_killed_lose_nothing_and_count_nothing_twice(targets, tmp_path):
    """
    Machines die, and orchestrators kill what uses too much memory; models that read features must not notice.
    """
    findings, line = torture(targets, tmp_path)

    assert (findings.told, findings.is_exact) == ([], True), line
    assert findings.kills >= KILLS
    assert len(findings.failpoints) >= FAILPOINTS, line
