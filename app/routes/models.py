"""What is live, and what the service is."""

import asyncio
import platform
from dataclasses import asdict

from fastapi import APIRouter

from app.bodies import IMAGE_TYPES
from app.comparison import compare
from app.errors import ModelNotFound, Overloaded
from app.registry import LiveModel, Refusal
from app.routes.health import refused
from app.routes.problems import PROBLEMS
from app.routes.service import ServiceOf
from app.schemas import (
    CandidateInfo,
    ComparedInfo,
    FailedVersion,
    ImageLimits,
    Metadata,
    ModelInfo,
    ModelList,
    RequestLimits,
    TextLimits,
)
from app.service import Service
from app.settings import Settings
from app.version import VERSION
from models.instructions import TORCH_VERSION
from models.manifest import Manifest

router = APIRouter(tags=["models"])


@router.get("/models", summary="Every model of the repository")
async def list_models(service: ServiceOf) -> ModelList:
    """Live ones and refused ones, by name."""
    return ModelList(models=[await describe(service, name) for name in sorted(service.registry.names)])


@router.get("/models/{name}", summary="One model", responses=PROBLEMS[404])
async def get_model(service: ServiceOf, name: str) -> ModelInfo:
    """Its live version, labels, limits and figures."""
    if name not in service.registry.names:
        raise ModelNotFound(f"no model {name!r}; GET /models lists them")
    return await describe(service, name)


@router.get("/metadata", summary="The service itself")
async def metadata(service: ServiceOf) -> Metadata:
    """Versions, device, default models and limits."""
    settings = service.settings
    return Metadata(
        name="lantern",
        version=VERSION,
        device=str(service.device),
        torch=TORCH_VERSION,
        python=platform.python_version(),
        default_models={kind: service.registry.default_name(kind) for kind in ("image", "text")},
        limits=RequestLimits(**{name: getattr(settings, name) for name in RequestLimits.model_fields}),
    )


async def describe(service: Service, name: str) -> ModelInfo:
    """Say what is live of a model, what is tried and what was refused."""
    # The repository may be on a slow disk, and the event loop waits for none.
    versions = await asyncio.to_thread(service.repository.versions, name)
    live = service.registry.live.get(name)
    shared = ModelInfo(
        name=name,
        ready=live is not None,
        versions=versions,
        live_versions=[model.manifest.version for model in service.registry.versions_of(name)],
        refused_versions=[FailedVersion(**asdict(refusal)) for refusal in _refusals(service, name)],
        candidate=await _candidate(service, name),
        refused=refused(service.registry.refusals.get(name)),
    )
    return shared.model_copy(update=_live_fields(live, service)) if live else shared


def _refusals(service: Service, name: str) -> list[Refusal]:
    registry = service.registry
    candidate = registry.candidate_refusals.get(name)
    return [*registry.other_refusals.get(name, {}).values(), *([candidate] if candidate is not None else [])]


async def _candidate(service: Service, name: str) -> CandidateInfo | None:
    candidate = service.registry.candidates.get(name)
    if candidate is None:
        return None
    live = any(model.manifest.version == candidate.version for model in service.registry.others_of(name))
    return CandidateInfo(
        version=candidate.version,
        share=candidate.share,
        shadow=candidate.shadow,
        live=live,
        compared=await _compared(service, name, candidate.version),
    )


async def _compared(service: Service, name: str, version: str) -> ComparedInfo | None:
    try:
        return compare(await service.figures(), name, version)
    except Overloaded:  # The other worker processes' part is not to be had now; the rest is true all the same.
        return None


def _live_fields(live: LiveModel, service: Service) -> dict[str, object]:
    manifest = live.manifest
    return {
        "version": manifest.version,
        "task": manifest.task,
        "labels": list(manifest.labels),
        "input": _input_limits(manifest, service.settings),
        "max_batch_size": live.loaded.max_batch_size,
        "metrics": manifest.metrics,
        "device": str(live.loaded.device),
        "backend": live.loaded.backend.id,
        "accuracy": live.loaded.backend.accuracy,
        "manifest_sha256": live.loaded.bundle.manifest_sha256,
        "loaded_at": live.loaded_at,
    }


def _input_limits(manifest: Manifest, settings: Settings) -> ImageLimits | TextLimits | None:
    if decode := manifest.decode:
        return ImageLimits(
            formats=list(IMAGE_TYPES),
            color=decode.color,
            height=decode.size[0],
            width=decode.size[1],
            max_pixels=min(decode.max_pixels, settings.max_image_pixels),
        )
    if limits := manifest.tokenize:
        return TextLimits(
            max_tokens=limits.max_tokens, truncate=limits.truncate, max_chars=settings.max_text_chars
        )
    return None
