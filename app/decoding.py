"""Bytes -> one example tensor, in a pool of threads, so that the event loop stays free."""

import base64
import binascii
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from torch import Tensor

import models.errors
from app.batching import Batcher, Clock, Ticket
from app.errors import (
    DeadlineExceeded,
    ImageTooLarge,
    InternalError,
    InvalidRequest,
    ServingError,
    TextTooLong,
    UndecodableImage,
)
from app.items import Item
from models.preparation import Preparation

logger = logging.getLogger(__name__)

SMOOTHING = 0.1


class Decoder:
    """Decodes admitted items and hands them to their batcher.

    Args:
        threads: Number of threads.
        clock: Monotonic seconds, the batchers' own.
    """

    def __init__(self, threads: int, clock: Clock = time.monotonic) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._threads = threads
        self._counting = threading.Lock()
        self._unfinished = 0
        self._mean_s = 0.0
        self._clock = clock

    def wait_s(self, count: int) -> float:
        """How long `count` more items are expected to take behind those submitted; 0 for an idle pool."""
        with self._counting:
            return (self._unfinished + count) * self._mean_s / self._threads if self._unfinished else 0.0

    def submit(self, batcher: Batcher, ticket: Ticket, item: Item, preparation: Preparation) -> None:
        """Have an item decoded; its ticket is then queued, or failed with the reason."""
        # The pool's own queue holds the ticket, not the bytes: they go when nobody waits for them.
        ticket.item = item
        with self._counting:
            self._unfinished += 1
        self._pool.submit(self._run, batcher, ticket, preparation)

    def close(self) -> None:
        """Take in nothing more; what is being decoded ends on its own."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _run(self, batcher: Batcher, ticket: Ticket, preparation: Preparation) -> None:
        start_s = self._clock()
        try:
            self._decode_or_fail(batcher, ticket, preparation)
        finally:
            with self._counting:
                self._unfinished -= 1
                self._mean_s += SMOOTHING * (self._clock() - start_s - self._mean_s)

    def _decode_or_fail(self, batcher: Batcher, ticket: Ticket, preparation: Preparation) -> None:
        item = ticket.item
        if item is None:
            return
        if self._clock() >= ticket.deadline_s:
            batcher.fail(ticket, DeadlineExceeded("the time ran out before the item was decoded"))
            return
        try:
            example = _decode(item, preparation)
        except ServingError as error:
            batcher.fail(ticket, error)
        except Exception:
            logger.exception("decoding failed")
            batcher.fail(ticket, InternalError("the item could not be decoded; the service's log says why"))
        else:
            batcher.put(ticket, example)


# What the bytes are at fault for, as a client is told it.
_FAILURES: tuple[tuple[type[models.errors.ExampleError], type[ServingError]], ...] = (
    (models.errors.ImageTooLarge, ImageTooLarge),
    (models.errors.UndecodableImage, UndecodableImage),
    (models.errors.TextTooLong, TextTooLong),
    (models.errors.ExampleError, InvalidRequest),
)


def _decode(item: Item, preparation: Preparation) -> Tensor:
    content = _from_base64(item.content) if item.base64 else item.content
    try:
        return preparation.prepare(content)
    except models.errors.ExampleError as error:
        failure = next(failure for kind, failure in _FAILURES if isinstance(error, kind))
        raise failure(str(error)) from None


def _from_base64(content: bytes) -> bytes:
    try:
        # Encoders wrap lines; anything else that is no base64 is an error, not skipped.
        return base64.b64decode(content.translate(None, b" \t\r\n"), validate=True)
    except binascii.Error as error:
        raise InvalidRequest(f"the image is not base64: {error}") from None
