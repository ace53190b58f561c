"""Settings: every knob is an environment variable, and one that cannot be is named, without its value."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from pydantic import SecretStr

from app.endpoints import open_endpoints
from app.faust_app import new_app
from app.kafka.access import kafka_access
from app.settings import Role, Settings, load_settings
from app.wiring import Platform
from core.definitions import Registry
from core.errors import ConfigurationError
from features import REGISTRY

KEYS = f"ranker:read:-:{'0' * 64} feed:push,read:2030-12-31:{'1' * 64}"
GIVEN = {
    "role": ("aggregator", Role.AGGREGATOR),
    "registry": ("shop.features:ALL", "shop.features:ALL"),
    "broker": ("a:9092,b:9092", "a:9092,b:9092"),
    "broker_tls": ("true", True),
    "broker_ca": ("/etc/kafka/ca.pem", Path("/etc/kafka/ca.pem")),
    "broker_certificate": ("/etc/kafka/us.pem", Path("/etc/kafka/us.pem")),
    "broker_key": ("/etc/kafka/us.key", Path("/etc/kafka/us.key")),
    "broker_key_password": ("hunter2", SecretStr("hunter2")),
    "broker_sasl": ("SCRAM-SHA-512", "SCRAM-SHA-512"),
    "broker_user": ("freshet", "freshet"),
    "broker_password": ("hunter2", SecretStr("hunter2")),
    "replication": ("2", 2),
    "instance": ("aggregator-0", "aggregator-0"),
    "redis": ("redis://:hunter2@host:6379/1", SecretStr("redis://:hunter2@host:6379/1")),
    "redis_ca": ("/etc/ca.pem", Path("/etc/ca.pem")),
    "record": ("dynamodb://freshet?region=eu-central-1", "dynamodb://freshet?region=eu-central-1"),
    "api_keys": (KEYS, SecretStr(KEYS)),
    "api_key": ("freshet_hunter2", SecretStr("freshet_hunter2")),
    "web_host": ("::1", "::1"),
    "empty_lists": ("false", False),
    "web_port": ("7000", 7000),
    "share_port": ("false", False),
    "page_port": ("8577", 8577),
    "apply": ("false", False),
    "session_timeout_ms": ("10000", 10_000),
    "local_bytes_max": ("0", 0),
    "tables": ("disk", "disk"),
    "tables_dir": ("/var/lib/freshet/tables", Path("/var/lib/freshet/tables")),
    "tables_cache_bytes": ("1000000000", 1_000_000_000),
    "tables_live_rows": ("5000", 5_000),
    "reads_log": ("reads.csv", Path("reads.csv")),
    "reads_log_share": ("0.5", 0.5),
    "on_demand_processes": ("3", 3),
    "run_records_max": ("500", 500),
    "log_level": ("DEBUG", "DEBUG"),
    "exit_with_parent": ("true", True),
}


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch):
    for name in Settings.model_fields:
        monkeypatch.delenv(f"FRESHET_{name.upper()}", raising=False)


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_read_from_the_environment(monkeypatch, name):
    """
    An operator sets FRESHET_<NAME> and nothing else; a setting that is added is added here too.
    """
    text, expected = GIVEN[name]
    monkeypatch.setenv(f"FRESHET_{name.upper()}", text)

    assert getattr(load_settings(), name) == expected
    assert Settings.model_fields[name].description


def test_without_any_setting_everything_is_embedded():
    """
    A newcomer sets nothing: one worker of all roles with its own broker, on loopback.
    """
    settings = load_settings()

    assert (settings.role, settings.is_embedded, settings.record, settings.web_host) == (
        Role.ALL, True, "embedded", "127.0.0.1",
    )  # fmt: skip
    assert isinstance(settings.load_registry(), Registry)


def test_a_page_port_that_is_set_is_opened_whatever_the_other_is():
    """
    Set beside a port that browsers take, it opened nothing and nothing said so; unset, one is opened for browsers alone.
    """
    assert [load_settings().page_port_beside(port) for port in (6566, 7000)] == [8566, 0]
    assert [load_settings(page_port=8571).page_port_beside(port) for port in (6566, 7000)] == [8571, 8571]
    assert load_settings(page_port=0).page_port_beside(6566) == 0


def test_secrets_are_not_told():
    """
    A password in FRESHET_REDIS must not come into a log with the settings, nor into the refusal of them.
    """
    settings = load_settings(redis="redis://:hunter2@host:6379/1")
    with pytest.raises(ConfigurationError) as refused:
        load_settings(redis="http://:hunter2@host")

    endpoints = open_endpoints(load_settings(broker="b:9092", redis="redis://:hunter2@host", record="memory"), REGISTRY)

    assert "hunter2" in str(endpoints.redis_url)
    assert "hunter2" not in repr(settings) + str(settings) + settings.model_dump_json() + repr(endpoints)
    assert "hunter2" not in str(refused.value) + repr(refused.value)
    assert refused.value.__cause__ is None


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("web_host", "0.0.0.0", "nothing listens beyond loopback"),
        ("web_host", "::", "nothing listens beyond loopback"),
        ("api_keys", "freshet_hunter2", "key 1: 1 parts instead of name:scopes"),
        ("api_keys", f"ranker:write:-:{'0' * 64}", "a scope is read, push or admin"),
        ("web_host", "example.com", "IPv4 or IPv6"),
        ("web_port", "http", "valid integer"),
        ("web_port", "65536", "less than or equal to 65535"),
        ("web_port", "0", "greater than or equal to 1"),
        ("role", "server", "'all', 'dispatcher', 'aggregator', 'serving' or 'ondemand'"),
        ("record", "postgres://host/db", "sqlite:///path"),
        ("record", "dynamodb://freshet", "names no region"),
        ("record", "dynamodb://f?region=eu-central-1", "3 to 255 characters"),
        ("record", "dynamodb://freshet?region=Frankfurt", "like eu-central-1"),
        ("record", "dynamodb://freshet?region=eu-central-1&endpoint=http://me:s3cret@host", "no user or password"),
        ("record", "dynamodb://freshet?region=eu-central-1&table=other", "nothing else"),
        ("redis", "host:6379", "redis://host:port/db"),
        ("session_timeout_ms", "10", "greater than or equal to 6000"),
        ("run_records_max", "0", "greater than or equal to 1"),
        ("local_bytes_max", "-1", "greater than or equal to 0"),
        ("log_level", "LOUD", "'DEBUG', 'INFO', 'WARNING' or 'ERROR'"),
        ("apply", "maybe", "valid boolean"),
    ],
)
def test_a_setting_that_cannot_be_is_named_with_its_limit(monkeypatch, name, value, words):
    """
    The variable is told as the operator wrote it; a record of an unknown kind was memory once, without a word.
    """
    monkeypatch.setenv(f"FRESHET_{name.upper()}", value)

    with pytest.raises(ConfigurationError) as refused:
        load_settings()

    assert str(refused.value).startswith(f"FRESHET_{name.upper()}: ")
    assert words in str(refused.value)


def test_all_wrong_settings_are_told_at_once(monkeypatch):
    """
    Five starts for five mistakes are four too many.
    """
    monkeypatch.setenv("FRESHET_WEB_PORT", "x")
    monkeypatch.setenv("FRESHET_ROLE", "x")

    with pytest.raises(ConfigurationError, match=r"FRESHET_ROLE: .*; FRESHET_WEB_PORT: "):
        load_settings()


def test_a_worker_with_keys_may_listen_beyond_loopback():
    """
    In a container there is no other way; without a key nobody gets anything from it.
    """
    settings = load_settings(web_host="0.0.0.0", api_keys=KEYS)

    assert settings.web_host == "0.0.0.0"
    assert [key.name for key in settings.keys] == ["ranker", "feed"]


def test_a_key_that_was_configured_by_mistake_is_not_told():
    """
    Somebody who sets the key instead of its line must not find it in the log of every start.
    """
    with pytest.raises(ConfigurationError) as refused:
        load_settings(api_keys="freshet_hunter2", web_host="0.0.0.0")

    assert "hunter2" not in str(refused.value) + repr(refused.value)
    assert "FRESHET_WEB_HOST" not in str(refused.value)


@pytest.mark.parametrize(
    ("registry", "words"),
    [
        ("no_such_module:REGISTRY", "No module named 'no_such_module'"),
        ("features:NOTHING", "NOTHING"),
        ("features", "package.module:NAME"),
        (":REGISTRY", "package.module:NAME"),
        ("features.videos:GROUPS", "is a tuple, not a Registry"),
    ],
)
def test_a_registry_that_is_not_there_is_told(registry, words):
    """
    The most common mistake of a first start: the module is not on the path, or the name is another.
    """
    with pytest.raises(ConfigurationError) as refused:
        load_settings(registry=registry).load_registry()

    assert f"FRESHET_REGISTRY={registry}" in str(refused.value)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("role", "does"),
    [
        (Role.ALL, (True, True, True, True)),
        (Role.DISPATCHER, (True, False, False, False)),
        (Role.AGGREGATOR, (False, True, False, False)),
        (Role.SERVING, (False, False, True, False)),
        (Role.ONDEMAND, (False, False, True, True)),
    ],
)
def test_each_role_does_its_part(role, does):
    """
    Split roles together do what one worker does, and nothing twice.
    """
    assert (role.dispatches, role.aggregates, role.serves, role.computes) == does


@pytest.mark.parametrize(("host", "url"), [("127.0.0.1", "http://127.0.0.1:7000"), ("::1", "http://[::1]:7000")])
def test_a_worker_knows_its_url_at_every_kind_of_address(host, url):
    """
    A worker at ::1 ended with a trace: in a URL the colons of an address look like a port.
    """
    settings = load_settings(web_host=host, web_port=7000)

    assert settings.base_url == url
    assert str(new_app(settings, kafka_access(settings), ownership=None).conf.canonical_url) == url


@pytest.mark.parametrize("tables", ["memory", "disk"])
async def test_as_many_rows_stay_live_as_is_set_wherever_the_others_are(tables, tmp_path, monkeypatch):
    """
    Rows of an hour's tiles take ten times the memory when they are live: who has many groups must be able to bound it.
    """
    given = {"tables": tables, "tables_dir": str(tmp_path / "tables"), "tables_live_rows": "5"}
    for name, value in given.items():
        monkeypatch.setenv(f"FRESHET_{name.upper()}", value)
    platform = SimpleNamespace(settings=load_settings())
    platform.disk = Platform._tables_disk(platform)

    assert (await Platform._open_engine(platform)).live_rows_max == 5

    assert (platform.disk is not None) == (tables == "disk")
    if platform.disk is not None:
        platform.disk.close()
