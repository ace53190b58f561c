"""The worker's HTTP edge under fire, in a short form of ``make fuzz-http``."""

import asyncio

import pytest

from bench.serving.domain import REGISTRY
from tests.acceptance.conftest import http, until
from tests.edge.cancelled import cancel_requests
from tests.edge.schema import ask_as_described
from tests.edge.slow import dribble
from tests.edge.sockets import send_bytes
from tests.edge.worker import open_worker, port_of

SEED = 17


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    with open_worker(tmp_path_factory.mktemp("edge")) as opened:
        yield opened
        assert opened.is_alive
        assert "Traceback" not in opened.log.read_text()


def test_bytes_that_are_no_request_are_answered_or_cut_off(worker):
    """
    Scanners, broken clients and proxies send all of it; none may cost the worker a trace or a connection for ever.
    """
    found = asyncio.run(send_bytes(port_of(worker), 1_500, SEED))

    assert (found.cases, found.errors, found.hangs, found.findings) == (1_500, 0, 0, [])
    assert found.statuses[200] > 50
    assert found.statuses[400] > 50


def test_requests_that_fit_the_description_get_answers_that_fit_it(worker):
    """
    Clients are generated from it.
    """
    found = ask_as_described(worker.base_url, 300, SEED)

    assert (found.errors, found.hangs, found.undescribed, found.findings) == (0, 0, 0, [])
    assert found.never_right == []
    assert found.cases >= 300


def test_no_answer_goes_to_another_request_when_clients_go_away(worker):
    """
    A value of another user is worse than none.
    """
    found = asyncio.run(cancel_requests(port_of(worker), 2_000, SEED))

    assert (found.foreign, dict(found.failed)) == (0, {})
    assert found.answered > 1_000


def test_canaries_tell_how_long_an_event_takes(worker):
    """
    From the worker through Kafka and all stores to a read, for each group that the event touches.
    """

    def seen() -> bool:
        text = http(f"{worker.base_url}/metrics")[1]
        return all(f'freshet_freshness_seconds_count{{group="{group.name}"}}' in text for group in REGISTRY.groups)

    until(seen, "every group has a canary")


def test_connections_that_dribble_are_closed(worker):
    """
    Each costs a buffer, and a thousand of them must not cost anybody else's answers.
    """
    found = asyncio.run(dribble(port_of(worker), 50, 2.0))

    assert found.closed_s < 15
