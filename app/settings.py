"""Settings: every knob of a worker, read from ``FRESHET_*`` in the environment, and nowhere else."""

import ipaddress
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from yarl import URL

from app.registry import load_registry
from core.access import ApiKey, parse_keys
from core.definitions import Registry
from core.errors import ConfigurationError
from stores.dynamodb_place import SCHEME, TablePlace
from tables.engine import LIVE_ROWS_MAX

EMBEDDED = "embedded"


REFUSED_BY_BROWSERS = frozenset((6566, 6665, 6666, 6667, 6668, 6669, 6697, 10080))
"""Those of the ports that the Fetch standard calls bad which a worker might be given; Feast's own is one of them."""

_PAGE_PORT = 8566


def refuse_open(host: str, *, has_keys: bool) -> None:
    """Refuse an address that others can reach where nobody is asked for a key.

    Raises:
        ValueError: It is one, or no address at all.
    """
    if host != "localhost" and not ipaddress.ip_address(host).is_loopback and not has_keys:
        raise ValueError(
            "nothing listens beyond loopback without keys: set FRESHET_API_KEYS (`freshet keys new`), or 127.0.0.1"
        )


class Role(StrEnum):
    """What a worker does."""

    ALL = "all"
    DISPATCHER = "dispatcher"
    AGGREGATOR = "aggregator"
    SERVING = "serving"
    ONDEMAND = "ondemand"

    @property
    def dispatches(self) -> bool:
        """Whether it reads sources."""
        return self in (Role.ALL, Role.DISPATCHER)

    @property
    def aggregates(self) -> bool:
        """Whether it owns tables."""
        return self in (Role.ALL, Role.AGGREGATOR)

    @property
    def ingests(self) -> bool:
        """Whether it takes part in the way of events."""
        return self.dispatches or self.aggregates

    @property
    def serves(self) -> bool:
        """Whether it answers reads of features."""
        return self in (Role.ALL, Role.SERVING, Role.ONDEMAND)

    @property
    def computes(self) -> bool:
        """Whether it runs functions of on-demand features and sources."""
        return self in (Role.ALL, Role.ONDEMAND)


