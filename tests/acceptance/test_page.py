"""The page in a real browser, on a running worker: found, linked, explained, safe, and usable without a mouse."""

import json
import re
from contextlib import contextmanager
from itertools import count

import pytest
from playwright.sync_api import Page, expect

from app.worker_process import start_worker
from core.access import Scope, new_key
from tests.acceptance.browser import open_browser
from tests.acceptance.conftest import environment_of, free_port, http, read_values, until
from tests.acceptance.kafka import now_ms

DEADLINE_MS = 20_000
HOSTILE = '<img src=x onerror="document.title=1">'
ASKED = "offers%3Aseen_per_price"
_ids = count(1)
expect.set_options(timeout=DEADLINE_MS)


def impression(user: int, **more: object) -> bytes:
    fields = {"event_id": f"page-{next(_ids)}", "time_ms": now_ms(), "user_id": user, "video_id": 7, "tab": 1}
    return json.dumps({**fields, "watch_ms": 2_000, "duration_ms": 4_000, **more}).encode()


@pytest.fixture(scope="module")
def browser():
    with open_browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def worker(services):
    """One worker of all roles, which has features that are made on demand, too."""
    with running(services, "all") as started:
        yield started


@contextmanager
def running(services, role, **more):
    started = start_worker(
        {**environment_of(services, role), "FRESHET_REGISTRY": "tests.on_demand_kit:REGISTRY", **more},
        web_port=free_port(),
        log=services.directory / f"{role}.log",
    )
    try:
        started.wait_ready()
        yield started
    finally:
        started.stop()


@pytest.fixture(scope="module", autouse=True)
def _events(worker, sender):
    """Three impressions of user 501, one of them 40 minutes ago, and two events that cannot be used."""
    old_ms = now_ms() - 40 * 60_000
    sender.send("impressions", impression(501), impression(501), impression(501, time_ms=old_ms), b"<xml/>")
    sender.send("impressions", impression(501, time_ms=now_ms() + 600_000))
    until(
        lambda: read_values(worker.base_url, {"user_id": [501]}, "user_engagement:impressions_1h") == [[3]],
        "the events are read",
    )


class Seen:
    """A page, and everything that it complained of or asked of anybody else."""

    def __init__(self, page: Page, base_url: str) -> None:
        self.page = page
        self.base_url = base_url
        self.errors: list[str] = []
        self.foreign: list[str] = []
        page.set_default_timeout(DEADLINE_MS)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda message: message.type == "error" and self.errors.append(message.text))
        page.on("request", lambda request: request.url.startswith(base_url) or self.foreign.append(request.url))

    def open(self, place: str) -> Page:
        self.page.goto(f"{self.base_url}{place}")
        return self.page


@pytest.fixture
def seen(browser, worker):
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    seen = Seen(context.new_page(), worker.base_url)
    yield seen
    context.close()
    assert (seen.errors, seen.foreign) == ([], [])


def test_the_catalogue_is_searched_from_the_keyboard(seen):
    """
    An engineer who looks for a feature types what it means, and finds its owner.
    """
    page = seen.open("/")
    expect(page.get_by_role("heading", name="user_engagement")).to_be_visible()

    page.keyboard.press("/")
    page.keyboard.type("videos shown")

    expect(page.get_by_role("status")).to_contain_text("3 features in 1 group")
    expect(page.locator(".group")).to_contain_text("home-feed")
    page.get_by_role("searchbox").fill("no such thing")
    expect(page.get_by_text("Nothing matches")).to_be_visible()


def test_an_entity_is_looked_up_and_its_number_explained_as_tiles(seen):
    """
    A service team asks "why 3?" and sees which slices of time the three are in, and where now is.
    """
    page = seen.open("/#/entity")
    page.get_by_label("user_id").fill("501")
    page.keyboard.press("Enter")
    row = page.get_by_role("row", name=re.compile("impressions_1h"))
    expect(row).to_contain_text("3")
    expect(row).to_contain_text("PRESENT")

    row.get_by_role("link").click()

    panel = page.get_by_label("Explanation", exact=True)
    expect(panel.get_by_role("heading", name="user_engagement:impressions_1h")).to_be_visible()
    expect(panel.locator(".bar.in")).not_to_have_count(0)
    expect(panel.locator("line.now")).to_have_count(1)
    expect(panel).to_contain_text("owner")
    expect(panel).to_contain_text("freshet.user/")
    expect(panel.locator(".facts")).to_contain_text("newest event")
    expect(panel.locator(".facts")).to_contain_text(
        re.compile("tier(local copy|remote \\(redis\\)|record \\(sqlite\\)), read")
    )
    assert page.url.endswith("#/entity/user/501?feature=user_engagement%3Aimpressions_1h")
    first = panel.locator("figcaption").inner_text()
    panel.locator(".bar[tabindex='0']").focus()
    page.keyboard.press("ArrowLeft")
    expect(panel.locator("figcaption")).to_contain_text("impressions")
    assert panel.locator("figcaption").inner_text() != first


