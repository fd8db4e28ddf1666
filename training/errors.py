"""What stops a training run on purpose: one clear line each, and nothing published.

TrainingError
├── OptionInvalid        an option does not go with another, or with the data
├── CheckpointUnfit      there is nothing that this run can go on from
├── OutOfRoom            the disk has no room for what the run will write
├── DataUnavailable      the data set is not there, or not the one it should be
├── DataInvalid          it is there, but no model can be trained on it as it is
├── UnknownArchitecture  torchvision has no classifier of that name
├── WeightsUnavailable   the weights to begin with are not there, or cannot be fetched
├── WeightsUnfit         they are there, but not those of the architecture and the labels
├── Diverged             the loss is no number, and never was one
└── GateFailed           trained, but the exported file is not good enough to publish
    └── NotAccurate      another form of it gives labels that differ too often
"""


class TrainingError(Exception):
    """The root of what `training` raises on purpose."""


class OptionInvalid(TrainingError):
    """An option does not go with another, or with the data; the message names it."""


class CheckpointUnfit(TrainingError):
    """The checkpoint is not one that this run can go on from."""


class OutOfRoom(TrainingError):
    """The disk has no room for what the run will write; told before it begins."""


class DataUnavailable(TrainingError):
    """The data set is not there, or its bytes are not the ones they should be."""


class DataInvalid(TrainingError):
    """The data set is there, but no model can be trained on it as it is; the message says what to change."""


class UnknownArchitecture(TrainingError):
    """torchvision has no classifier of that name."""


class WeightsUnavailable(TrainingError):
    """The weights to begin with are not there, or cannot be fetched; of another architecture they may be."""


class WeightsUnfit(TrainingError):
    """A file holds no weights, or not those of the architecture and the labels."""


class Diverged(TrainingError):
    """The loss is no number, and no epoch before it can be kept."""


class GateFailed(TrainingError):
    """The exported file is not good enough to publish; the message says what failed."""


class NotAccurate(GateFailed):
    """Another form of a model gives labels that differ from its own too often; with the figures."""
