"""Every failure of a request, and the one table from code to HTTP status.

    headers ──> bytes ──────> items ───────────> ticket ────────────> example ───────────> scores ────> reply
      │           │             │                  │                    │                    │
      │           │             │                  │                    │                    └ inference_failed
      │           │             │                  │                    └ undecodable_image, image_too_large
      │           │             │                  └ overloaded, model_not_ready
      │           │             └ invalid_request, too_many_items, text_too_long, (model|version)_not_found
      │           └ body_too_large, unsupported_media_type
      └ unauthorized, rate_limited                                   deadline_exceeded, draining: anywhere

A failure knows its code; only this table knows HTTP. Bodies are RFC 9457 problem details; under /v2 they are what
the Open Inference Protocol has instead.
"""

import math
from http import HTTPStatus
from typing import Any, ClassVar

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic_core import ErrorDetails, to_json
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import Scope

from app.schemas import ItemError

STATUS_BY_CODE = {
    "undecodable_image": 400,
    "unauthorized": 401,
    "not_found": 404,
    "model_not_found": 404,
    "version_not_found": 404,
    "method_not_allowed": 405,
    "refused": 409,
    "body_too_large": 413,
    "image_too_large": 413,
    "text_too_long": 413,
    "too_many_items": 413,
    "unsupported_media_type": 415,
    "invalid_request": 422,
    "rate_limited": 429,
    "inference_failed": 500,
    "internal_error": 500,
    "overloaded": 503,
    "draining": 503,
    "model_not_ready": 503,
    "deadline_exceeded": 504,
    "storage_full": 507,
}
# That protocol has one status for whatever is wrong with a request.
OPEN_INFERENCE_STATUS = {409: 400, 415: 400, 422: 400}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
PHRASES = {int(status): status.phrase for status in HTTPStatus}
RETRY_LATER = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})
UNEXPECTED = "the service failed; its log says why, under this request id"
CLIENT_CLOSED_REQUEST = 499  # nginx's code for the log: nobody is left to read an answer


class ServingError(Exception):
    """A failure with a code of the table, and a sentence that says what to do."""

    code: ClassVar[str]

    def __init__(self, detail: str, retry_after_s: float | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after_s = retry_after_s
        # The model and version it was about, once they are known; for the log and the metrics.
        self.about: tuple[str, str] | None = None

    @property
    def status(self) -> int:
        """The HTTP status of the code."""
        return STATUS_BY_CODE[self.code]

    @property
    def retry_after(self) -> int:
        """What the header of that name says: whole seconds, at least 1."""
        return max(1, math.ceil(self.retry_after_s or 1))


class UndecodableImage(ServingError):
    """The bytes are not a supported, whole image."""

    code = "undecodable_image"


class Unauthorized(ServingError):
    """API keys are configured, and the request has none that is valid."""

    code = "unauthorized"


class RateLimited(ServingError):
    """One client asks more often than it may."""

    code = "rate_limited"


class NotFound(ServingError):
    """No such route."""

    code = "not_found"


class ModelNotFound(ServingError):
    """No model of that name is in the repository."""

    code = "model_not_found"


class VersionNotFound(ServingError):
    """That version of the model is not live."""

    code = "version_not_found"


class MethodNotAllowed(ServingError):
    """The route does not take this method."""

    code = "method_not_allowed"


class Refused(ServingError):
    """The repository does not take a change."""

    code = "refused"


class BodyTooLarge(ServingError):
    """The request's body is over the limit."""

    code = "body_too_large"


class ImageTooLarge(ServingError):
    """The image has more pixels than allowed."""

    code = "image_too_large"


class TextTooLong(ServingError):
    """The text is longer than allowed."""

    code = "text_too_long"


class TooManyItems(ServingError):
    """The request holds more items than allowed."""

    code = "too_many_items"


class UnsupportedMediaType(ServingError):
    """The content type is none that /predict takes."""

    code = "unsupported_media_type"


class InvalidRequest(ServingError):
    """A field is off; the detail names it."""

    code = "invalid_request"


class InferenceFailed(ServingError):
    """The model raised, or gave no usable scores; logged whole, never leaked."""

    code = "inference_failed"


class InternalError(ServingError):
    """A fault of ours; logged whole, never leaked."""

    code = "internal_error"


class Overloaded(ServingError):
    """Refused at admission: the queue is full, or the deadline would be missed.

    Args:
        detail: See `ServingError`.
        retry_after_s: See `ServingError`.
        free_s: When, on the monotonic clock, there is room for another; None if that is not what is wanting, or is
            not known.
        answer_s: When the answer was expected, on the same clock; None as of `free_s`.
    """

    code = "overloaded"

    def __init__(
        self,
        detail: str,
        retry_after_s: float | None = None,
        *,
        free_s: float | None = None,
        answer_s: float | None = None,
    ) -> None:
        super().__init__(detail, retry_after_s)
        self.free_s = free_s
        self.answer_s = answer_s

    def until_s(self, given_s: float) -> float:
        """Until when others that ask the same are refused too, if each allows so many seconds from when it came.

        How much of its time the refused one had left tells nothing of others: its body may have come slowly.
        """
        if self.free_s is not None:
            return self.free_s
        return -math.inf if self.answer_s is None else self.answer_s - given_s


class Draining(ServingError):
    """Refused at admission, or given up unanswered: the process is about to exit."""

    code = "draining"


class ModelNotReady(ServingError):
    """The model is not loaded yet, or could not be."""

    code = "model_not_ready"


class StorageFull(ServingError):
    """There is no room for what was to be stored."""

    code = "storage_full"


class DeadlineExceeded(ServingError):
    """Admitted, but its time ran out."""

    code = "deadline_exceeded"


class ClientDisconnected(Exception):
    """The client went away; nobody is left to answer."""


def render(error: ServingError, scope: Scope) -> Response:
    """Render a failure of a request, as its protocol has it."""
    if is_open_inference(scope["path"]):
        return failure(error)
    return problem(error, scope["state"]["request_id"])


def is_open_inference(path: str) -> bool:
    """Whether a path is one of the Open Inference Protocol's."""
    return path.startswith("/v2/") or path == "/v2"


def failure(error: ServingError) -> Response:
    """Render a failure as the Open Inference Protocol has it."""
    status = OPEN_INFERENCE_STATUS.get(error.status, error.status)
    return Response(
        to_json({"error": error.detail}),
        status_code=status,
        headers=_headers(error, status),
        media_type="application/json",
    )


def problem(error: ServingError, request_id: str, errors: list[ItemError] | None = None) -> Response:
    """Render a failure as problem details."""
    status = error.status
    # A schemas.Problem, written without making one: many are refused when there is most to do.
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": PHRASES[status],
        "status": status,
        "detail": error.detail,
        "code": error.code,
        "request_id": request_id,
    }
    if errors:
        body["errors"] = [each.model_dump() for each in errors]
    return Response(
        to_json(body),
        status_code=status,
        headers=_headers(error, status),
        media_type="application/problem+json",
    )


