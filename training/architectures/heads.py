"""The last layer of a classifier, which alone depends on the labels."""

from torch import nn

# Where the classifiers of torchvision, and ours, keep it; the layer itself may lie deeper.
PLACES = ("fc", "classifier", "heads", "head")


def head_name(network: nn.Module) -> str:
    """Return the name of the layer that gives the logits.

    Raises:
        ValueError: The network keeps it where no known classifier does.
    """
    place = next((name for name in PLACES if isinstance(getattr(network, name, None), nn.Module)), None)
    if place is not None:
        inside = network.get_submodule(place).named_modules(prefix=place)
        # A linear layer; in SqueezeNet a 1 x 1 convolution, pooled after it.
        layers: list[str] = [name for name, layer in inside if isinstance(layer, nn.Linear | nn.Conv2d)]
        if layers:
            return layers[-1]
    raise ValueError(f"{type(network).__name__} has no last layer in {', '.join(PLACES)}")


def replace_head(network: nn.Module, num_labels: int) -> None:
    """Give a classifier a new last layer, for other labels; all other weights stay.

    Args:
        network: Changed in place: any classifier of torchvision, or one of ours.
        num_labels: Number of the new labels.

    Raises:
        ValueError: The network keeps its last layer where no known classifier does.
    """
    name = head_name(network)
    old = network.get_submodule(name)
    if isinstance(old, nn.Conv2d):
        new: nn.Module = nn.Conv2d(old.in_channels, num_labels, kernel_size=1, device=old.weight.device)
    elif isinstance(old, nn.Linear):
        new = nn.Linear(old.in_features, num_labels, bias=old.bias is not None, device=old.weight.device)
    network.set_submodule(name, new)
