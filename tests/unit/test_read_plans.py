"""Read plans: which of them a worker remembers."""

from itertools import islice, permutations

from serving.answers.read_plans import Planner
from tests.clock import ManualClock
from tests.serving_kit import ServingKit

PLANS_MAX = 1_000


def test_the_plan_of_a_shape_that_is_asked_for_all_the_time_is_not_made_again():
    """
    The model's own request was the first one of the day; a thousand others, each asked once, drove it out, and what was
    prepared for it had to be prepared again.
    """
    kit = ServingKit(ManualClock())
    planner = Planner(kit.registry, kit.plans, kit.numbers)
    names = [f"{group}:{feature.name}" for group, plan in kit.plans.items() for feature in plan.features]
    first = planner.plan(features=names[:1], service=None, full_names=True)

    for two in islice(permutations(names, 2), PLANS_MAX + 10):
        planner.plan(features=list(two), service=None, full_names=True)
        assert planner.plan(features=names[:1], service=None, full_names=True) is first
