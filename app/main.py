"""create_app(settings): the stages behind their routes."""

import functools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.types import ASGIApp, Receive, Scope, Send

from app import errors
from app.access import AccessMiddleware
from app.exchange import ExchangeMiddleware
from app.processes.siblings import Siblings
from app.routes import feedback, health, metrics, models, open_inference, predict, problems, repository, rollouts
from app.routes.direct import DirectRoutes
from app.service import Service
from app.settings import Settings
from app.version import VERSION


class Lantern(FastAPI):
    """FastAPI behind what surrounds every exchange, and beside the routes that do without it.

    Args:
        service: What the routes talk to.
        options: FastAPI's own.
    """

    def __init__(self, service: Service, **options: Any) -> None:  # noqa: ANN401 (FastAPI's own)
        super().__init__(**options)
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; a request's way past FastAPI's own telemetry, which looks into the environment each time."""
        if self.middleware_stack is None:
            self.middleware_stack = self.build_middleware_stack()
        scope["app"] = self
        await self.middleware_stack(scope, receive, send)

    def build_middleware_stack(self) -> ASGIApp:
        """Lay the app's own layers around FastAPI's."""
        service = self._service
        declared = (*predict.router.routes, *open_inference.router.routes)
        routes = [route for route in declared if isinstance(route, APIRoute) and route.methods == {"POST"}]
        direct = DirectRoutes(super().build_middleware_stack(), service, routes)
        if service.keys is None and service.limiter is None:
            return ExchangeMiddleware(direct, service)
        return ExchangeMiddleware(
            AccessMiddleware(direct, service.keys, service.admin_keys, service.limiter), service
        )


def create_app(settings: Settings, siblings: Siblings | None = None) -> FastAPI:
    """Build the ASGI app; its lifespan starts and stops the service.

    Args:
        settings: Of the whole service.
        siblings: The other worker processes, if this is one of several.

    Raises:
        DeviceUnavailable: The device that the settings ask for is not on this machine.
        ApiKeysInvalid: The file of keys that the settings name cannot be used.
        KeyFileInvalid: The file of trusted keys cannot.
    """
    service = Service(settings, siblings)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        service.start()
        try:
            yield
        finally:
            await service.stop()

    app = Lantern(
        service,
        title="Lantern",
        version=VERSION,
        summary="Image and text models behind a REST API.",
        lifespan=lifespan,
        redoc_url=None,
        # A path with a slash too many is none: many clients take a redirect for an answer without a body.
        redirect_slashes=False,
    )
    app.state.service = service
    written = app.openapi
    # FastAPI keeps the document after the first call, and so does this.
    bodies: tuple[type[BaseModel], ...] = (*open_inference.BODIES, *feedback.BODIES)
    if service.admin_keys is not None:
        bodies = (*bodies, *repository.BODIES, *rollouts.BODIES)
    document = functools.cache(lambda: problems.correct(written(), bodies, keys=service.keys is not None))
    app.openapi = document  # type: ignore[method-assign]  # FastAPI's documented way to extend it
    errors.install(app)
    for routes in (predict, models, metrics):
        app.include_router(routes.router, responses=problems.documented(401, 429))
    app.include_router(open_inference.router)
    if settings.feedback_file is not None:
        app.include_router(feedback.router, responses=problems.documented(401, 429))
    if service.admin_keys is not None:
        app.include_router(repository.router)
        app.include_router(rollouts.router, responses=problems.documented(401, 429))
    app.include_router(health.router)
    return app