def install(app: FastAPI) -> None:
    """Render every failure that reaches the app through `render`."""

    @app.exception_handler(ServingError)
    def serving_error(request: Request, error: ServingError) -> Response:
        return answer(request, error)

    @app.exception_handler(RequestValidationError)
    def validation_error(request: Request, error: RequestValidationError) -> Response:
        return answer(request, InvalidRequest(explain(error.errors()[0])))

    @app.exception_handler(HTTPException)
    def http_error(request: Request, error: HTTPException) -> Response:
        response = answer(request, _from_http(request, error))
        response.headers.update(error.headers or {})
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            response.headers["Allow"] = ", ".join(_methods_of(request))
        return response

    @app.exception_handler(Exception)
    def unexpected(request: Request, _error: Exception) -> Response:
        # It is raised again, and logged, by whoever calls the app.
        return render(InternalError(UNEXPECTED), request.scope)


def answer(request: Request, error: ServingError) -> Response:
    """Render a failure for a request, for which it is noted; nobody asks any more where it was raised."""
    note(request, error)
    forget_frames(error)
    return render(error, request.scope)


def forget_frames(error: Exception) -> None:
    """Let go of what held the request when its failure was raised.

    The frames know the request, which knows its failure, which knows the frames: a body would stay until the
    garbage collector comes by, which counts objects and not their megabytes.
    """
    error.__traceback__ = error.__context__ = error.__cause__ = None


def note(request: Request, error: ServingError) -> None:
    """Leave with the request what its log line and its metrics are to say of a failure."""
    state = request.scope["state"]
    state["code"], state["detail"] = error.code, error.detail
    if error.about is not None:
        state["model"], state["version"] = error.about


def explain(first: ErrorDetails) -> str:
    """Say which field is off and how, from one of pydantic's errors."""
    field = ".".join(str(step) for step in first["loc"]) or "body"
    return f"{field}: {first['msg']}"


def _headers(error: ServingError, status: int) -> dict[str, str]:
    headers = {}
    if status in RETRY_LATER:
        headers["Retry-After"] = str(error.retry_after)
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Bearer realm="lantern"'
    return headers


def _methods_of(request: Request) -> list[str]:
    """What a request's path takes; of several routes for one path, each alone knows only its own."""
    asked = {"type": "http", "path": request.scope["path"], "root_path": request.scope.get("root_path", "")}
    routes = request.app.router.routes
    return [
        method
        for method in METHODS
        if any(route.matches(asked | {"method": method})[0] is Match.FULL for route in routes)
    ]


def _from_http(request: Request, error: HTTPException) -> ServingError:
    if error.status_code == HTTPStatus.NOT_FOUND:
        return NotFound(f"no route {request.url.path}; /docs lists them")
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        return MethodNotAllowed(f"{request.url.path} does not take {request.method}")
    return InvalidRequest(str(error.detail))
