"""The Open Inference Protocol, version 2: what clients of other servers speak."""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response

from app.bodies import BodyLimits
from app.errors import Draining, ModelNotReady, Overloaded, ServingError
from app.headers import header
from app.items import Item
from app.open_inference.binding import items_of, raw_item
from app.open_inference.reply import size_bytes, wanted_outputs, write
from app.open_inference.request import LENGTH_HEADER, json_bytes, json_length, timeout_s
from app.open_inference.request import parse as parse_request
from app.open_inference.schemas import (
    Failure,
    InferReply,
    InferRequest,
    ModelMetadata,
    ModelReady,
    ServerLive,
    ServerMetadata,
    ServerReady,
    TensorMetadata,
)
from app.open_inference.signature import Spec, input_of, outputs_of, takes_alike
from app.prediction import Answer, Ask
from app.registry import LiveModel, Registry
from app.responding import Raw
from app.routes.health import readiness_of_all
from app.routes.intake import Intake, intake
from app.routes.refusals import remember
from app.routes.routing import ROUTING_PARAMETER, routing_key
from app.routes.service import ServiceOf
from app.schemas import EXAMPLE_IMAGE
from app.service import Service
from app.version import VERSION
from models.versions import version_order

router = APIRouter(prefix="/v2", tags=["open inference"])

EXTENSIONS = ["binary_tensor_data", "classification"]
FOR_ADMINISTRATORS = ["model_repository"]
PLATFORMS = {"torchscript": "pytorch_torchscript", "openvino": "openvino"}

ModelPath = Annotated[str, Path(description="Model to ask.")]
VersionPath = Annotated[str, Path(description="Version to ask; it must be live.")]


def _failures(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Failure, "description": "What is off, and what to do."} for status in statuses}


BODIES = (InferRequest,)
_BINARY = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_INFER: dict[str, Any] = {
    "response_model": InferReply,
    "responses": {200: {"content": _BINARY}} | _failures(400, 401, 404, 413, 429, 500, 503, 504),
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {"$ref": "#/components/schemas/InferRequest"},
                    "example": {
                        "inputs": [{"name": "images", "datatype": "BYTES", "shape": [1], "data": [EXAMPLE_IMAGE]}]
                    },
                },
                **_BINARY,
            },
        },
        "parameters": [
            {
                "name": LENGTH_HEADER,
                "in": "header",
                "required": False,
                "schema": {"type": "string", "pattern": "^[0-9]+$"},
                "description": "Bytes of JSON, where binary tensors follow; 0: all of the body is one raw "
                "tensor, if it is not called application/json.",
            },
            ROUTING_PARAMETER,
        ],
    },
}


@router.get("", summary="The server, in the protocol's words", responses=_failures(401, 429))
async def server_metadata(service: ServiceOf) -> ServerMetadata:
    """Name, version and extensions."""
    extensions = EXTENSIONS if service.admin_keys is None else EXTENSIONS + FOR_ADMINISTRATORS
    return ServerMetadata(name="lantern", version=VERSION, extensions=extensions)


@router.get("/health/live", summary="The process answers")
async def server_live() -> ServerLive:
    """As `/health/live`."""
    return ServerLive(live=True)


@router.get("/health/ready", summary="Every model is warm", responses=_failures(503))
async def server_ready(service: ServiceOf) -> ServerReady:
    """As `/health/ready`."""
    found = readiness_of_all(service)
    if found.status != "ready":
        failure = Draining if found.status == "draining" else ModelNotReady
        raise failure(found.detail or "a model is not ready", retry_after_s=1)
    return ServerReady(ready=True)


# Load balancers and `wget --spider` probe with HEAD.
router.add_api_route("/health/live", server_live, methods=["HEAD"], include_in_schema=False)
router.add_api_route("/health/ready", server_ready, methods=["HEAD"], include_in_schema=False)


@router.get("/models/{name}", summary="What a model takes and gives", responses=_failures(401, 404, 429, 503))
async def model_metadata(service: ServiceOf, name: ModelPath) -> ModelMetadata:
    """Its tensors, as its bundle has them."""
    return _metadata(service, service.registry.resolve(name))


@router.get(
    "/models/{name}/versions/{version}",
    summary="What a version takes and gives",
    responses=_failures(401, 404, 429, 503),
)
async def version_metadata(service: ServiceOf, name: ModelPath, version: VersionPath) -> ModelMetadata:
    """As of the model."""
    return _metadata(service, service.registry.resolve(name, version))


@router.get("/models/{name}/ready", summary="A model is warm", responses=_failures(401, 404, 429, 503))
async def model_ready(service: ServiceOf, name: ModelPath) -> ModelReady:
    """200, or why not."""
    return _ready(service, name, None)


@router.get(
    "/models/{name}/versions/{version}/ready",
    summary="A version is warm",
    responses=_failures(401, 404, 429, 503),
)
async def version_ready(service: ServiceOf, name: ModelPath, version: VersionPath) -> ModelReady:
    """As of the model."""
    return _ready(service, name, version)


