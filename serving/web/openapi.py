"""The description of all routes as an OpenAPI 3.1 document, made of the routes and their pydantic models. Pure."""

from collections.abc import Iterable, Sequence
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from core.access import Scope
from serving.models import FeastMistake, Mistake
from serving.web.access import SCOPES
from serving.web.mistakes import FEAST_PATHS
from serving.web.routes import JSON, Models, Parameter, Route

_DESCRIPTION = (
    "Fresh and exact features for recommender systems. Times are milliseconds, UTC. Whatever is wrong is told as a "
    "Mistake: an object with detail. Where Feast's clients know a mistake by class, the routes that they ask answer a "
    "FeastMistake instead. 401 and 403 come from workers with keys alone."
)
_REFERENCE = "#/components/schemas/{model}"


def describe(routes: Sequence[Route]) -> dict[str, Any]:
    """Return the OpenAPI document of routes."""
    models = sorted({model for route in routes for model in _models_of(route)}, key=lambda model: model.__name__)
    names, schemas = models_json_schema([(model, "serialization") for model in models], ref_template=_REFERENCE)
    references = {model: names[model, "serialization"] for model in models}
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, references)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Freshet",
            "version": version("freshet"),
            "description": _DESCRIPTION,
        },
        "paths": paths,
        "components": {"schemas": schemas.get("$defs", {})},
    }


def _models_of(route: Route) -> Iterable[type[BaseModel]]:
    yield from (model for model in (route.answer, route.takes) if model is not None)
    for models in _failures(route).values():
        yield from models


def _failures(route: Route) -> dict[int, Models]:
    """Return what may go wrong with a route: what it says itself, what the gate refuses, and what nobody foresaw."""
    refusal: Models = (FeastMistake if route.path in FEAST_PATHS else Mistake,)
    refusals = dict.fromkeys((401, 403), refusal) if SCOPES.get(route.path, Scope.ADMIN) is not None else {}
    return {500: (Mistake,), **refusals, **route.failures}


def _operation(route: Route, references: dict[type[BaseModel], Any]) -> dict[str, Any]:
    answers = {"200": _response(200, (route.answer,) if route.answer else (), route.media, references)}
    for status, models in sorted(_failures(route).items()):
        answers[str(status)] = _response(status, models, None, references)
    operation: dict[str, Any] = {
        "summary": route.summary,
        "operationId": f"{route.method.lower()}{route.path.replace('/', '_').replace('{', '').replace('}', '')}",
        "responses": answers,
    }
    if route.takes is not None:
        operation["requestBody"] = {"required": True, "content": _content((route.takes,), references)}
    parameters = [_parameter(parameter) for parameter in route.parameters]
    if route.has_key:
        parameters.append(_key_columns())
    if parameters:
        operation["parameters"] = parameters
    return operation


def _response(status: int, models: Models, media: str | None, references: dict[type[BaseModel], Any]) -> dict[str, Any]:
    described: dict[str, Any] = {"description": HTTPStatus(status).phrase}
    if models:
        described["content"] = _content(models, references)
    elif media is not None:
        # JSON without a model may be anything: what Feast answers to a push is null.
        described["content"] = {media: {"schema": {} if media == JSON else {"type": "string"}}}
    return described


def _content(models: Models, references: dict[type[BaseModel], Any]) -> dict[str, Any]:
    schemas = [references[model] for model in models]
    return {JSON: {"schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}}}


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.place,
        "required": parameter.required,
        "description": parameter.meaning,
        "schema": {"type": "string"},
    }


def _key_columns() -> dict[str, Any]:
    return {
        "name": "key",
        "in": "query",
        "required": True,
        "description": "The key columns of the feature's entity, each under its own name.",
        "style": "form",
        "explode": True,
        "schema": {"type": "object", "additionalProperties": {"type": "string"}},
    }