class Settings(BaseSettings):
    """Settings of one worker."""

    model_config = SettingsConfigDict(env_prefix="FRESHET_", env_ignore_empty=True, frozen=True)

    role: Role = Field(Role.ALL, description="What the worker does: all, dispatcher, aggregator, serving or ondemand.")
    registry: str = Field("features:REGISTRY", description="Where the definitions are: package.module:REGISTRY.")
    broker: str = Field(EMBEDDED, description="Kafka's bootstrap servers, host:port[,host:port]; or embedded.")
    broker_tls: bool = Field(default=False, description="Whether to speak TLS with Kafka.")
    broker_ca: Path | None = Field(
        None, description="PEM file with the authorities that Kafka's certificates are trusted by; the system's else."
    )
    broker_certificate: Path | None = Field(None, description="PEM file with our certificate, if Kafka asks for one.")
    broker_key: Path | None = Field(None, description="PEM file with the key of our certificate.")
    broker_key_password: SecretStr | None = Field(None, description="Password of that key, if it is encrypted.")
    broker_sasl: Literal["none", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "none", description="How to log in to Kafka: none, PLAIN (with TLS only), SCRAM-SHA-256 or SCRAM-SHA-512."
    )
    broker_user: str = Field("", description="User to log in to Kafka as.")
    broker_password: SecretStr | None = Field(None, description="The user's password.")
    replication: int | None = Field(
        None, ge=1, le=9, description="Replicas of Freshet's topics; by default 3, or as many as there are brokers."
    )
    instance: str = Field(
        "",
        pattern=r"^[A-Za-z0-9._-]{0,200}$",
        description="Name of the worker in its consumer group, the same after a restart and no other worker's; host "
        "name, address and port by default.",
    )
    redis: SecretStr = Field(
        SecretStr(EMBEDDED),
        description="redis://[user:password@]host:port/db, rediss:// for TLS, redis+cluster:// or rediss+cluster://"
        "host:port,host:port for a cluster; or embedded, or none.",
    )
    redis_ca: Path | None = Field(
        None, description="Certificates (PEM) that Redis is trusted by, beside those of the system."
    )
    record: str = Field(
        EMBEDDED,
        description="sqlite:///path; dynamodb://table?region=eu-central-1, with &endpoint=http://host:port if it is "
        "not Amazon's own; or embedded, or memory.",
    )
    api_keys: SecretStr = Field(
        SecretStr(""),
        description="Lines that `freshet keys new` prints, separated by spaces; with any, requests need one.",
    )
    api_key: SecretStr = Field(SecretStr(""), description="Key that `freshet demo --at` shows to workers that ask.")
    web_host: str = Field("127.0.0.1", description="Address to serve at; beyond loopback FRESHET_API_KEYS is needed.")
    empty_lists: bool = Field(
        default=True, description="Whether an empty list is answered as one; false answers null, for Feast's SDK."
    )
    web_port: int = Field(6566, ge=1, le=65535, description="Port to serve at.")
    share_port: bool = Field(
        default=False,
        description="Whether several serving workers may listen at one port; the kernel spreads connections over them.",
    )
    page_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="Port of this worker alone at which everything is served too, as of one that shares the other; 0 "
        f"for none. By default {_PAGE_PORT} where browsers refuse the other, as 6566.",
    )
    apply: bool | None = Field(
        None, description="Whether to apply unknown definitions at start; by default with the embedded record only."
    )
    session_timeout_ms: int = Field(8_000, ge=6_000, le=60_000, description="Kafka session timeout, milliseconds.")
    local_bytes_max: int = Field(
        64 << 20,
        ge=0,
        description="Bytes of local copies; what is made of them, ready to be served, may take as much again.",
    )
    tables: Literal["memory", "disk"] = Field(
        "memory", description="Where rows are that nobody changes at the moment: memory, or disk if they are too many."
    )
    tables_dir: Path = Field(
        Path(".freshet") / "tables",
        description="Directory for them on a local disk; workers share it, and it may be empty at each start.",
    )
    tables_cache_bytes: int = Field(
        256 << 20, ge=8 << 20, description="Memory for what was read of them on disk, bytes."
    )
    tables_live_rows: int = Field(
        LIVE_ROWS_MAX,
        ge=0,
        description="Rows of a group in one partition that stay ready to be changed; of others only bytes are kept.",
    )
    reads_log: Path | None = Field(
        None,
        description="CSV file for a sample of reads and writes, for `freshet cache simulate`; keys are hashed, workers "
        "of one machine may share it, and it ends at 256 MB.",
    )
    reads_log_share: float = Field(0.01, gt=0, le=1, description="Share of the keys that are in it.")
    on_demand_processes: int = Field(
        2, ge=1, le=64, description="Processes for functions of on-demand features, where there are any."
    )
    run_records_max: int = Field(2_000, ge=1, le=100_000, description="Records fetched at once.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least level that is logged.")
    exit_with_parent: bool = Field(
        default=False, description="Whether to stop when the process that started the worker dies."
    )

    @field_validator("api_keys")
    @classmethod
    def _known_keys(cls, keys: SecretStr) -> SecretStr:
        try:
            parse_keys(keys.get_secret_value())
        except ConfigurationError as error:
            raise ValueError(str(error)) from None
        return keys

    @field_validator("web_host")
    @classmethod
    def _keys_beyond_loopback(cls, host: str, given: ValidationInfo) -> str:
        # Keys that cannot be are a problem of their own, told beside this one.
        refuse_open(
            host, has_keys="api_keys" not in given.data or bool(given.data["api_keys"].get_secret_value().strip())
        )
        return host

    @field_validator("share_port")
    @classmethod
    def _only_serving_shares(cls, shares: bool, given: ValidationInfo) -> bool:  # noqa: FBT001  # pydantic calls it
        if shares and given.data.get("role") not in (Role.SERVING, Role.ONDEMAND):
            raise ValueError("only workers that serve alone can share a port; others are told apart by it")
        return shares

    @field_validator("record")
    @classmethod
    def _known_record(cls, record: str) -> str:
        if record.startswith(SCHEME):
            TablePlace.parse(record)
        elif record not in (EMBEDDED, "memory") and not record.startswith("sqlite:///"):
            raise ValueError(
                "there is no such record; use sqlite:///path, dynamodb://table?region=…, memory or embedded"
            )
        return record

    @field_validator("redis")
    @classmethod
    def _known_redis(cls, redis: SecretStr) -> SecretStr:
        url = redis.get_secret_value()
        known = ("redis://", "rediss://", "redis+cluster://", "rediss+cluster://", "unix://")
        if url not in (EMBEDDED, "none") and not url.startswith(known):
            raise ValueError("not a URL of Redis; use redis://host:port/db, none or embedded")
        return redis

    @property
    def is_embedded(self) -> bool:
        """Whether the broker is started beside the worker."""
        return self.broker == EMBEDDED

    @property
    def base_url(self) -> str:
        """Where the worker serves; an IPv6 address stands in brackets there."""
        return str(URL.build(scheme="http", host=self.web_host, port=self.web_port))

    def page_port_beside(self, web_port: int) -> int:
        """Return the port at which everything is served too, or 0 for none."""
        if self.page_port is not None:
            return self.page_port
        return _PAGE_PORT if web_port in REFUSED_BY_BROWSERS else 0

    @property
    def bootstrap(self) -> list[str]:
        """``host:port`` of brokers that are not embedded."""
        return [place.strip() for place in self.broker.split(",")]

    @property
    def keys(self) -> tuple[ApiKey, ...]:
        """API keys; without any nothing is asked for one."""
        return parse_keys(self.api_keys.get_secret_value())

    def load_registry(self) -> Registry:
        """Import the definitions.

        Raises:
            ConfigurationError: There are none at the place that ``FRESHET_REGISTRY`` names, or Python refuses them.
        """
        return load_registry(self.registry)

    def sqlite_path(self) -> Path | None:
        """Return the path of the SQLite record, or None if the record is another."""
        return Path(self.record.removeprefix("sqlite:///")) if self.record.startswith("sqlite:///") else None

    def dynamodb_place(self) -> TablePlace | None:
        """Return where the record's table is in DynamoDB, or None if the record is another."""
        return TablePlace.parse(self.record) if self.record.startswith(SCHEME) else None


def load_settings(**given: Any) -> Settings:
    """Read the settings from the environment, some given instead.

    Raises:
        ConfigurationError: Some cannot be; all of them are named, and no values: one may be a secret.
    """
    try:
        return Settings(**given)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False, include_context=False)
        told = "; ".join(f"FRESHET_{str(one['loc'][0]).upper()}: {_reason(one['msg'])}" for one in problems)
        raise ConfigurationError(told) from None


def _reason(message: str) -> str:
    return message.removeprefix("Value error, ").removeprefix("Input ")
