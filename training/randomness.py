"""Every random choice is a function of the seed and of where in the run it is made.

So a run that was cut off needs no saved generators to go on exactly as it would have, and processes that train
together agree on what they must agree on.
"""

import hashlib

import torch


def derived_seed(*path: int | str) -> int:
    """Return a seed for one place of a run, such as (seed, "order", epoch)."""
    digest = hashlib.sha256("/".join(str(step) for step in path).encode()).digest()
    return int.from_bytes(digest[:7], "big")


def seed_here(*path: int | str) -> None:
    """Seed torch's own generators for one place of a run."""
    torch.manual_seed(derived_seed(*path))


def permutation(count: int, *path: int | str) -> torch.Tensor:
    """Return the numbers below `count` in a random order, of shape N."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(derived_seed(*path)))
