"""What stops a training run on purpose: one clear line each, and nothing published.

TrainingError
├── DataUnavailable   the data set is not there, or not the one it should be
└── GateFailed        trained, but the exported file is not good enough to publish
"""


class TrainingError(Exception):
    """The root of what `training` raises on purpose."""


class DataUnavailable(TrainingError):
    """The data set is not there, or its bytes are not the ones they should be."""


class GateFailed(TrainingError):
    """The exported file is not good enough to publish; the message says what failed."""
