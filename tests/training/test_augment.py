import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.augment import flip_and_shift


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(n: int, c: int, h: int, w: int) -> torch.Tensor:
    return (torch.arange(n * c * h * w) % 255 + 1).to(torch.uint8).reshape(n, c, h, w)


def test_without_a_shift_an_image_stays_or_is_mirrored() -> None:
    images_NCHW = numbered(200, 2, 3, 4)
    augmented_NCHW = flip_and_shift(images_NCHW, 0, generator())
    same_N = (augmented_NCHW == images_NCHW).flatten(1).all(1)
    mirrored_N = (augmented_NCHW == images_NCHW.flip(-1)).flatten(1).all(1)
    assert bool((same_N | mirrored_N).all())
    assert 60 < int(mirrored_N.sum()) < 140


def test_a_shift_moves_the_whole_image_and_fills_with_black() -> None:
    image = torch.zeros(1, 1, 9, 9, dtype=torch.uint8)
    image[0, 0, 4, 4] = 9
    augmented_NCHW = flip_and_shift(image.repeat(500, 1, 1, 1), 2, generator())
    places = augmented_NCHW.squeeze(1).nonzero()
    assert len(places) == 500
    assert {tuple(place) for place in places[:, 1:].tolist()} == {(y, x) for y in range(2, 7) for x in range(2, 7)}


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.integers(0, 3))
def test_shape_dtype_and_pixels_are_kept(n: int, c: int, h: int, w: int, shift: int) -> None:
    images_NCHW = numbered(n, c, h, w)
    augmented_NCHW = flip_and_shift(images_NCHW, shift, generator())
    assert (augmented_NCHW.shape, augmented_NCHW.dtype) == (images_NCHW.shape, torch.uint8)
    for before, after in zip(images_NCHW, augmented_NCHW, strict=True):
        assert {*after.flatten().tolist()} <= {0, *before.flatten().tolist()}


@pytest.mark.parametrize("shift", [0, 1])
def test_the_same_seed_gives_the_same_images(shift: int) -> None:
    images_NCHW = numbered(20, 1, 5, 5)
    first, again = (flip_and_shift(images_NCHW, shift, generator(3)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, flip_and_shift(images_NCHW, shift, generator(4)))
