"""Who may administer, and how the bodies of such requests are read."""

from typing import Annotated, TypeVar

from fastapi import Depends, Request
from pydantic import BaseModel, ValidationError

from app.errors import InvalidRequest, Unauthorized, explain
from app.headers import key_of
from app.routes.intake import intake
from app.routes.service import ServiceOf
from app.service import Service

Asked = TypeVar("Asked", bound=BaseModel)


def administrator(request: Request, service: ServiceOf) -> str:
    """Return who administers, by their key.

    Raises:
        Unauthorized: It has no such key, or there is none.
    """
    key = key_of(request.scope)
    client = service.admin_keys.client_of(key) if service.admin_keys is not None and key else None
    if client is None:
        raise Unauthorized("an administrator's key is needed: send Authorization: Bearer KEY, or X-API-Key: KEY")
    return client


Administrator = Annotated[str, Depends(administrator)]


async def read(request: Request, service: Service, kind: type[Asked]) -> Asked:
    """Read a request's JSON, within the limits of a body; no body is an empty object.

    Raises:
        InvalidRequest: It is something else than wanted.
        BodyTooLarge, Overloaded, DeadlineExceeded, ClientDisconnected: As of any body.
    """
    with intake(request, service) as taken:
        body = await taken.body()
        try:
            return kind.model_validate_json(body or b"{}")
        except ValidationError as error:
            raise InvalidRequest(explain(error.errors(include_url=False)[0])) from None


def body_of(kind: type[BaseModel], *, required: bool) -> dict[str, object]:
    """The `openapi_extra` of a route that reads such a body."""
    schema = {"$ref": f"#/components/schemas/{kind.__name__}"}
    return {"requestBody": {"required": required, "content": {"application/json": {"schema": schema}}}}
