"""JSON bodies of requests that are few: read within the limits of any body."""

from functools import partial
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError

from app.bodies import check_json_values
from app.errors import InvalidRequest, explain
from app.routes.intake import Intake, intake
from app.service import Service

Asked = TypeVar("Asked", bound=BaseModel)


async def read(request: Request, service: Service, kind: type[Asked]) -> Asked:
    """Read a request's JSON; no body is an empty object.

    FastAPI itself would read a body of any size, before it knows who sends it.

    Raises:
        InvalidRequest: It is something else than wanted.
        BodyTooLarge, Overloaded, DeadlineExceeded, ClientDisconnected: As of any body.
    """
    with intake(request, service) as taken:
        return await parsed(taken, kind)


async def parsed(taken: Intake, kind: type[Asked]) -> Asked:
    """The same of a request that is taken in."""
    body = await taken.body()
    return await taken.work(len(body), partial(_parse, body, kind))


def _parse(body: bytes, kind: type[Asked]) -> Asked:
    check_json_values(body)
    try:
        return kind.model_validate_json(body or b"{}")
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise InvalidRequest(explain(first)) from None


def body_of(kind: type[BaseModel], *, required: bool) -> dict[str, Any]:
    """The `openapi_extra` of a route that reads such a body."""
    schema = {"$ref": f"#/components/schemas/{kind.__name__}"}
    return {"requestBody": {"required": required, "content": {"application/json": {"schema": schema}}}}
