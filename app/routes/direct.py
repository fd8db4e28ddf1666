"""Routes that are called without the framework's work for each request, and documented by it all the same.

FastAPI solves the dependencies of each request anew, within several stacks of contexts: more time than a small
model takes. A route's endpoint and its declaration stay what they are: this reads the parameters that the
declaration names, by the same types, and calls the endpoint.
"""

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_type_hints

from fastapi import Request, Response
from fastapi.params import Path, Query
from fastapi.routing import APIRoute
from pydantic import TypeAdapter, ValidationError
from starlette.datastructures import QueryParams
from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import InvalidRequest, ServingError, answer
from app.service import Service

Endpoint = Callable[..., Awaitable[Response]]


class DirectRoutes:
    """Answers POSTs to some routes; leaves everything else to the app.

    Args:
        app: What answers the rest, another method on the same path among it.
        service: Given to endpoints as their `service`.
        routes: Declared with FastAPI; their endpoints take the request, the service, path and query parameters.
    """

    def __init__(self, app: ASGIApp, service: Service, routes: Sequence[APIRoute]) -> None:
        self._app = app
        self._service = service
        calls = [_Call(route, _query_parameters(route.endpoint)) for route in routes]
        self._fixed = {call.route.path: call for call in calls if "{" not in call.route.path}
        self._varying = [call for call in calls if "{" in call.route.path]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass on."""
        found = self._find(scope) if scope["type"] == "http" and scope["method"] == "POST" else None
        if found is None:
            await self._app(scope, receive, send)
            return
        call, path_parameters = found
        scope["route"] = call.route
        request = Request(scope, receive)
        try:
            response = await call.answer(request, self._service, path_parameters)
        except ServingError as error:
            response = answer(request, error)
        await response(scope, receive, send)

    def _find(self, scope: Scope) -> "tuple[_Call, Mapping[str, str]] | None":
        path: str = scope["path"].removeprefix(scope.get("root_path", ""))
        if call := self._fixed.get(path):
            return call, {}
        for call in self._varying:
            if match := call.route.path_regex.match(path):
                return call, match.groupdict()
        return None


@dataclass(frozen=True)
class _Call:
    route: APIRoute
    query: Mapping[str, TypeAdapter[Any]]

    async def answer(self, request: Request, service: Service, path_parameters: Mapping[str, str]) -> Response:
        query = request.scope["query_string"]
        asked = self._read(QueryParams(query)) if query else {}
        endpoint: Endpoint = self.route.endpoint
        return await endpoint(request=request, service=service, **path_parameters, **asked)

    def _read(self, given: QueryParams) -> dict[str, Any]:
        asked = {}
        for name, kind in self.query.items():
            if name not in given:
                continue
            try:
                asked[name] = kind.validate_python(given[name])
            except ValidationError as error:
                # As FastAPI names the place.
                raise InvalidRequest(f"query.{name}: {error.errors()[0]['msg']}") from None
        return asked


def _query_parameters(endpoint: Endpoint) -> dict[str, TypeAdapter[Any]]:
    hints = get_type_hints(endpoint, include_extras=True)
    found: dict[str, TypeAdapter[Any]] = {}
    for name in inspect.signature(endpoint).parameters:
        marks = getattr(hints[name], "__metadata__", ())
        if any(isinstance(mark, Query) for mark in marks):
            found[name] = TypeAdapter(hints[name])
        elif any(isinstance(mark, Path) for mark in marks) and hints[name].__origin__ is not str:
            raise TypeError(f"{name}: a path parameter of a direct route is a string")
    return found
