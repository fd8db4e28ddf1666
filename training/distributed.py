"""Training in several processes, as torchrun starts them: one group, gradients summed, one publisher."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from models.device import choose_device
from training.errors import OptionInvalid

# The first process judges and publishes while the others wait for nothing; a validation may take long.
TIMEOUT = timedelta(hours=2)


class Group:
    """The processes that train together; of one process, if torchrun did not start it."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank = rank
        self.size = size

    @property
    def is_first(self) -> bool:
        """Whether this process reports, saves and publishes."""
        return self.rank == 0

    def share(self, indices_N: Tensor) -> Tensor:
        """Return this process's part of a batch: each index is in exactly one."""
        return indices_N[self.rank :: self.size]

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace gradients by their sum over all processes, in one exchange."""
        if self.size == 1:
            return
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        # A process whose share of a small last batch is empty has no gradient, but takes part all the same.
        for parameter in trained:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        flat = torch.cat([parameter.grad.flatten() for parameter in trained if parameter.grad is not None])
        distributed.all_reduce(flat)
        start = 0
        for parameter in trained:
            summed = flat[start : start + parameter.numel()]
            assert parameter.grad is not None  # noqa: S101 (filled in above)
            # Into the gradient that is there: it lies in memory as its parameter does, as fused optimizers want.
            parameter.grad.copy_(summed.view_as(parameter))
            start += parameter.numel()

    def sum(self, value: Tensor) -> Tensor:
        """Return the sum of a tensor over all processes."""
        if self.size > 1:
            distributed.all_reduce(value)
        return value

    def mean_statistics(self, module: nn.Module) -> None:
        """Average what batch normalisation has counted, in one exchange: each process saw other examples."""
        if self.size == 1:
            return
        counted = [
            statistic
            for layer in module.modules()
            if isinstance(layer, _BatchNorm)
            for statistic in (layer.running_mean, layer.running_var)
            if statistic is not None
        ]
        if not counted:
            return
        flat = torch.cat(counted)
        distributed.all_reduce(flat)
        means = (flat / self.size).split([len(statistic) for statistic in counted])
        for statistic, mean in zip(counted, means, strict=True):
            statistic.copy_(mean)

    def any(self, flag: bool, device: torch.device) -> bool:
        """Return whether it holds in any of the processes: what all of them have to act on."""
        if self.size == 1:
            return flag
        return bool(self.sum(torch.tensor(float(flag), device=device)) > 0)

    def from_first(self, values: Sequence[float], device: torch.device) -> list[float]:
        """Return the first process's numbers, in every process."""
        if self.size == 1:
            return list(values)
        sent = torch.tensor(values, dtype=torch.float64 if device.type == "cpu" else torch.float32, device=device)
        distributed.broadcast(sent, src=0)
        return sent.tolist()


@contextmanager
def joined(device: str) -> Iterator[Group]:
    """Join the processes that torchrun started, if it did; leave them at the end.

    Args:
        device: As the options name it; `cuda` exchanges by NCCL, anything else by gloo.

    Raises:
        OptionInvalid: It is not one for each process.
        ModelsError: It is not there.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Group()
        return
    if ":" in device:
        raise OptionInvalid(f"--device {device}: each process takes a GPU of its own; give --device cuda")
    on_cuda = choose_device(device).type == "cuda"
    if on_cuda:
        _take_own_gpu(device, int(os.environ.get("LOCAL_RANK", "0")))
    distributed.init_process_group("nccl" if on_cuda else "gloo", timeout=TIMEOUT)
    try:
        yield Group(distributed.get_rank(), size)
    finally:
        distributed.destroy_process_group()


def _take_own_gpu(device: str, local_rank: int) -> None:
    gpus = torch.cuda.device_count()
    if local_rank >= gpus:
        raise OptionInvalid(
            f"--device {device}: there are {gpus} GPUs here; give torchrun --nproc-per-node {gpus}"
        )
    # From here on `cuda` means this one.
    torch.cuda.set_device(local_rank)
