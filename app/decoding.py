"""Bytes -> one example tensor, in a pool of threads: codecs release the GIL, and the event loop stays free."""

import base64
import binascii
import logging
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
    UndecodableImage,
)
from app.items import Item
from models.manifest import ImageDecoding
from models.preprocessing import decode_image

logger = logging.getLogger(__name__)


class Decoder:
    """Decodes admitted items and hands them to their batcher.

    Args:
        threads: Number of threads.
        max_pixels: The service's own limit; the tighter of this and the model's applies.
        clock: Monotonic seconds, the batchers' own.
    """

    def __init__(self, threads: int, max_pixels: int, clock: Clock = time.monotonic) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._max_pixels = max_pixels
        self._clock = clock

    def submit(self, batcher: Batcher, ticket: Ticket, item: Item, decoding: ImageDecoding) -> None:
        """Have an item decoded; its ticket is then queued, or failed with the reason."""
        self._pool.submit(self._run, batcher, ticket, item, decoding)

    def close(self) -> None:
        """Stop the threads once they have finished what they hold."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _run(self, batcher: Batcher, ticket: Ticket, item: Item, decoding: ImageDecoding) -> None:
        if ticket.abandoned:
            return
        if self._clock() >= ticket.deadline_s:
            batcher.fail(ticket, DeadlineExceeded("the time ran out before the item was decoded"))
            return
        try:
            example = self._decode(item, decoding)
        except ServingError as error:
            batcher.fail(ticket, error)
        except Exception:
            logger.exception("decoding failed")
            batcher.fail(ticket, InternalError("the item could not be decoded; the service's log says why"))
        else:
            batcher.put(ticket, example)

    def _decode(self, item: Item, decoding: ImageDecoding) -> Tensor:
        content = _from_base64(item.content) if item.base64 else item.content
        try:
            return decode_image(content, decoding, self._max_pixels)
        except models.errors.ImageTooLarge as error:
            raise ImageTooLarge(str(error)) from None
        except models.errors.UndecodableImage as error:
            raise UndecodableImage(str(error)) from None


def _from_base64(content: bytes) -> bytes:
    try:
        return base64.b64decode(content, validate=True)
    except binascii.Error as error:
        raise InvalidRequest(f"image: is not base64: {error}") from None
