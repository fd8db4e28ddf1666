"""Who may administer."""

from typing import Annotated

from fastapi import Depends, Request

from app.errors import Unauthorized
from app.headers import key_of
from app.routes.service import ServiceOf


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
