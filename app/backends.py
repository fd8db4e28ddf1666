"""Which forms of a model serve here.

A bundle's own order counts, fastest first as its publisher measured them; what this machine, the device or the
settings do not allow is passed over, and the log says why. TorchScript in fp32 is always there, and comes last.
"""

import logging
from collections.abc import Sequence

import torch

from app.settings import Precision
from models.backend import Backend
from models.instructions import missing
from models.manifest import Manifest

logger = logging.getLogger(__name__)


def usable(manifest: Manifest, device: torch.device, precision: Precision) -> Sequence[Backend]:
    """Return the backends that may serve a model on a device, the one to try first at the front.

    Args:
        manifest: The model's.
        device: Where it is to run.
        precision: `auto` takes any: each was measured to be accurate enough before it was published. Another takes
            those in that precision, and then fp32.
    """
    allowed = [each for each in manifest.backends if device.type in each.devices]
    if precision != "auto":
        allowed = [each for each in allowed if each.precision == precision] + [
            each for each in allowed if each.precision == "fp32" != precision
        ]
    found = []
    for backend in sorted(allowed, key=lambda each: each.is_reference):
        if reason := missing(backend.requires, device):
            logger.info("%s of %s is passed over: %s", backend.id, manifest.name, reason)
        else:
            found.append(backend)
    return found
