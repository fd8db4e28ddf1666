"""What the gate is told of requests that a model had no time for."""

import time

from fastapi import Request

from app.errors import Overloaded
from app.gate import Queue
from app.prediction import Ask
from app.service import Service


def remember(request: Request, service: Service, ask: Ask, refused: Overloaded) -> None:
    """Have requests like this one refused where their headers are read, while they would be refused anyway.

    Args:
        request: Whose URL and content type say which model it asks, whatever its body.
        service: Whose gate it came through.
        ask: What was asked.
        refused: Why it was not answered.
    """
    state = request.scope["state"]
    if "url" not in state or refused.until_s is None or refused.about is None:
        return
    if refused.about[0] in service.registry.candidates:  # Who asks decides which version is asked.
        return
    given_s = ask.deadline.at_s - ask.received_s
    about = (*refused.about, request.scope["route"].path)
    queue = Queue(given_s, refused.until_s, refused.retry_after, about)
    service.gate.remember(state["url"], request.scope["headers"], queue, time.monotonic())