def test_a_window_that_begins_on_another_day_says_both_days_and_why_it_is_longer(seen):
    """
    "11-29 06:00 to 08:00" read as two hours; it was 26, of a feature of one day.
    """
    page = seen.open("/#/entity/user/501?feature=user_engagement%3Aimpressions_1d")

    told = page.get_by_label("Explanation", exact=True).locator("figcaption")
    expect(told).to_have_text(
        re.compile(
            r"^In the window: \d\d-\d\d \d\d:00 . \d\d-\d\d \d\d:00 UTC; whole tiles, so up to 2 h more than 1 d$"
        )
    )


def ask_until(page: Page, value: str) -> None:
    """Ask again until a function is done within its deadline: a machine that is busy misses some."""
    answered = page.get_by_label("Explanation", exact=True).locator(".big")

    def is_told() -> bool:
        expect(answered).to_be_visible()
        if answered.inner_text() == value:
            return True
        with page.expect_response("**/explain?**"):
            page.get_by_role("button", name="Look up").click()
        return False

    until(is_told, f"{value} is told")


def test_what_is_made_on_demand_is_found_asked_for_and_explained(seen):
    """
    Whoever owns the offer page asks what a function was given, by hand, and sees which tiles its input is made of.
    """
    page = seen.open("/")
    page.get_by_role("searchbox").fill("price that is offered")
    group = page.locator(".group")
    expect(group).to_contain_text("deadline2.0 s")
    expect(group).to_contain_text("in processes of this worker, 2 of them")
    expect(group).to_contain_text("of user_id int, price float")
    group.get_by_role("link", name="seen_per_price").click()
    page.get_by_label("user_id").fill("501")
    page.get_by_label("price").fill("6")
    page.keyboard.press("Enter")

    ask_until(page, "0.5")
    panel = page.get_by_label("Explanation", exact=True)
    expect(panel).to_contain_text("PRESENT")
    expect(panel).to_contain_text("none: computed for this answer")
    expect(panel.get_by_role("row", name=re.compile("^seen"))).to_contain_text("user_engagement:impressions_1h")
    expect(panel.get_by_role("row", name=re.compile("^price"))).to_contain_text("the request")
    stored = page.get_by_label("Inputs", exact=True)
    expect(stored.locator(".big")).to_have_text("3")
    expect(stored.locator(".bar.in")).not_to_have_count(0)
    expect(stored.locator(".facts")).to_contain_text("tier")
    assert page.url.endswith(f"#/ask/{ASKED}?user_id=501&price=6")
    page.get_by_label("price").fill("six")
    page.keyboard.press("Enter")
    expect(page.get_by_text("price: expected float, got 'six'")).to_be_visible()
    # The browser tells of each answer that is no 200.
    seen.errors.clear()


def test_a_source_is_asked_only_if_somebody_wants_it(seen):
    """
    A register of debtors counts who asks it: to look at a user's clicks must not ask it.
    """
    asked = []
    seen.page.on("request", lambda request: asked.append(request.url))
    page = seen.open("/#/entity/user/501")
    link = page.get_by_role("link", name="score")
    expect(link).to_be_visible()
    assert not [url for url in asked if "risk" in url]

    link.click()

    ask_until(page, "50.1")
    expect(page.get_by_label("Explanation", exact=True)).to_contain_text("none: fetched for this answer")


def test_a_link_shows_what_its_sender_saw(seen):
    """
    An operator sends an address into a chat at night; whoever opens it sees the same feature of the same user.
    """
    page = seen.open("/#/entity/user/501?feature=user_taste%3Atab")

    panel = page.get_by_label("Explanation", exact=True)
    expect(panel.get_by_role("heading")).to_have_text("user_taste:tab")
    expect(panel.locator(".big")).to_have_text("1")
    page.goto(f"{seen.base_url}/#/group/video_quality")
    expect(page.get_by_role("heading", name="video_quality", exact=True)).to_be_visible()


def test_live_figures_tell_dead_letters_with_reasons(seen, sender):
    """
    At three in the morning the first question is whether events come in, the second what happens to those that do not.
    """
    page = seen.open("/#/live")

    expect(page.get_by_role("region", name="Dead letters")).to_contain_text("malformed")
    expect(page.get_by_role("region", name="Dead letters")).to_contain_text("future")
    events = page.get_by_role("row", name=re.compile("^impressions")).last
    before = int(events.get_by_role("cell").first.inner_text().replace(",", ""))
    sender.send("impressions", impression(502))
    expect(events.get_by_role("cell").first).to_have_text(str(before + 1))
    expect(page.locator("#health")).to_contain_text("reading")


