"""How a route's failures stand in the OpenAPI document."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from app.access import OPEN_PATHS
from app.errors import RETRY_LATER, STATUS_BY_CODE
from app.schemas import Problem

MEDIA_TYPE = "application/problem+json"
SCHEMA_REF = "#/components/schemas/{model}"


def _documented(status: int) -> dict[int | str, dict[str, Any]]:
    codes = [code for code, its in STATUS_BY_CODE.items() if its == status]
    example = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": "what is off, and what to do",
        "code": codes[0],
        "request_id": "5f0c1e7a",
    }
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "example": example}}
    return {status: {"model": Problem, "description": ", ".join(codes), "content": content}}


PROBLEMS = {status: _documented(status) for status in sorted(set(STATUS_BY_CODE.values()))}
ADMINISTRATION = "administration"  # the tag of routes that need an administrator's key
KEY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may fail with these statuses."""
    return {status: problem for each in statuses for status, problem in PROBLEMS[each].items()}


def correct(document: dict[str, Any], bodies: Sequence[type[BaseModel]], *, keys: bool) -> dict[str, Any]:
    """Make FastAPI's document say what is really answered: it cannot know of `errors.install` nor of middleware.

    Failures come as problem details only, no route gives FastAPI's own 422, every answer has its id, and what is
    not open to everyone needs a key if `keys` are configured; `bodies` are those that routes read themselves.
    """
    _, schemas = models_json_schema([(body, "validation") for body in bodies], ref_template=SCHEMA_REF)
    document["components"]["schemas"] |= schemas["$defs"]
    for path, operation in ((path, each) for path, item in document["paths"].items() for each in item.values()):
        responses = operation["responses"]
        if (keys and path not in OPEN_PATHS) or ADMINISTRATION in operation.get("tags", ()):
            document["components"]["securitySchemes"] = KEY_SCHEMES
            operation["security"] = [{scheme: []} for scheme in KEY_SCHEMES]
        if "HTTPValidationError" in str(responses.get("422")):
            del responses["422"]
        for status, response in responses.items():
            response["headers"] = _headers(status)
            if MEDIA_TYPE in response.get("content", {}):
                response["content"] = {MEDIA_TYPE: response["content"][MEDIA_TYPE]}
    for unused in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(unused, None)
    return document


def _headers(status: str) -> dict[str, Any]:
    request_id = {"X-Request-ID": {"schema": {"type": "string"}, "description": "The client's, or a new one."}}
    if int(status) == HTTPStatus.UNAUTHORIZED:
        return request_id | {"WWW-Authenticate": {"schema": {"type": "string"}, "description": "Bearer."}}
    if int(status) not in RETRY_LATER:
        return request_id
    seconds = {
        "schema": {"type": "integer", "minimum": 1},
        "description": "Seconds until it is worth asking again.",
    }
    return request_id | {"Retry-After": seconds}
