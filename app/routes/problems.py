"""How a route's failures stand in the OpenAPI document."""

from http import HTTPStatus
from typing import Any

from app.errors import STATUS_BY_CODE
from app.schemas import Problem

MEDIA_TYPE = "application/problem+json"


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
    schema = {"$ref": f"#/components/schemas/{Problem.__name__}"}
    content = {MEDIA_TYPE: {"schema": schema, "example": example}}
    return {status: {"model": Problem, "description": ", ".join(codes), "content": content}}


PROBLEMS = {status: _documented(status) for status in sorted(set(STATUS_BY_CODE.values()))}


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may fail with these statuses."""
    return {status: problem for each in statuses for status, problem in PROBLEMS[each].items()}
