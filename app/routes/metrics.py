"""How the service is doing."""

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse

from app.metrics import render
from app.routes.problems import documented
from app.routes.service import ServiceOf

router = APIRouter(tags=["health"])


@router.get("/metrics", summary="Prometheus metrics", response_class=PlainTextResponse, responses=documented(503))
async def metrics(service: ServiceOf) -> Response:
    """The series, in Prometheus's text format; of every worker process together."""
    text = service.metrics.render() if service.siblings is None else render(await service.figures())
    return Response(text, media_type=service.metrics.content_type)
