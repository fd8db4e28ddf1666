"""What surrounds every exchange: its id, its line in the log, its place in the metrics, and its last resort."""

import logging
import time
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.access import OPEN_PATHS
from app.errors import CLIENT_CLOSED_REQUEST, UNEXPECTED, ClientDisconnected, InternalError, render
from app.headers import header, request_id
from app.service import Service

logger = logging.getLogger("lantern.request")

QUIET_ROUTES = OPEN_PATHS | {"/metrics"}


class ExchangeMiddleware:
    """Gives each request an id, logs one line for it, counts it, and answers what nothing else caught."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one exchange."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, send, self._service)
        metrics = self._service.metrics
        metrics.requests_in_flight += 1
        try:
            await self._app(scope, receive, exchange.send)
        except ClientDisconnected:
            exchange.status = CLIENT_CLOSED_REQUEST
            exchange.state["code"] = "client_disconnected"
        except Exception:
            logger.exception("unexpected failure", extra={"request_id": exchange.request_id})
            await exchange.fail(receive)
        finally:
            metrics.requests_in_flight -= 1
            # The connection knows its request: two that know each other wait for the garbage collector.
            exchange.state.pop("connection", None)
        exchange.finish()


class _Exchange:
    def __init__(self, scope: Scope, send: Send, service: Service) -> None:
        self.status = 0
        self.request_id = request_id(header(scope, b"x-request-id"))
        self.state: dict[str, Any] = scope.setdefault("state", {})
        self.state["request_id"] = self.request_id
        now_s = time.monotonic()
        # The server's own, if it says when: what waits for the event loop waits already.
        self.received_s: float = self.state.setdefault("received_s", now_s)
        if place := self.state.pop("place", 0):
            service.gate.start(place, now_s - self.received_s)
        self._scope = scope
        self._send = send
        self._service = service

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [*message.get("headers", ()), (b"x-request-id", self.request_id.encode())]
            if self._service.leaving:
                # A client that keeps its connection would otherwise find out only when it is cut.
                headers.append((b"connection", b"close"))
            message["headers"] = headers
        await self._send(message)

    async def fail(self, receive: Receive) -> None:
        self.state["code"] = InternalError.code
        if self.status:
            return  # An answer has begun, so no other can be given.
        await render(InternalError(UNEXPECTED), self._scope)(self._scope, receive, self.send)

    def finish(self) -> None:
        elapsed_s = time.monotonic() - self.received_s
        route = getattr(self._scope.get("route"), "path", "unmatched")
        code = self.state.get("code", "ok")
        model, version = self.state.get("model", ""), self.state.get("version", "")
        metrics = self._service.metrics
        metrics.requests.count(model, version, route, code)
        metrics.request_seconds.observe(elapsed_s, route)
        # Probes come every few seconds for ever; they are of interest only when something else is wrong.
        level = logging.DEBUG if route in QUIET_ROUTES else logging.INFO
        if logger.isEnabledFor(level):
            logger.log(level, "request", extra={"fields": self._fields(code, elapsed_s)})

    def _fields(self, code: str, elapsed_s: float) -> dict[str, Any]:
        fields = {
            "request_id": self.request_id,
            "method": self._scope["method"],
            "path": self._scope["path"],
            "status": self.status,
            "code": code,
            "duration_ms": round(1000 * elapsed_s, 3),
            "client": (self._scope.get("client") or ("",))[0],
        }
        told = ("caller", "model", "version", "items", "detail")
        return fields | {key: self.state[key] for key in told if key in self.state}
