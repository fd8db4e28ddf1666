"""POST /predict, and the same addressed to a model or a version."""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic_core import to_json

from app.bodies import IMAGE_TYPES, WHOLE_IMAGES, BodyLimits, parse_body
from app.errors import InvalidRequest, Overloaded, ServingError, note, problem
from app.form import FORM_TYPE
from app.headers import header
from app.prediction import Answer, Ask
from app.responding import DEFAULT_TOP_K
from app.routes.intake import intake
from app.routes.problems import documented
from app.routes.refusals import remember
from app.routes.routing import ROUTING_PARAMETER, routing_key
from app.routes.service import ServiceOf
from app.schemas import EXAMPLE_IMAGE, ImageInstance, ItemError, JsonRequest, PredictReply, TextInstance
from app.service import Service

router = APIRouter(tags=["predict"])

Value = TypeVar("Value")
TopK = Annotated[int | None, Query(ge=1, description=f"Number of labels in `top`; {DEFAULT_TOP_K} if left out.")]
ModelQuery = Annotated[str | None, Query(description="Model to ask; the default one for the input if left out.")]
ModelPath = Annotated[str, Path(description="Model to ask.")]
VersionPath = Annotated[str, Path(description="Version to ask; it must be live.")]

_IMAGE = {"schema": {"type": "string", "contentMediaType": "application/octet-stream", "format": "binary"}}
_INSTANCES = {
    "type": "array",
    "minItems": 1,
    "items": {"anyOf": [ImageInstance.model_json_schema(), TextInstance.model_json_schema()]},
}
_JSON_SCHEMA = JsonRequest.model_json_schema()
_JSON_SCHEMA["properties"]["instances"] |= _INSTANCES
REQUEST_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        **dict.fromkeys(IMAGE_TYPES, _IMAGE),
        FORM_TYPE: {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {
                    "file": {
                        "type": "array",
                        "minItems": 1,
                        "items": {"type": "string", "format": "binary"},
                        "description": "One or many image files, answered in order.",
                    }
                },
            }
        },
        "text/plain": {"schema": {"type": "string"}, "example": "Effective but too tepid biopic"},
        "application/json": {
            "schema": _JSON_SCHEMA,
            "example": {"instances": [{"image": EXAMPLE_IMAGE}], "top_k": 3},
        },
    },
}
_TIMEOUT_PARAMETER = {
    "name": "X-Request-Timeout-Ms",
    "in": "header",
    "required": False,
    "schema": {"type": "number", "exclusiveMinimum": 0},
    "example": 1000,
    "description": "Answer within this many milliseconds or not at all; the service's own limit if that is less.",
}
_ROUTE: dict[str, Any] = {
    "response_model": PredictReply,
    "responses": documented(400, 404, 413, 415, 422, 500, 503, 504),
    "openapi_extra": {"requestBody": REQUEST_BODY, "parameters": [_TIMEOUT_PARAMETER, ROUTING_PARAMETER]},
}


@router.post("/predict", summary="Predict with the default model", **_ROUTE)
async def predict(request: Request, service: ServiceOf, model: ModelQuery = None, top_k: TopK = None) -> Response:
    """Ask about images or texts: raw, a form of files, or JSON. Several items are answered in order."""
    return await _answer(request, service, model, None, top_k)


@router.post("/models/{name}/predict", summary="Predict with a model", **_ROUTE)
async def predict_with_model(
    request: Request, service: ServiceOf, name: ModelPath, top_k: TopK = None
) -> Response:
    """As `/predict`, addressed to a model."""
    return await _answer(request, service, name, None, top_k)


@router.post("/models/{name}/versions/{version}/predict", summary="Predict with a version", **_ROUTE)
async def predict_with_version(
    request: Request, service: ServiceOf, name: ModelPath, version: VersionPath, top_k: TopK = None
) -> Response:
    """As `/predict`, addressed to a version that must be live."""
    return await _answer(request, service, name, version, top_k)


async def _answer(
    request: Request, service: Service, model: str | None, version: str | None, top_k: int | None
) -> Response:
    settings = service.settings
    with intake(request, service) as taken:
        body = await taken.body()
        content_type = header(request.scope, b"content-type")
        limits = BodyLimits(settings.max_items, settings.max_text_chars)
        size_bytes = 0 if content_type in WHOLE_IMAGES else len(body)
        parsed = await taken.work(size_bytes, partial(parse_body, content_type, body, limits))
        failures = [item for item in parsed.items if isinstance(item, ServingError)]
        if len(failures) == len(parsed.items):
            # No model is asked: which one it would be may depend on what the items should have been.
            return _refuse(request, failures)
        ask = Ask(
            items=parsed.items,
            model=_agreed("model", model, parsed.model),
            version=version,
            top_k=_agreed("top_k", top_k, parsed.top_k) or DEFAULT_TOP_K,
            received_s=request.scope["state"]["received_s"],
            deadline=taken.deadline,
            key=routing_key(request) if service.registry.candidates else None,
        )
        try:
            answer = await service.predictor.predict(ask)
        except Overloaded as refused:
            # JSON may say in its body which model, and which kind of default one.
            if model is not None or content_type in WHOLE_IMAGES:
                remember(request, service, refused)
            raise
        return _reply(request, answer)


def _reply(request: Request, answer: Answer) -> Response:
    manifest, state = answer.model.manifest, request.scope["state"]
    state["model"], state["version"], state["items"] = manifest.name, manifest.version, len(answer.outcomes)
    failures = [outcome for outcome in answer.outcomes if isinstance(outcome, ServingError)]
    if len(failures) == len(answer.outcomes):
        return _refuse(request, failures)
    reply = {
        "model": manifest.name,
        "version": manifest.version,
        "request_id": state["request_id"],
        "predictions": [
            {"error": _item_error(outcome).model_dump()} if isinstance(outcome, ServingError) else outcome
            for outcome in answer.outcomes
        ],
        "timing_ms": answer.timing_ms,
    }
    return Response(to_json(reply), media_type="application/json")


def _refuse(request: Request, failures: Sequence[ServingError]) -> Response:
    """Answer a request of which every item failed."""
    note(request, failures[0])
    several = [_item_error(failure) for failure in failures] if len(failures) > 1 else None
    return problem(failures[0], request.scope["state"]["request_id"], several)


def _item_error(error: ServingError) -> ItemError:
    return ItemError(code=error.code, detail=error.detail)


def _agreed(field: str, in_url: Value | None, in_body: Value | None) -> Value | None:
    if in_url is not None and in_body is not None and in_url != in_body:
        raise InvalidRequest(f"{field}: the URL says {in_url!r}, the body {in_body!r}; say one")
    return in_body if in_url is None else in_url
