"""State dicts that others saved: read, brought to plain names, and loaded with errors that say what is off."""

import argparse
import re
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from training.architectures.heads import head_name
from training.errors import WeightsUnavailable, WeightsUnfit

# What training loops save the state dict under, beside the optimizer's.
WRAPPERS = ("state_dict", "model_state_dict", "model")
# What DistributedDataParallel and torch.compile put before each name; or within it, if they wrapped a part.
WRAPPED_NAME = re.compile(r"(^|\.)(?:module\.|_orig_mod\.)+")
# The auxiliary classifiers of Inception, which only its own training uses.
AUXILIARY_NAME = re.compile(r"(?:AuxLogits|aux[12])\.")
# torchvision's DenseNet files are older than the rule that the name of a module holds no dot.
DENSE_LAYER_NAME = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")
MOST_NAMED = 4


def read_weights(file: Path) -> dict[str, Tensor]:
    """Read a state dict that `torch.save` wrote, bare or within a training loop's checkpoint.

    Only tensors are read and no code is run: a file that holds a whole pickled module is refused.

    Raises:
        WeightsUnavailable: The file cannot be read.
        WeightsUnfit: It holds no state dict.
    """
    try:
        # torchvision's own training script saves its arguments beside the weights: plain values, and no code.
        with torch.serialization.safe_globals([argparse.Namespace]):
            saved = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WeightsUnavailable(f"the weights {file} cannot be read: {error.strerror}") from error
    except Exception as error:  # Foreign bytes make the unpickler raise anything: UnpicklingError, RuntimeError...
        wanted = "torch.save(network.state_dict(), file) writes one"
        raise WeightsUnfit(f"{file} is not a state dict of tensors alone; {wanted}") from error
    return plain_names(_unwrap(saved, file))


def _unwrap(saved: object, file: Path) -> dict[str, Tensor]:
    while isinstance(saved, dict) and (wrapper := next((name for name in WRAPPERS if name in saved), None)):
        saved = saved[wrapper]
    if not isinstance(saved, dict) or not saved:
        raise WeightsUnfit(f"{file} holds a {type(saved).__name__}, not a state dict")
    if strange := [name for name, value in saved.items() if not isinstance(value, Tensor)]:
        raise WeightsUnfit(f"{file} holds no state dict: {_some(strange)} are no tensors")
    return saved


def plain_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors under the names of the bare network, less the auxiliary classifiers."""
    bare = {WRAPPED_NAME.sub(r"\1", name): tensor for name, tensor in state.items()}
    return {
        DENSE_LAYER_NAME.sub(r"\1\2", name): tensor
        for name, tensor in bare.items()
        if not AUXILIARY_NAME.match(name)
    }


def load_weights(network: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load a state dict with plain names, which may all begin with the name of what the network was part of.

    Args:
        network: Takes the weights; left half loaded if they do not fit.
        state: As `read_weights` returns it.
        source: What an error calls it.

    Raises:
        WeightsUnfit: Naming the head if its labels are of another number, else the tensors of another shape, or
            those that are missing and unexpected.
    """
    expected = network.state_dict()
    state = _without_prefix(state, expected)
    shapes = {
        name: f"{name} is {_shape(state[name])}, not {_shape(tensor)}"
        for name, tensor in expected.items()
        if name in state and state[name].shape != tensor.shape
    }
    head = head_name(network)
    if f"{head}.weight" in shapes and shapes.keys() <= {f"{head}.weight", f"{head}.bias"}:
        has, wants = len(state[f"{head}.weight"]), len(expected[f"{head}.weight"])
        raise WeightsUnfit(f"{source}: its head {head} is for {has} labels, and there are {wants}")
    if shapes:
        raise WeightsUnfit(f"{source} does not fit {type(network).__name__}: {_some(list(shapes.values()))}")
    # Some networks know older names of their own, by the version in the file; without any, MNASNet refuses.
    versioned = OrderedDict(state)
    versioned._metadata = {"": {"version": network._version}}  # type: ignore[attr-defined]
    result = network.load_state_dict(versioned, strict=False)
    lists = {"missing": result.missing_keys, "unexpected": result.unexpected_keys}
    if any(lists.values()):
        found = "; ".join(f"{kind} {_some(names)}" for kind, names in lists.items() if names)
        raise WeightsUnfit(f"{source} does not fit {type(network).__name__}: {found}")


def _without_prefix(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Leave out what stands before every name, if the names are known without it, and none is with it."""
    if not state or state.keys() & expected.keys():
        return state
    first = next(iter(state))
    for dot in re.finditer(r"\.", first):
        prefix = first[: dot.end()]
        if not all(name.startswith(prefix) for name in state):
            break
        bare = plain_names({name.removeprefix(prefix): tensor for name, tensor in state.items()})
        if bare.keys() & expected.keys():
            return bare
    return state


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "a scalar"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(map(str, names[:MOST_NAMED])) + more
