"""POST /feedback: what should have been answered, for the next training."""

import logging
import time
from functools import partial

from fastapi import APIRouter, Request

import models.errors
from app.base64_images import sent_base64, unpacked
from app.errors import InternalError, InvalidRequest, Overloaded, StorageFull, TextTooLong, UndecodableImage
from app.registry import LiveModel
from app.routes.intake import Intake, intake
from app.routes.json_body import body_of, parsed
from app.routes.problems import documented
from app.routes.service import ServiceOf
from app.schemas import FeedbackRequest, Stored
from app.service import Service
from models.feedback import PATIENCE_S, Correction, FeedbackStore
from models.preprocessing import is_image_file

logger = logging.getLogger(__name__)

router = APIRouter(tags=["feedback"])

BODIES = (FeedbackRequest,)
BUSY_RETRY_AFTER_S = 5


@router.post(
    "/feedback",
    summary="Correct an answer",
    status_code=201,
    responses=documented(400, 404, 413, 415, 422, 500, 503, 504, 507),
    openapi_extra=body_of(FeedbackRequest, required=True),
)
async def feedback(request: Request, service: ServiceOf) -> Stored:
    """Once this is answered, it is on the disk. With its input, `python -m training ... --feedback` learns it."""
    with intake(request, service) as taken:
        asked = await parsed(taken, FeedbackRequest)
        model = service.registry.resolve(asked.model)
        sent = asked.image or asked.text or ""
        taken.loan.take(len(sent))
        correction = Correction(
            asked.request_id,
            getattr(request.state, "caller", ""),
            asked.model,
            _answer(asked, model, service),
            model.kind if asked.has_input else None,
            await _content(asked, model, taken, service),
        )
        # From now on: where many wait for one another, each waits no longer for all of them.
        give_up_s = time.monotonic() + PATIENCE_S
        job = partial(_store, service, correction, give_up_s)
        return Stored(id=await taken.on_thread(job, service.feedback_pool))


def _store(service: Service, correction: Correction, give_up_s: float) -> int:
    file = service.settings.feedback_file
    assert file is not None, "without a file there is no such route"  # noqa: S101
    try:
        store = FeedbackStore(file, service.settings.feedback_max_bytes)
        return store.add(correction, max(0.0, give_up_s - time.monotonic()))
    except models.errors.FeedbackFull as error:
        raise StorageFull(str(error)) from None
    except models.errors.FeedbackBusy as error:
        raise Overloaded(str(error), retry_after_s=BUSY_RETRY_AFTER_S) from None
    except models.errors.FeedbackUnavailable as error:
        logger.error("%s", error)
        raise InternalError("the correction could not be stored; the service's log says why") from None


def _answer(asked: FeedbackRequest, model: LiveModel, service: Service) -> str:
    labels = model.manifest.labels
    if labels and asked.label not in labels:
        where = f"GET /models/{asked.model} lists them"
        raise InvalidRequest(f"label: {asked.label[:80]!r} is none of the model's; {where}")
    if len(asked.label) > service.settings.max_text_chars:
        raise TextTooLong(f"label: has over {service.settings.max_text_chars} characters")
    return asked.label


async def _content(asked: FeedbackRequest, model: LiveModel, taken: Intake, service: Service) -> bytes | None:
    if not asked.has_input:
        return None
    if (asked.text is None) == (model.kind == "text"):
        raise InvalidRequest(f"{asked.model} takes {model.kind}s; send the input as {model.kind}")
    if asked.text is None:
        # However small it is: what its header says is read in Python.
        return await taken.on_thread(partial(_image, asked.image or "", service.settings.max_image_pixels))
    if not asked.text.strip():
        raise InvalidRequest("text: is empty")
    if len(asked.text) > service.settings.max_text_chars:
        raise TextTooLong(f"text: has over {service.settings.max_text_chars} characters")
    return asked.text.encode()


def _image(sent: str, max_pixels: int) -> bytes:
    try:
        content = unpacked(sent_base64(sent))
    except InvalidRequest as error:
        raise InvalidRequest(f"image: {error.detail}") from None
    if not is_image_file(content, max_pixels):
        raise UndecodableImage(f"the {len(content)} bytes are no image that could be learned from")
    return content
