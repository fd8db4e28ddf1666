"""What decides whether a request is answered by a model's candidate."""

from typing import Any

from fastapi import Request

from app.headers import header

ROUTING_PARAMETER: dict[str, Any] = {
    "name": "X-Routing-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string"},
    "description": "Requests with the same key are answered by the same version while a candidate is tried; "
    "without it, each request is on its own.",
}


def routing_key(request: Request) -> str:
    """Return the key that a client gave, or the request's id."""
    request_id: str = request.scope["state"]["request_id"]
    return header(request.scope, b"x-routing-key") or request_id
