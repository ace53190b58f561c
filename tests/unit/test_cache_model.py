"""The model of the tiers says of a log what the tiers would have done."""

from dataclasses import replace

import pytest

from core.definitions import ServingPolicy, WritePolicy
from core.windows import seconds
from serving.cache_model import Access, Sizes, run_model
from tests.serving_kit import REGISTRY

GROUP = REGISTRY.groups[0]
MUCH = 1 << 30


def read(time_s: float, key: str = "a") -> Access:
    return Access(int(time_s * 1000), "g", key, is_write=False, size=1_000)


def write(time_s: float, key: str = "a") -> Access:
    return Access(int(time_s * 1000), "g", key, is_write=True, size=1_000)


def tiers(*log, policy=None, writing=None, local=MUCH, redis=MUCH, workers=1):
    group = replace(
        GROUP,
        serving=policy or ServingPolicy(soft_ttl=seconds(30), hard_ttl=seconds(3_600)),
        writing=writing or WritePolicy.through(),
    )
    outcome = run_model({"g": group}, Sizes(local, redis, workers), log)
    return dict(outcome.tiers["g"]), outcome


def test_a_row_is_read_from_redis_once_and_then_from_a_copy_until_that_is_too_old():
    """
    What ``soft_ttl`` costs is the first thing that one wants to know.
    """
    found, outcome = tiers(write(0), read(1), read(2), read(31), read(32), read(33))

    assert found == {"redis": 2, "local": 3}
    assert outcome.ends == {"local": 1}


def test_each_change_ends_a_copy():
    """
    A group whose rows change all the time has no use for copies.
    """
    assert tiers(write(0), read(1), write(2), read(3), write(4), read(5))[0] == {"redis": 3}


def test_every_worker_has_a_copy_of_a_local_group_and_only_the_owners_ends_with_a_change():
    """
    What copies everywhere cost in memory, and save, is to be known before they are asked for.
    """
    policy = ServingPolicy(tier="local", soft_ttl=seconds(30), hard_ttl=seconds(3_600))
    log = [write(0), *(read(1 + number / 10) for number in range(40)), write(9)]
    log += [read(10 + number / 10) for number in range(40)]

    assert tiers(*log, policy=policy, workers=4)[0] == {"redis": 5, "local": 75}
    assert tiers(*log, workers=4)[0] == {"redis": 63, "local": 17}


def test_groups_that_are_read_together_meet_all_workers_alike():
    """
    With as many workers as groups in a request, all reads of one group met the owner, and none of the others.
    """
    groups = {name: replace(GROUP, serving=ServingPolicy(soft_ttl=seconds(3_600))) for name in "abcd"}
    log = [read(number / 1_000)._replace(group=name) for number in range(400) for name in groups]

    outcome = run_model(groups, Sizes(MUCH, MUCH, 4), log)

    shares = [outcome.tiers[name]["local"] / 400 for name in groups]
    assert all(0.2 < share < 0.3 for share in shares), shares


def test_what_redis_has_no_room_for_is_read_in_the_record():
    """
    Too small a Redis is a bill for the record.
    """
    log = [access for number in range(20) for access in (read(number, "a"), read(number, "b"), read(number, "c"))]

    assert tiers(*log, local=0, redis=2_500)[0] == {"record": 60}
    assert tiers(*log, local=0, redis=MUCH)[0] == {"record": 3, "redis": 57}


def test_a_row_in_redis_ends_with_hard_ttl():
    """
    What is written once a month is not there after a day.
    """
    found, outcome = tiers(write(0), read(3_599), read(3_601), read(3_602), local=0)

    assert found == {"redis": 2, "record": 1}
    assert outcome.ends == {"redis": 1}


@pytest.mark.parametrize(
    ("policy", "writing", "expected"),
    [
        (ServingPolicy(tier="direct"), None, {"record": 3}),
        (None, WritePolicy.around(), {"record": 1, "local": 2}),
    ],
)
def test_groups_that_pass_redis_by_are_read_in_the_record(policy, writing, expected):
    """
    Large and rare rows are not what Redis is for.
    """
    assert tiers(write(0), read(1), read(2), read(3), policy=policy, writing=writing)[0] == expected


def test_a_read_meets_the_owner_of_its_key_once_in_so_many_workers():
    """
    Four workers are not four times the copies.
    """
    found, _ = tiers(write(0), *(read(1 + number / 100) for number in range(400)), workers=4)

    assert found == {"local": 105, "redis": 295}


def test_memory_is_told_as_it_was_at_most():
    """
    What is bought must hold the evening, not the night.
    """
    _, outcome = tiers(write(0, "a"), write(0, "b"), read(1, "a"))

    assert (outcome.redis_peak, outcome.local_peak) == (2_200, 1_200)


def test_what_an_expiry_would_cost_without_sharing_is_told():
    """
    A hundred readers of one hot row wait for one load; that this matters is seen by what they would cost otherwise.
    """
    _, outcome = tiers(write(0), read(1), read(40), read(40.010), read(40.015), read(41))

    assert (outcome.ends, outcome.loads) == ({"local": 1}, {"local": 3})


def test_what_a_worker_would_serve_that_is_told_of_no_change_is_counted():
    """
    It is what ``soft_ttl`` is there for: the longer it is, the more a lost announcement costs.
    """
    log = [read(0), write(2), read(5), read(20), read(31), read(32)]

    _, short = tiers(*log)
    _, long = tiers(*log, policy=ServingPolicy(soft_ttl=seconds(300), hard_ttl=seconds(3_600)))

    assert short.untold == {3: 1, 18: 1}
    assert long.untold == {3: 1, 18: 1, 29: 1, 30: 1}
    assert short.ages == {15: 1, 26: 1, 27: 1}
