"""Under which name a worker is a member of its group."""

import pytest

from app.faust_app import member_name, new_app
from app.kafka.access import KafkaAccess
from app.settings import Settings


class _Nothing:
    """A worker that owns nothing."""

    async def settle(self):
        pass

    def given_away(self):
        pass

    async def take_over(self, committed, assigned):
        pass


def app(**given):
    return new_app(Settings(broker="127.0.0.1:1", **given), KafkaAccess(("127.0.0.1:1",)), ownership=_Nothing())


def test_workers_that_can_listen_side_by_side_have_names_of_their_own():
    """
    Two workers of one name fence each other, one dies, is restarted, and the other dies.
    """
    keys = f"ranker:read:-:{'0' * 64}"
    places = [("127.0.0.1", 6566), ("127.0.0.2", 6566), ("127.0.0.1", 6567), ("0.0.0.0", 6566)]

    names = [member_name(app(web_host=host, web_port=port, api_keys=keys)) for host, port in places]

    assert len(set(names)) == len(places)
    assert names[0] == member_name(app())


async def test_options_of_the_command_line_count():
    """
    `faust worker --web-port` is how Faust's users put two workers on a host.
    """

    async def opened():
        pass

    one, other = app(), app()
    for made in (one, other):
        made.open_platform = opened
    other.conf.web_port = 6567

    await one.on_first_start()
    await other.on_first_start()

    assert one.conf.consumer_group_instance_id.endswith("-127.0.0.1-6566")
    assert other.conf.consumer_group_instance_id.endswith("-127.0.0.1-6567")


@pytest.mark.parametrize(("given", "without_web", "name"), [
    ({"instance": "aggregator-0"}, False, "aggregator-0"),
    ({"instance": "aggregator-0"}, True, "aggregator-0"),
    ({}, True, None),
])  # fmt: skip
def test_a_worker_that_keeps_no_port_to_itself_has_the_name_that_it_was_given_or_none(given, without_web, name):
    """
    Nothing would keep another worker from having the same.
    """
    made = app(**given)
    made.conf.web_enabled = not without_web

    assert member_name(made) == name