def test_a_quiet_source_is_told_from_a_worker_that_is_behind(seen):
    """
    "Freshness 50 s" on a healthy worker frightened whoever had just read that events take 68 ms to readers.
    """
    page = seen.open("/#/live")
    newest = page.locator(".figure", has_text="Newest record")
    expect(newest).to_contain_text("quiet: nothing waits here")

    def fall_behind(route):
        told = route.fetch().json()
        told["ingest"]["lag"] = 7
        route.fulfill(json=told)

    seen.page.route("**/console/figures", fall_behind)

    expect(newest).to_contain_text("newer ones wait")
    expect(page.locator(".figures")).not_to_contain_text("Freshness")


def test_the_title_of_a_window_names_the_page(seen):
    """
    An operator has five of them open; all were called Freshet.
    """
    for place, title in [
        ("/", "Catalogue · Freshet"),
        ("/#/group/video_quality", "video_quality · Catalogue · Freshet"),
        ("/#/entity/user/501?feature=user_taste%3Atab", "user 501 · Look-up · Freshet"),
        ("/#/ask/offers%3Aseen_per_price", "offers:seen_per_price · Look-up · Freshet"),
        ("/#/live", "Live · Freshet"),
        ("/docs", "API · Freshet"),
        ("/#/nowhere", "Freshet"),
    ]:
        expect(seen.open(place)).to_have_title(title)


@pytest.mark.parametrize(
    "place",
    [f"/#/entity/user/{HOSTILE}", f"/#/group/{HOSTILE}", f"/#/entity/{HOSTILE}/1", f"/#/ask/{HOSTILE}?user_id=1"],
)
def test_a_hostile_address_is_text(seen, place):
    """
    A link with markup in it, sent to an operator, must not run as them.
    """
    page = seen.open(place.replace("<", "%3C").replace(">", "%3E").replace('"', "%22").replace(" ", "%20"))

    expect(page.get_by_text(HOSTILE).first).to_be_visible()
    assert page.locator("img").count() == 0
    assert HOSTILE in page.title()


def test_what_is_served_is_text(seen):
    """
    Keys and values come from events, and anybody may send events: none of them is ever markup.
    """

    def poison(route):
        content = json.dumps(route.fetch().json())
        route.fulfill(body=content.replace("home-feed", HOSTILE.replace('"', '\\"')), content_type="application/json")

    seen.page.route("**/console/catalogue", poison)
    seen.page.route("**/explain?**", poison)
    page = seen.open("/#/entity/user/501?feature=user_engagement%3Actr_1h")

    expect(page.get_by_label("Explanation", exact=True)).to_contain_text(HOSTILE)
    assert page.locator("img").count() == 0


def test_markup_cannot_be_made_even_by_a_mistake_of_ours(seen):
    """
    The policy is the second wall: should a future change write HTML, the browser refuses it.
    """
    page = seen.open("/")
    expect(page.get_by_role("heading", name="user_engagement")).to_be_visible()

    refused = page.evaluate(
        "() => { try { document.body.innerHTML = '<b>x</b>'; return '' } catch (e) { return e.name } }"
    )

    assert refused == "TypeError"
    seen.errors.clear()


def test_mistakes_and_emptiness_say_what_to_do(seen):
    """
    A key that nobody has, a key of the wrong type and a place that does not exist are three different answers.
    """
    for place, text in [
        ("/#/entity", "Whose features?"),
        ("/#/entity/user/999999", "Nothing is stored for this key"),
        ("/#/entity/user/abc", "Not such a key"),
        ("/#/entity/user_tab/1", "A part of the key is missing"),
        ("/#/ask/offers%3Aseen_per_price", "Of what?"),
        ("/#/ask/offers%3Aseen_per_price?user_id=1", "Something is missing"),
        ("/#/ask/offers%3Anothing", "No such feature"),
        ("/#/made/nothing", "Not in the catalogue"),
        ("/#/nowhere", "There is no such place"),
    ]:
        page = seen.open(place)
        expect(page.get_by_role("heading", name=text)).to_be_visible()


def test_a_worker_that_does_not_answer_is_told_and_found_again(seen):
    """
    Figures of a minute ago that look like now are worse than none.
    """
    page = seen.open("/#/live")
    expect(page.locator("#health")).to_contain_text("reading")

    seen.page.route("**/console/figures", lambda route: route.abort())
    expect(page.get_by_role("heading", name="The worker gives no answer")).to_be_visible()
    expect(page.locator("#health")).to_contain_text("no answer since")
    seen.page.unroute("**/console/figures")

    expect(page.locator("#health")).to_contain_text("reading")
    expect(page.get_by_role("heading", name="The worker gives no answer")).to_have_count(0)
    seen.errors.clear()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (400, "light"), (400, "dark")])
