"""Who is refused where its headers are read: before it costs a task, its body, or a line in the log.

To look at a request and refuse it takes the loop a good part of what an answer takes, and where many are refused
little time is left for answers. So here is refused who would wait too long for the event loop itself, as happens
where a model takes microseconds, and who asks what another was just refused: of those that are too many for a
model, about as many are looked at as are answered. Used on the event loop only.
"""

import asyncio
import logging
from typing import NamedTuple

from app.errors import Overloaded, failure, is_open_inference, problem
from app.headers import Headers, asked_timeout_s, first, request_id
from app.metrics import Metrics

logger = logging.getLogger(__name__)

SMOOTHING = 0.02
MOST_SLOWER = 4.0
# Of the time that a request gives: it waits for the loop before its batch, and twice after it.
WAIT_SHARE = 0.1
# Less than this is waited for by whoever asks for an answer within any time that can be met.
SHORT_S = 0.001
TELL_EVERY_S = 1.0
# For so long at most a refusal speaks for others: those that it waited behind may leave at any time.
BELIEVED_S = 0.05
# Ways of asking that are remembered; a client may think up any number.
MOST_WAYS = 64
REFUSED = Overloaded("more is asked than can be answered in time; allow more time or try again later")


class Queue(NamedTuple):
    """What is too long to wait for.

    Attributes:
        given_s: Who allows no more than this is refused.
        until_s: Until then, on the monotonic clock.
        retry_after_s: What it is told, at least 1.
        about: The model, its version and the route that refusals are counted for.
    """

    given_s: float
    until_s: float
    retry_after_s: int
    about: tuple[str, str, str]


LOOP = Queue(0.0, 0.0, 1, ("", "", "unmatched"))


class Gate:
    """Counts who waits for the event loop, measures how long that takes, and refuses who would wait too long.

    It remembers besides, for a moment, who was refused by a model.

    Args:
        metrics: Where refusals are counted.
        longest_s: That a request gives which does not say.
    """

    def __init__(self, metrics: Metrics, longest_s: float) -> None:
        self._metrics = metrics
        self._longest_s = longest_s
        self._waiting = 0
        self._each_s = 0.0
        self._queues: dict[tuple[bytes, str], Queue] = {}
        self._refused = 0
        self._telling: asyncio.TimerHandle | None = None
        self._before, self._after = _problem()
        self._failure = bytes(failure(REFUSED).body)

    def given_s(self, headers: Headers) -> float:
        """Return how much time a request gives, as far as its headers say."""
        try:
            asked_s = asked_timeout_s(headers)
        except ValueError:
            asked_s = None  # It is told so when it is looked at.
        return self._longest_s if asked_s is None else min(self._longest_s, asked_s)

    def too_long(self, url: bytes, headers: Headers, now_s: float) -> Queue | None:
        """Return what a request that comes now would wait too long for; None lets it in."""
        # Where nobody waits one is let in whatever was measured: only so it is found out that it got better.
        wait_s = self._waiting * self._each_s
        if wait_s > SHORT_S and wait_s > WAIT_SHARE * self.given_s(headers):
            return LOOP
        queue = self._queues.get(_way(url, headers)) if self._queues else None
        if queue is None or now_s >= queue.until_s or self.given_s(headers) > queue.given_s:
            return None
        return queue

    def remember(self, url: bytes, headers: Headers, queue: Queue, now_s: float) -> None:
        """Refuse, for a moment, whoever asks the same way.

        Args:
            url: As it was sent. It says, with the content type, which model is asked.
            headers: Of the request that was refused now.
            queue: Why.
            now_s: On the monotonic clock.
        """
        way = _way(url, headers)
        if way not in self._queues and len(self._queues) >= MOST_WAYS:
            self._queues.clear()
        self._queues[way] = queue._replace(until_s=min(queue.until_s, now_s + BELIEVED_S))

    def enter(self) -> int:
        """Count one more who waits, and give it its place, from 1."""
        self._waiting += 1
        return self._waiting

    def start(self, place: int, waited_s: float) -> None:
        """Take note that a request is looked at, and how long it waited for that."""
        self._waiting -= 1
        # A moment in which the whole process was held up is not taken for its speed.
        each_s = min(waited_s / place, MOST_SLOWER * self._each_s + SHORT_S)
        self._each_s += SMOOTHING * (each_s - self._each_s)

    def refusal(self, queue: Queue, path: str, headers: Headers) -> tuple[bytes, bytes]:
        """Refuse a request: count it, and give its answer's headers, each with its end, and body."""
        self._metrics.requests.count(*queue.about, Overloaded.code)
        self._refused += 1
        if self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(TELL_EVERY_S, self._tell)
        name = request_id(first(headers, b"x-request-id")).encode()
        media_type, body = b"application/problem+json", self._before + name + self._after
        if is_open_inference(path):
            media_type, body = b"application/json", self._failure
        head = b"content-type: %s\r\nretry-after: %d\r\ncontent-length: %d\r\nx-request-id: %s\r\n" % (
            media_type,
            queue.retry_after_s,
            len(body),
            name,
        )
        return head, body

    def _tell(self) -> None:
        # One line for all: there is no time for more.
        logger.warning("%d more requests were refused: they could not be answered in time", self._refused)
        self._refused, self._telling = 0, None


def _way(url: bytes, headers: Headers) -> tuple[bytes, str]:
    return url, (first(headers, b"content-type") or "").partition(";")[0]


def _problem() -> tuple[bytes, bytes]:
    """Write the body of a refusal, before and after its request's id."""
    mark = "-"
    before, _, after = bytes(problem(REFUSED, mark).body).partition(f'"{mark}"'.encode())
    return before + b'"', b'"' + after
