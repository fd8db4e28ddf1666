"""The Open Inference Protocol's model repository extension: what there is, load, unload. For administrators."""

from collections.abc import Iterator

from fastapi import APIRouter, Request

from app.open_inference.schemas import Failure, IndexRequest, LoadRequest, RepositoryModel
from app.routes.administration import Administrator
from app.routes.json_body import body_of, read
from app.routes.open_inference import ModelPath
from app.routes.problems import ADMINISTRATION
from app.routes.service import ServiceOf
from app.service import Service

router = APIRouter(prefix="/v2/repository", tags=[ADMINISTRATION])

BODIES = (IndexRequest, LoadRequest)
_FAILURES: dict[int | str, dict[str, object]] = {
    status: {"model": Failure, "description": "What is off, and what to do."}
    for status in (400, 401, 404, 413, 429, 503, 504, 507)
}


@router.post(
    "/index",
    summary="Every model of the repository, and its state",
    responses=_FAILURES,
    openapi_extra=body_of(IndexRequest, required=False),
)
async def index(request: Request, service: ServiceOf, _: Administrator) -> list[RepositoryModel]:
    """Live versions are READY; what was refused or unloaded is UNAVAILABLE, with the reason."""
    asked = await read(request, service, IndexRequest)
    found = [model for name in sorted(service.registry.names) for model in _states(service, name)]
    return [model for model in found if model.state == "READY" or not asked.ready]


@router.post(
    "/models/{name}/load",
    summary="Serve a model",
    responses=_FAILURES,
    openapi_extra=body_of(LoadRequest, required=False),
)
async def load(request: Request, service: ServiceOf, name: ModelPath, caller: Administrator) -> dict[str, str]:
    """Answers once its current version is warm; of one that is served already, at once."""
    await read(request, service, LoadRequest)
    await service.administration.load(caller, name)
    return {}


@router.post(
    "/models/{name}/unload",
    summary="Serve a model no more",
    responses=_FAILURES,
    openapi_extra=body_of(LoadRequest, required=False),
)
async def unload(request: Request, service: ServiceOf, name: ModelPath, caller: Administrator) -> dict[str, str]:
    """What was admitted is still answered. It stays so until it is loaded again, a restart or not."""
    await read(request, service, LoadRequest)
    await service.administration.unload(caller, name)
    return {}


def _states(service: Service, name: str) -> Iterator[RepositoryModel]:
    registry = service.registry
    if name in registry.unloaded:
        yield RepositoryModel(name=name, state="UNAVAILABLE", reason="unloaded")
        return
    refused = {**registry.other_refusals.get(name, {})}
    if (own := registry.refusals.get(name)) is not None:
        refused[own.version or ""] = own
    reasons = {version: f"{refusal.error}: {refusal.detail}" for version, refusal in refused.items()}
    live = {model.manifest.version for model in registry.versions_of(name)}
    for version in sorted(live):
        # Of one that could not be loaded again, for it is gone, the reason stands with it.
        yield RepositoryModel(name=name, version=version, state="READY", reason=reasons.get(version, ""))
    for version in sorted(set(reasons) - live):
        yield RepositoryModel(name=name, version=version, state="UNAVAILABLE", reason=reasons[version])
    loading = registry.wanted_others.get(name, set()) - live - set(refused)
    for version in sorted(loading):
        yield RepositoryModel(name=name, version=version, state="LOADING")
    if not live and not refused:
        yield RepositoryModel(name=name, state="LOADING")
