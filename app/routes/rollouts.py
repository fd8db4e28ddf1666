"""Try, promote and roll back versions of a model: what `python -m models.rollout` does. For administrators."""

from fastapi import APIRouter, Request

from app.routes.administration import Administrator
from app.routes.json_body import body_of, read
from app.routes.models import describe
from app.routes.open_inference import ModelPath
from app.routes.problems import ADMINISTRATION, documented
from app.routes.service import ServiceOf
from app.schemas import CandidateRequest, ModelInfo, RollbackRequest

router = APIRouter(prefix="/admin/models/{name}", tags=[ADMINISTRATION])

BODIES = (CandidateRequest, RollbackRequest)
_FAILURES = documented(404, 409, 413, 415, 422, 503, 504, 507)


@router.put(
    "/candidate",
    summary="Try a version",
    responses=_FAILURES,
    openapi_extra=body_of(CandidateRequest, required=True),
)
async def try_version(request: Request, service: ServiceOf, name: ModelPath, caller: Administrator) -> ModelInfo:
    """It answers a share of the requests that name no version, and is asked about another, to compare."""
    asked = await read(request, service, CandidateRequest)
    await service.administration.try_version(caller, name, asked.version, asked.share, asked.shadow)
    return await describe(service, name)


@router.delete("/candidate", summary="Try no version any more", responses=_FAILURES)
async def stop(service: ServiceOf, name: ModelPath, caller: Administrator) -> ModelInfo:
    """The current version answers everybody."""
    await service.administration.stop(caller, name)
    return await describe(service, name)


@router.post("/promote", summary="Make the candidate the current version", responses=_FAILURES)
async def promote(service: ServiceOf, name: ModelPath, caller: Administrator) -> ModelInfo:
    """No request fails meanwhile."""
    await service.administration.make_current(caller, name, "promote", lambda repository: repository.promote(name))
    return await describe(service, name)


@router.post(
    "/rollback",
    summary="Make a version the current one",
    responses=_FAILURES,
    openapi_extra=body_of(RollbackRequest, required=True),
)
async def make_current(request: Request, service: ServiceOf, name: ModelPath, caller: Administrator) -> ModelInfo:
    """An older one, or any that is there. No request fails meanwhile."""
    asked = await read(request, service, RollbackRequest)
    await service.administration.make_current(
        caller, name, f"roll back to {asked.version}", lambda repository: repository.rollback(name, asked.version)
    )
    return await describe(service, name)