def test_nothing_runs_out_of_the_window(browser, worker, width, scheme):
    """
    On a telephone as on a laptop, by day as by night: nothing is cut off at the side.
    """
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    seen = Seen(context.new_page(), worker.base_url)
    for place, text in [
        ("/#/", "user_engagement"),
        ("/#/entity/user/501?feature=user_engagement%3Aimpressions_1h", "Close"),
        ("/#/made/offers", "price that is offered"),
        (f"/#/ask/{ASKED}?user_id=501&price=6", "the request"),
        ("/#/live", "Sources"),
        ("/docs", "/explain"),
    ]:
        page = seen.open(place)
        expect(page.get_by_text(text).first).to_be_attached()
        expect(page.locator("main .notice.bad")).to_have_count(0)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, place
    ground = seen.page.evaluate("getComputedStyle(document.body).backgroundColor")
    context.close()

    assert (ground == "rgb(15, 21, 22)") == (scheme == "dark")
    assert (seen.errors, seen.foreign) == ([], [])


def test_the_description_is_drawn_for_people(seen):
    """
    Whoever writes a client reads what a route takes and answers without a tool from elsewhere.
    """
    page = seen.open("/docs")

    section = page.locator("#get_explain")
    expect(section).to_be_attached()
    before, after = (page.locator(place).first.bounding_box() for place in ("h1 + .note", "section.group"))
    assert after["y"] - before["y"] - before["height"] >= 20, "the first route sticks to what is said before"
    expect(section).to_contain_text("Why one served number is what it is")
    section.get_by_role("link", name="AnyExplanation").click()
    either = page.locator("#AnyExplanation")
    expect(either).to_be_in_viewport()
    either.get_by_role("link", name="OnDemandExplanation").click()
    expect(page.locator("#OnDemandExplanation")).to_be_in_viewport()


def test_the_page_asks_for_no_inline_script_and_nothing_of_others(worker):
    """
    What the policy says is what the files keep to, whatever a browser would let pass.
    """
    status, html = http(f"{worker.base_url}/")
    assert status == 200
    assert re.findall(r"<script(?![^>]* src=)|style=|\son\w+=|https?://", html) == []
    assert http(f"{worker.base_url}/page/../http.py")[0] == 404
    assert http(f"{worker.base_url}/page/nothing.js")[0] == 404


def test_a_worker_that_only_serves_shows_no_zeros_of_ingestion(browser, services):
    """
    Whoever opens the page of another worker than the one they meant would take them for news.
    """
    with running(services, "ondemand") as started:
        context = browser.new_context()
        seen = Seen(context.new_page(), started.base_url)
        page = seen.open("/#/live")
        expect(page.locator("#health")).to_have_text("serving, on demand too")
        expect(page.locator("main")).to_contain_text("workers of other roles do")
        expect(page.locator("main")).not_to_contain_text("Dead letters")
        page.goto(f"{seen.base_url}/#/ask/{ASKED}?user_id=501&price=6")
        ask_until(page, "0.5")
        expect(page.get_by_label("Inputs", exact=True)).to_contain_text("remote (redis)")
        page.goto(f"{seen.base_url}/#/live")
        expect(page.get_by_role("row", name=re.compile("^offers:seen_per_price"))).to_be_visible()
        context.close()
    assert (seen.errors, seen.foreign) == ([], [])


def test_behind_keys_the_page_works_with_a_key_as_the_password(browser, services):
    """
    A worker that others can reach wants a key; a browser asks for a password once, and everything on the page follows.
    """
    key, configured = new_key("operator", [Scope.READ], None)
    with running(services, "serving", FRESHET_API_KEYS=configured.line) as started:
        assert http(f"{started.base_url}/")[0] == 401
        context = browser.new_context(http_credentials={"username": "operator", "password": key})
        behind = Seen(context.new_page(), started.base_url)
        page = behind.open("/#/entity/user/501?feature=user_engagement%3Aimpressions_1h")

        expect(page.get_by_label("Explanation", exact=True).locator(".big")).to_have_text("3")
        page.goto(f"{behind.base_url}/#/live")
        expect(page.locator("#health")).to_have_text("serving")
        expect(page.locator("main")).to_contain_text("workers of other roles do")
        expect(page.locator("main")).not_to_contain_text("Dead letters")
        page.goto(f"{behind.base_url}/#/ask/{ASKED}?user_id=501&price=6")
        expect(page.get_by_role("heading", name="This worker runs no functions")).to_be_visible()
        context.close()
        assert (behind.errors, behind.foreign) == ([], [])
