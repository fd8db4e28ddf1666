"""Which parameters of a network are matrices, and which of those are of its hidden layers."""

from collections.abc import Collection
from contextlib import suppress

from torch import nn

from training.architectures.heads import head_name

# An embedding is a table, and a normalisation has no matrix.
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.RNNBase, nn.MultiheadAttention)


def is_matrix(parameter: nn.Parameter) -> bool:
    """Whether a parameter is a matrix or kernels, and not a row of scales or offsets."""
    # A scale for each channel is a row, whatever axes of one stand beside it.
    return parameter.ndim == 2 or parameter.squeeze().ndim > 1


def hidden_weights(network: nn.Module) -> Collection[str]:
    """Return the names of the matrices and kernels between a network's input and its output.

    Not the layers that give logits, and not the kernels that read one channel or a group of them: rows that read
    different things have no angle between them.
    """
    answering = _answering(network)
    return {
        f"{place}.{name}".lstrip(".")
        for place, layer in network.named_modules()
        if isinstance(layer, LAYERS) and place not in answering and getattr(layer, "groups", 1) == 1
        for name, weight in layer.named_parameters(recurse=False)
        if is_matrix(weight) and weight.shape[1] > 1
    }


def _answering(network: nn.Module) -> Collection[str]:
    """Return the names of the layers that give logits, of which a network of several members has several."""
    found = set[str]()
    for place, module in network.named_modules():
        with suppress(ValueError):
            found.add(f"{place}.{head_name(module)}".lstrip("."))
    layers = [place for place, module in network.named_modules() if isinstance(module, LAYERS)]
    return found or set(layers[-1:])
