"""create_app(settings): the stages behind their routes."""

import functools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from app import errors
from app.access import AccessMiddleware
from app.exchange import ExchangeMiddleware
from app.routes import health, metrics, models, predict, problems
from app.service import Service
from app.settings import Settings
from app.version import VERSION


def create_app(settings: Settings) -> FastAPI:
    """Build the ASGI app; its lifespan starts and stops the service.

    Raises:
        DeviceUnavailable: The device that the settings ask for is not on this machine.
        ApiKeysInvalid: The file of keys that the settings name cannot be used.
    """
    service = Service(settings)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        service.start()
        try:
            yield
        finally:
            await service.stop()

    app = FastAPI(
        title="Lantern",
        version=VERSION,
        summary="Image and text models behind a REST API.",
        lifespan=lifespan,
        redoc_url=None,
    )
    app.state.service = service
    written = app.openapi
    # FastAPI keeps the document after the first call, and so does this.
    document = functools.cache(lambda: problems.correct(written(), keys=service.keys is not None))
    app.openapi = document  # type: ignore[method-assign]  # FastAPI's documented way to extend it
    errors.install(app)
    for routes in (predict, models, metrics):
        app.include_router(routes.router, responses=problems.documented(401, 429))
    app.include_router(health.router)
    app.add_middleware(AccessMiddleware, keys=service.keys, limiter=service.limiter)
    # The last one added is the first to see a request.
    app.add_middleware(ExchangeMiddleware, service=service)
    return app
