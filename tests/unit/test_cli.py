"""The command line: what a user sees, above all when something is wrong."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import pytest
from rich.console import Console
from typer.main import get_command

from app.cli import cli, main
from app.settings import Settings, load_settings
from core.access import find_key
from core.plans import plan_group
from features import REGISTRY

FRESHET = Path(sys.executable).with_name("freshet")
ROOT = Path(__file__).parents[2]

BROKEN = """
from pydantic import BaseModel
from core.definitions import Count, Entity, FeatureGroup, FeatureService, Ratio, Registry, Source, Sum, aggregate, col
from core.windows import hours, minutes

class Play(BaseModel):
    time_ms: int
    user_id: int
    kind: str

PLAYS = Source("plays", Play, event_time="when", event_id=None)
GROUP = FeatureGroup("engagement", entity=Entity("user", keys=("user_id",)), owner="feed", features=(
    aggregate("plays", PLAYS, Count(), over=(hours(1),), where=col("knid") == "x"),
    aggregate("sum", PLAYS, Sum(col("kind")), over=(hours(1),)),
    aggregate("brief", PLAYS, Count(), over=(minutes(1),)),
    Ratio("rate", "plays", "nothing", over=(hours(1),)),
))
REGISTRY = Registry(groups=(GROUP,), services=(FeatureService("feed", features=("engagement:plais_1h",)),))
"""


class Ran(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Run the command in a directory of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in Settings.model_fields:
        monkeypatch.delenv(f"FRESHET_{name.upper()}", raising=False)

    def run(*arguments: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["freshet", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code
        return Ran(code if isinstance(code, int) else 0, *capsys.readouterr())

    return run


def test_help_names_every_command(run):
    """
    Somebody who types the name alone, or asks for help, learns what there is.
    """
    asked, bare = run("--help"), run()

    assert asked.code == 0
    for text in (asked.out, bare.out + bare.err):
        assert all(name in text for name in ("demo", "check", "features", "apply", "send", "dead-letters", "keys"))


def test_check_passes_good_definitions(run):
    """
    The definitions that are shipped have no problem, and the command says how many it looked at.
    """
    ran = run("check")

    assert ran.code == 0
    assert f"{len(REGISTRY.groups)} groups" in ran.out
    assert "no errors" in ran.out


def test_check_counts_what_is_made_on_demand(run):
    """
    Whoever has just written a function wants to see that it was looked at.
    """
    stored = sum(len(plan_group(group).features) for group in REGISTRY.groups)

    ran = run("check", "--registry", "tests.on_demand_kit:REGISTRY")

    assert f"{stored} features, 15 on demand, 3 services: no errors" in ran.out


def test_check_tells_every_problem_with_file_place_and_remedy(run, tmp_path):
    """
    A user mends all of it in one go: each line names the file, the place, the reason and what to do.
    """
    (tmp_path / "broken_shop.py").write_text(BROKEN)

    ran = run("check", "--registry", "broken_shop:REGISTRY")

    lines = [line for line in ran.out.splitlines() if line.startswith("error: ")]
    assert ran.code == 1
    assert all(str(tmp_path / "broken_shop.py") in line for line in lines)
    for place, word in (
        ("source plays", "when"),
        ("feature plays", "knid"),
        ("feature sum", "kind"),
        ("feature brief", "5 minutes"),
        ("feature rate", "nothing"),
        ("service feed", "plais_1h"),
    ):
        assert any(place in line and word in line and ";" in line for line in lines), (place, word, ran.out)
    assert ran.out.splitlines()[-1].startswith(f"{len(lines)} errors")


def test_check_reads_the_registry_of_the_environment_too(run, tmp_path, monkeypatch):
    """
    What a worker would run is what is checked, without naming it twice.
    """
    (tmp_path / "broken_store.py").write_text(BROKEN)
    monkeypatch.setenv("FRESHET_REGISTRY", "broken_store:REGISTRY")

    assert run("check").code == 1


def test_features_are_listed(run):
    """
    A newcomer finds what there is, what it means and whose it is; as a table, or for a program.
    """
    table = run("features", "user_taste")
    listed = run("features", "--json")

    entries = [json.loads(line) for line in listed.out.splitlines()]
    assert table.code == listed.code == 0
    assert "user_taste:last_videos_7d" in table.out
    assert "by user_id; owner home-feed" in table.out
    assert "user_engagement" not in table.out
    assert {entry["group"] for entry in entries} == {group.name for group in REGISTRY.groups}
    ctr = next(entry for entry in entries if (entry["group"], entry["feature"]) == ("user_engagement", "ctr_1h"))
    assert (ctr["value_type"], ctr["owner"]) == ("float", "home-feed")


def test_the_list_of_features_is_whole_in_eighty_columns(run, monkeypatch):
    """
    What a feature means was cut off where the terminal ended, and no key was named to read it by.
    """
    monkeypatch.setattr("app.cli.out", Console(width=80))

    listed = run("features", "user_tab_engagement").out

    assert "by user_id, tab; owner home-feed" in listed
    assert "…" not in listed
    words = "".join(listed.split())
    assert all(part in words for part in ("Sum((watch_ms", "LastN(video_id,", "user_tab_engagement:last_videos_1d"))
    assert max(map(len, listed.splitlines())) <= 80


def test_windows_of_a_feature_are_listed_together(run, monkeypatch):
    """
    What a feature means was told again for each of its windows, in a column so narrow that words were cut in two.
    """
    monkeypatch.setattr("app.cli.out", Console(width=80))

    listed = run("features", "video_popularity").out, run("features", "video_quality").out

    assert [line.split()[0] for line in listed[0].splitlines()[3:12]] == [
        f"video_popularity:{name}_{window}"
        for name in ("impressions", "clicks", "long_views")
        for window in ("5m", "1h", "1d")
    ]
    assert listed[0].count("where") == 1
    assert "Latest(duration_ms)" in listed[1]


def test_what_a_feature_means_is_told_before_how_it_is_computed(run):
    """
    The list promises meanings, and had formulas alone: what their owners had written was nowhere on it.
    """
    lines = [line.rstrip() for line in run("features", "user_engagement").out.splitlines()]

    told = next(place for place, line in enumerate(lines) if "user_engagement:ctr_1h" in line)
    assert lines[told].endswith("Clicks per impression")
    assert lines[told + 1].endswith("clicks / impressions")


@pytest.mark.parametrize("page", ["settings", "aggregations"])
def test_a_page_of_the_reference_is_a_table_on_a_terminal(run, monkeypatch, page):
    """
    A line of Markdown with 200 characters is for a file; into one it goes as it stands in docs/reference.
    """
    written = run(page).out
    monkeypatch.setattr("app.cli.out", Console(width=80, force_terminal=True, no_color=True))

    shown = run(page).out

    assert written == (ROOT / f"docs/reference/{page}.md").read_text()
    assert not {"`", "|", "…"} & set(shown)
    assert len(shown.splitlines()) > 30
    assert max(map(len, re.sub(r"\x1b\[\d*m", "", shown).splitlines())) <= 80


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (["features", "user_tast"], {}, "there is no group 'user_tast'"),
        (["features"], {"FRESHET_REGISTRY": "nowhere:X"}, "No module named 'nowhere'"),
        (["check", "--registry", "features:X"], {}, "must be package.module:NAME of a Registry"),
        (["features"], {"FRESHET_WEB_PORT": "x", "FRESHET_ROLE": "x"}, "FRESHET_WEB_PORT"),
        (["send", "clicks", "{}", "--anyway"], {}, "nothing runs in this directory"),
        (["dead-letters"], {}, "nothing runs in this directory"),
        (["send", "no_topic", "{}"], {"FRESHET_BROKER": "127.0.0.1:1"}, "no group reads the topic 'no_topic'"),
        (["keys", "new", "--name", "Ran ker", "--scope", "read"], {}, "small letters, digits, - and _"),
        (["keys", "new", "--name", "x", "--scope", "read", "--last-day", "2020-01-01"], {}, "is past"),
        (["keys", "new", "--name", "x", "--scope", "read", "--last-day", "1.2.2030"], {}, "YYYY-MM-DD"),
        (["apply"], {}, "keeps nothing and applies by itself"),
        (["apply"], {"FRESHET_BROKER": "127.0.0.1:1"}, "FRESHET_REDIS"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(run, monkeypatch, arguments, environment, words):
    """
    A trace tells a user nothing; a sentence tells what is wrong and what to do.
    """
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    ran = run(*arguments)

    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("freshet: ")
    assert words in ran.err
    assert len(ran.err.splitlines()) == 1


def test_a_new_key_is_printed_once_beside_its_line_without_a_secret(run):
    """
    An operator hands the key out and configures the line; whoever sees the configuration has no key.
    """
    ran, again = (
        run("keys", "new", "--name", "ranker", "--scope", "read"),
        run("keys", "new", "--name", "ranker", "--scope", "read"),
    )

    told = dict(line.split(": ", 1) for line in ran.out.splitlines())
    key, line = told["key of ranker, shown this once"], told["line for FRESHET_API_KEYS"]
    configured = load_settings(api_keys=line).keys
    assert (ran.code, ran.out.count(key)) == (0, 1)
    assert find_key(configured, key) == configured[0]
    assert (configured[0].name, configured[0].scopes, configured[0].last_day) == ("ranker", {"read"}, None)
    assert again.out != ran.out


def test_events_that_would_be_buried_are_told_before_anything_is_sent(run):
    """
    Whoever tries an event by hand learns all that is wrong with it at once, not from a dead letter.
    """
    ran = run("send", "clicks", '{"event_id": "", "user_id": "x", "video_id": 1, "tab": 0}', "<xml/>")

    told = ran.err.replace("\n", "")
    assert (ran.code, ran.out) == (2, "")
    assert "nothing was sent" in told
    for words in ("event 1: event_id: ", "event 1: user_id: ", "event 2: value: ", "--anyway"):
        assert words in told


def test_apply_numbers_the_definitions_once(run, tmp_path, monkeypatch):
    """
    Applied twice, a meaning keeps its number: workers that serve it are not told another.
    """
    monkeypatch.setenv("FRESHET_BROKER", "127.0.0.1:1")
    monkeypatch.setenv("FRESHET_REDIS", "none")
    monkeypatch.setenv("FRESHET_RECORD", f"sqlite:///{tmp_path}/record.sqlite")

    first, second = run("apply"), run("apply")

    assert (first.code, second.code) == (0, 0)
    assert set(second.out.split()) == {f"{group.name}@v1" for group in REGISTRY.groups}
    assert first.out == "".join(f"{line}: new, its rows begin empty\n" for line in second.out.splitlines())


def test_the_installed_command_ends_without_a_trace(tmp_path):
    """
    The command as a user calls it, from a directory that has nothing to do with it, which it leaves as it was.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FRESHET_")}

    ran = subprocess.run(
        [FRESHET, "features", "nothing"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip

    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == "freshet: there is no group 'nothing'; `freshet features` lists all\n"
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_that_python_itself_finds_is_told_with_its_line(run, tmp_path):
    """
    A forgotten argument raises while definitions are loaded: without the line, a user would look through all of them.
    """
    (tmp_path / "raising_shop.py").write_text("from core.definitions import aggregate\n\naggregate('clicks')\n")

    ran = run("check", "--registry", "raising_shop:REGISTRY")

    assert ran.code == 2
    assert f"{tmp_path / 'raising_shop.py'}:3: aggregate needs source and aggregation" in ran.err.replace("\n", "")


def test_help_is_whole_and_plain_in_eighty_columns():
    """
    Help showed backticks, cut sentences and examples off, and named a type <bool> for what takes no value.
    """

    def helps(command: click.Command, *path: str) -> Iterator[str]:
        with click.Context(command, info_name=" ".join(path), terminal_width=80) as context:
            yield command.get_help(context)
        for name, one in getattr(command, "commands", {}).items():
            yield from helps(one, *path, name)

    texts = list(helps(get_command(cli), "freshet"))

    assert len(texts) > 25
    for text in texts:
        _, _, told = text.partition("\n")
        assert [mark for mark in ("`", "…", "...\n", "<bool>", "│") if mark in told] == []
        assert max(map(len, text.splitlines())) <= 80
