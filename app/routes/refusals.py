"""What the gate is told of requests that a model had no time for."""

import time

from fastapi import Request

from app.errors import Overloaded
from app.gate import Queue
from app.service import Service


def remember(request: Request, service: Service, refused: Overloaded) -> None:
    """Have requests like this one refused where their headers are read, while they would be refused anyway.

    Args:
        request: Whose URL and content type say which model it asks, whatever its body.
        service: Whose gate it came through.
        refused: Why it was not answered.
    """
    state = request.scope["state"]
    if "url" not in state or refused.about is None:
        return
    if refused.about[0] in service.registry.candidates:  # Who asks decides which version is asked.
        return
    now_s, given_s = time.monotonic(), service.gate.given_s(request.scope["headers"])
    until_s = refused.until_s(given_s)
    if until_s > now_s:
        queue = Queue(given_s, until_s, refused.retry_after, (*refused.about, request.scope["route"].path))
        service.gate.remember(state["url"], request.scope["headers"], queue, now_s)
