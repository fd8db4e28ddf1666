"""An item's bytes -> one example tensor; on a worker's thread, so that the event loop stays free."""

from torch import Tensor

import models.errors
from app.base64_images import unpacked
from app.errors import ImageTooLarge, InvalidRequest, ServingError, TextTooLong, UndecodableImage
from app.items import Item
from models.preparation import ImagePreparation, TextPreparation

# What the bytes are at fault for, as a client is told it.
_FAILURES: tuple[tuple[type[models.errors.ExampleError], type[ServingError]], ...] = (
    (models.errors.ImageTooLarge, ImageTooLarge),
    (models.errors.UndecodableImage, UndecodableImage),
    (models.errors.TextTooLong, TextTooLong),
    (models.errors.ExampleError, InvalidRequest),
)


def decode(item: Item, preparation: ImagePreparation | TextPreparation) -> Tensor:
    """Turn an item into an example.

    Raises:
        ServingError: Its bytes are at fault.
    """
    try:
        if item.array is not None:
            return preparation.accept(item.array)
        return preparation.prepare(unpacked(item.content) if item.base64 else item.content)
    except models.errors.ExampleError as error:
        failure = next(failure for kind, failure in _FAILURES if isinstance(error, kind))
        raise failure(str(error)) from None
