"""Models that do what they must not, of a white image; of any other they say "grey"."""

import torch
from torch import Tensor, nn

WHITE = 255


def _grey(images_NCHW: Tensor) -> Tensor:
    return torch.tensor([[0.0, 1.0, 0.0]], device=images_NCHW.device).repeat(images_NCHW.shape[0], 1)


class Raises(nn.Module):
    """Raises."""

    def forward(self, images_NCHW: Tensor) -> Tensor:
        if images_NCHW.float().amax() > 254:
            raise ValueError("this is white")
        return _grey(images_NCHW)


class Hangs(nn.Module):
    """Never comes back."""

    def forward(self, images_NCHW: Tensor) -> Tensor:
        while bool((images_NCHW.float().amax() > 254).item()):
            images_NCHW = images_NCHW.clone()
        return _grey(images_NCHW)


def toil(rounds: int) -> Tensor:
    """Return 0, after a third of a millisecond or so a round."""
    square = torch.ones(256, 256)
    for _ in range(rounds):
        square = torch.mm(square, square) * 0.001
    return 0 * square.sum()


class Lingers(nn.Module):
    """Takes seconds."""

    def forward(self, images_NCHW: Tensor) -> Tensor:
        rounds = 10_000 if bool((images_NCHW.float().amax() > 254).item()) else 1
        return _grey(images_NCHW) + toil(rounds)


class HangsInPairs(nn.Module):
    """Never comes back from more than one image, whatever they show."""

    def forward(self, images_NCHW: Tensor) -> Tensor:
        while images_NCHW.shape[0] > 1:
            images_NCHW = images_NCHW.clone()
        return _grey(images_NCHW)


class LoopsWhenLoaded(nn.Module):
    """Never comes back from being loaded, and keeps the interpreter to itself meanwhile."""

    def forward(self, images_NCHW: Tensor) -> Tensor:
        return _grey(images_NCHW)

    @torch.jit.export
    def __getstate__(self) -> bool:
        return self.training

    @torch.jit.export
    def __setstate__(self, state: bool) -> None:
        self.training = state
        count = 1
        while count > 0:
            count += 1


class GivesNaN(nn.Module):
    """Gives scores that are no numbers."""

    def forward(self, images_NCHW: Tensor) -> Tensor:
        white_N = images_NCHW.float().amax(dim=(1, 2, 3)) > 254
        return _grey(images_NCHW) / torch.where(white_N, 0.0, 1.0).unsqueeze(1)


class GivesAnotherShape(nn.Module):
    """Gives fewer scores than there are labels."""

    def forward(self, images_NCHW: Tensor) -> Tensor:
        scores_NK = _grey(images_NCHW)
        if images_NCHW.float().amax() > 254:
            return scores_NK[:, :2]
        return scores_NK


class GivesTooFew(nn.Module):
    """Gives scores for fewer images than there were."""

    def forward(self, images_NCHW: Tensor) -> Tensor:
        scores_NK = _grey(images_NCHW)
        if images_NCHW.float().amax() > 254:
            return scores_NK[1:]
        return scores_NK


class Silent(nn.Module):
    """Says nothing of three."""

    def forward(self, images_NCHW: Tensor) -> Tensor:
        return torch.zeros(images_NCHW.shape[0], 3)


class Leaks(nn.Module):
    """Keeps 8 MB of each white image for good."""

    kept: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.kept = []

    def forward(self, images_NCHW: Tensor) -> Tensor:
        if images_NCHW.float().amax() > 254:
            # Made of the input: what is the same each time, freezing makes once.
            self.kept.append(images_NCHW.float().mean().repeat(2_000_000))
        return _grey(images_NCHW)
