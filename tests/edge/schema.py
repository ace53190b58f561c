"""Requests out of our own description, and what breaks it: every answer is as described, and none is our failure."""

import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_schema_conformance,
    status_code_conformance,
)

from bench.serving.domain import USERS
from tests.edge.worker import FEATURE

_ANSWER_S = 15.0
_URL_MAX = 8_000
_FINDINGS_MAX = 10
_ROUNDS_MAX = 20
_CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@dataclass(slots=True)
class Schema:
    """What became of requests.

    Attributes:
        errors: Answers with a status of 500 or more.
        undescribed: Answers that are not as they are described.
        statuses: Answers by status.
        never_right: Operations that have never answered with 200: what they answer then was not compared.
    """

    cases: int = 0
    errors: int = 0
    hangs: int = 0
    undescribed: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    never_right: list[str] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)


def ask_as_described(base_url: str, count: int, seed: int) -> Schema:
    """Make so many requests, the same number to each operation that takes anything; right and wrong ones in turn."""
    found = Schema()
    described = schemathesis.openapi.from_url(f"{base_url}/openapi.json")
    operations = [result.ok() for result in described.get_all_operations()]
    taking = [operation for operation in operations if _takes_anything(operation)]
    right: set[str] = set()
    with requests.Session() as session:
        for operation in operations:
            _ask(operation, GenerationMode.POSITIVE, 1, seed, session, found, right)
        for number in range(_ROUNDS_MAX):
            # Some operations have few different requests, so what is left is divided again.
            left = count - found.cases
            if left <= 0:
                break
            for operation in taking:
                for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                    _ask(operation, mode, -(-left // len(taking) // 2), seed + number, session, found, right)
    found.never_right = sorted({operation.label for operation in operations} - right)
    return found


def _takes_anything(operation: Any) -> bool:
    return bool(operation.body) or any(map(len, (operation.query, operation.path_parameters, operation.headers)))


def _ask(
    operation: Any,
    mode: GenerationMode,
    count: int,
    seed: int,
    session: requests.Session,
    found: Schema,
    right: set[str],
) -> None:
    @seeded(seed)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        found.cases += 1
        if mode is GenerationMode.POSITIVE and found.cases % 2:
            _name_what_there_is(case)
        try:
            answer = case.call(session=session, timeout=_ANSWER_S)
        except requests.Timeout:
            found.hangs += 1
            _tell(found, f"{operation.label} hangs: {case.as_curl_command()}")
            return
        found.statuses[answer.status_code] += 1
        if answer.status_code == 200:
            right.add(operation.label)
        if answer.status_code == 504 and case.headers:
            # It asked for an answer within a millisecond.
            return
        if answer.status_code >= 500:
            found.errors += 1
            _tell(found, f"{operation.label} fails: {case.as_curl_command()} -> {answer.status_code}")
            return
        if answer.status_code == 400 and len(answer.request.url or "") > _URL_MAX:
            # Refused by the web server before anything of ours, in its own words.
            return
        try:
            case.validate_response(answer, checks=_CHECKS)
        except Exception as error:  # noqa: BLE001  # schemathesis raises groups of its own
            found.undescribed += 1
            _tell(found, f"{operation.label}: {str(error)[:600]}")

    # Where every text is right, there is no wrong request.
    with suppress(Unsatisfiable):
        ask()


def _name_what_there_is(case: Any) -> None:
    """Put names and keys into a request that the worker knows: drawn texts as good as never are."""
    users = [number * 7 % USERS for number in range(1 + len(str(case.body)) % 5)]
    match case.operation.path:
        case "/get-online-features":
            case.body = {**case.body, "entities": {"user_id": users}, "features": [FEATURE], "feature_service": None}
        case "/explain":
            case.query = {"feature": FEATURE, "user_id": str(users[0])}
        case "/push" | "/write-to-online-store":
            place = "push_source_name" if case.operation.path == "/push" else "feature_view_name"
            frame = {
                "event_id": [f"fuzz-{user}" for user in users], "time_ms": [time.time_ns() // 1_000_000] * len(users), "user_id": users,
                "seconds": [1.0] * len(users), "items": [0] * len(users),
            }  # fmt: skip
            case.body = {place: "visits", "df": frame}
        case "/page/{file}":
            case.path_parameters = {"file": "main.js"}


def _tell(found: Schema, text: str) -> None:
    if len(found.findings) < _FINDINGS_MAX:
        found.findings.append(text)
