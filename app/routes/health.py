"""Is the process there, and should traffic come."""

from dataclasses import asdict, replace
from typing import Literal

from fastapi import APIRouter, Response

from app.registry import Refusal
from app.routes.service import ServiceOf
from app.schemas import FailedVersion, Live, ModelReadiness, Ready
from app.service import Service

router = APIRouter(tags=["health"])


@router.get("/health/live", summary="The process answers")
async def live() -> Live:
    """Always 200: a process that cannot answer this should be restarted."""
    return Live()


@router.get(
    "/health/ready",
    summary="Every model is warm, and the service is not about to stop",
    responses={503: {"model": Ready, "description": "Traffic should go elsewhere; the body says why."}},
)
async def ready(service: ServiceOf, response: Response) -> Ready:
    """200 or 503. A full queue is no unreadiness, and neither is a refused version while the old one serves."""
    found = readiness_of_all(service)
    if found.status != "ready":
        response.status_code = 503
    return found


# Load balancers and `wget --spider` probe with HEAD.
router.add_api_route("/health/live", live, methods=["HEAD"], include_in_schema=False)
router.add_api_route("/health/ready", ready, methods=["HEAD"], include_in_schema=False)


def readiness_of_all(service: Service) -> Ready:
    """The readiness of the whole service."""
    own = readiness(service)
    if own.status == "ready" and service.siblings is not None:
        return service.siblings.readiness(own)
    return own


def readiness(service: Service) -> Ready:
    """The readiness of this process, whatever that of others is."""
    status = _status(service)
    return Ready(status=status, detail=_detail(service, status), models=_models(service))


def refused(refusal: Refusal | None) -> FailedVersion | None:
    """A refused version as it stands in a reply."""
    return FailedVersion(**asdict(refusal)) if refusal else None


def _status(service: Service) -> Literal["ready", "not_ready", "draining"]:
    if service.leaving:
        return "draining"
    return "ready" if service.registry.ready else "not_ready"


def _detail(service: Service, status: str) -> str | None:
    if status == "draining":
        return "the service is about to stop"
    if status == "ready":
        return None
    if service.registry.live and service.registry.looked:
        return f"not live: {', '.join(sorted(service.registry.missing))}"
    if service.registry.trouble is not None and service.keys is not None:
        return "the models directory cannot be read; the log says why"
    return service.registry.why_nothing_is_live()


def _models(service: Service) -> dict[str, ModelReadiness]:
    registry = service.registry
    return {
        name: ModelReadiness(
            ready=name in registry.live,
            version=registry.live[name].manifest.version if name in registry.live else None,
            refused=refused(_told_to_anyone(service, registry.refusals.get(name))),
        )
        for name in sorted(registry.names)
    }


def _told_to_anyone(service: Service, refusal: Refusal | None) -> Refusal | None:
    """Leave out what only holders of a key are to read: paths, or what a model says of its golden examples."""
    if refusal is None or service.keys is None:
        return refusal
    return replace(refusal, detail="GET /models says why, to whoever has a key")
