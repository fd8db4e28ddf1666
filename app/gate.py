"""Who is let in while the event loop itself is what requests wait for, as it is where a model takes microseconds.

To look at a request and refuse it takes the loop a good part of what an answer takes, and where many are refused
little time is left for answers. So whoever would wait too long for the loop is refused where its headers are read:
before it costs a task, a place in the queue or a line in the log. Used on the event loop only.
"""

import asyncio
import logging

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
RETRY_AFTER_S = 1
REFUSED = Overloaded("more is asked than can be looked at; allow more time or try again later")


class Gate:
    """Counts who waits for the event loop, measures how long that takes, and refuses who would wait too long.

    Args:
        metrics: Where refusals are counted.
        longest_s: That a request gives which does not say.
    """

    def __init__(self, metrics: Metrics, longest_s: float) -> None:
        self._metrics = metrics
        self._longest_s = longest_s
        self._waiting = 0
        self._each_s = 0.0
        self._refused = 0
        self._telling: asyncio.TimerHandle | None = None
        self._before, self._after = _problem()
        self._failure = bytes(failure(REFUSED).body)

    def lets_in(self, headers: Headers) -> bool:
        """Whether a request would be looked at soon enough."""
        # Where nobody waits one is let in whatever was measured: only so it is found out that it got better.
        wait_s = self._waiting * self._each_s
        return wait_s <= SHORT_S or wait_s <= WAIT_SHARE * self._given_s(headers)

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

    def refusal(self, path: str, headers: Headers) -> tuple[bytes, bytes]:
        """Refuse a request: count it, and give its answer's headers, each with its end, and body."""
        self._metrics.requests.count("", "", "unmatched", Overloaded.code)
        self._refused += 1
        if self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(TELL_EVERY_S, self._tell)
        name = request_id(first(headers, b"x-request-id")).encode()
        media_type, body = b"application/problem+json", self._before + name + self._after
        if is_open_inference(path):
            media_type, body = b"application/json", self._failure
        head = b"content-type: %s\r\nretry-after: %d\r\ncontent-length: %d\r\nx-request-id: %s\r\n" % (
            media_type,
            RETRY_AFTER_S,
            len(body),
            name,
        )
        return head, body

    def _given_s(self, headers: Headers) -> float:
        try:
            asked_s = asked_timeout_s(headers)
        except ValueError:
            asked_s = None  # It is told so when it is looked at.
        return self._longest_s if asked_s is None else min(self._longest_s, asked_s)

    def _tell(self) -> None:
        # One line for all: there is no time for more.
        logger.warning("%d requests were refused: the event loop cannot keep up", self._refused)
        self._refused, self._telling = 0, None


def _problem() -> tuple[bytes, bytes]:
    """Write the body of a refusal, before and after its request's id."""
    mark = "-"
    before, _, after = bytes(problem(REFUSED, mark).body).partition(f'"{mark}"'.encode())
    return before + b'"', b'"' + after