@router.post("/models/{name}/infer", summary="Ask a model", **_INFER)
async def infer(request: Request, service: ServiceOf, name: ModelPath) -> Response:
    """Tensors in, tensors out; in JSON, or with binary data behind it."""
    return await _infer(request, service, name, None)


@router.post("/models/{name}/versions/{version}/infer", summary="Ask a version", **_INFER)
async def infer_with_version(
    request: Request, service: ServiceOf, name: ModelPath, version: VersionPath
) -> Response:
    """As of the model, addressed to a version that must be live."""
    return await _infer(request, service, name, version)


async def _infer(request: Request, service: Service, name: str, version: str | None) -> Response:
    with intake(request, service) as taken:
        body = await taken.body()
        key = routing_key(request) if version is None and service.registry.candidates else None
        model = _addressed(service.registry, name, version, key)
        asked, items = await _read(taken, body, model, service)
        if key is not None and not _suits_candidate(service.registry.tried(name), model, items):
            key = None
        if asked is not None and (given_s := timeout_s(asked)) is not None:
            taken.deadline.advance(request.scope["state"]["received_s"] + given_s)
        wanted = wanted_outputs(asked, model.manifest)
        ask = Ask(
            items=items,
            model=name,
            version=version,
            top_k=None,
            received_s=request.scope["state"]["received_s"],
            deadline=taken.deadline,
            key=key,
        )
        try:
            answer = await service.predictor.predict(ask)
        except Overloaded as refused:
            remember(request, service, refused)
            raise
        manifest = answer.model.manifest
        state = request.scope["state"]
        state["model"], state["version"], state["items"] = manifest.name, manifest.version, len(items)
        if answer.model is not model:  # The candidate, or another version that went live meanwhile.
            wanted = wanted_outputs(asked, manifest)
        outputs = _whole(answer)
        content, length = await taken.work(size_bytes(outputs), partial(write, asked, wanted, manifest, outputs))
    if length is None:
        return Response(content, media_type="application/json")
    return Response(content, media_type="application/octet-stream", headers={LENGTH_HEADER: str(length)})


async def _read(
    taken: Intake, body: bytes, model: LiveModel, service: Service
) -> tuple[InferRequest | None, list[Item]]:
    """Read what is asked; of a body that is one raw tensor, there is nothing else."""
    spec = input_of(model.manifest)
    scope = taken.request.scope
    said = header(scope, LENGTH_HEADER.lower().encode())
    length = len(body) if said is None else json_length(said, body, header(scope, b"content-type"))
    if length is None:
        return None, [raw_item(body, spec, model.kind)]
    taken.loan.take(await taken.work(len(body), partial(json_bytes, body, length)))
    limits = BodyLimits(service.settings.max_items, service.settings.max_text_chars)

    def read() -> tuple[InferRequest, list[Item]]:
        parsed = parse_request(body, length)
        return parsed.request, items_of(parsed, spec, model.kind, limits)

    return await taken.work(len(body), read)


def _metadata(service: Service, model: LiveModel) -> ModelMetadata:
    manifest = model.manifest
    return ModelMetadata(
        name=manifest.name,
        versions=sorted(
            (live.manifest.version for live in service.registry.versions_of(manifest.name)), key=version_order
        ),
        platform=PLATFORMS[model.loaded.backend.format],
        inputs=[_tensor(input_of(manifest))],
        outputs=[_tensor(spec) for spec in outputs_of(manifest)],
    )


def _addressed(registry: Registry, name: str, version: str | None, key: str | None) -> LiveModel:
    """Return the version whose metadata a client went by: not the candidate, though that may answer."""
    current = registry.live.get(name)
    return current if key is not None and current is not None else registry.resolve(name, version, key)


def _suits_candidate(candidate: LiveModel | None, asked: LiveModel, items: Sequence[Item]) -> bool:
    """Whether the candidate can answer, or be asked too: what is encoded each model decodes for itself."""
    prepared = any(item.array is not None for item in items)
    return candidate is None or not prepared or takes_alike(candidate.manifest, asked.manifest)


def _tensor(spec: Spec) -> TensorMetadata:
    return TensorMetadata.model_validate({**spec._asdict(), "shape": list(spec.shape)})


def _ready(service: Service, name: str, version: str | None) -> ModelReady:
    service.registry.resolve(name, version)
    if service.leaving:
        raise Draining("the service is about to stop; ask another instance", retry_after_s=1)
    return ModelReady(name=name, ready=True)


def _whole(answer: Answer) -> list[Raw]:
    """Return what the model gave; the protocol has no place for a part of it."""
    for index, outcome in enumerate(answer.outcomes):
        if isinstance(outcome, ServingError):
            where = f"item {index}: " if len(answer.outcomes) > 1 else ""
            raise type(outcome)(where + outcome.detail, outcome.retry_after_s)
    return [outcome for outcome in answer.outcomes if isinstance(outcome, Raw)]
