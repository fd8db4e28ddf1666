import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.augment import erase, flip_and_shift, mix


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def numbered(n: int, c: int, h: int, w: int) -> torch.Tensor:
    return (torch.arange(n * c * h * w) % 255 + 1).to(torch.uint8).reshape(n, c, h, w)


def test_without_a_shift_an_image_stays_or_is_mirrored() -> None:
    images_NCHW = numbered(200, 2, 3, 4)
    augmented_NCHW = flip_and_shift(images_NCHW, 0)
    same_N = (augmented_NCHW == images_NCHW).flatten(1).all(1)
    mirrored_N = (augmented_NCHW == images_NCHW.flip(-1)).flatten(1).all(1)
    assert bool((same_N | mirrored_N).all())
    assert 60 < int(mirrored_N.sum()) < 140


def test_a_shift_moves_the_whole_image_and_fills_with_black() -> None:
    image = torch.zeros(1, 1, 9, 9, dtype=torch.uint8)
    image[0, 0, 4, 4] = 9
    augmented_NCHW = flip_and_shift(image.repeat(500, 1, 1, 1), 2)
    places = augmented_NCHW.squeeze(1).nonzero()
    assert len(places) == 500
    assert {tuple(place) for place in places[:, 1:].tolist()} == {(y, x) for y in range(2, 7) for x in range(2, 7)}


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.integers(0, 3))
def test_shape_dtype_and_pixels_are_kept(n: int, c: int, h: int, w: int, shift: int) -> None:
    images_NCHW = numbered(n, c, h, w)
    augmented_NCHW = flip_and_shift(images_NCHW, shift)
    assert (augmented_NCHW.shape, augmented_NCHW.dtype) == (images_NCHW.shape, torch.uint8)
    for before, after in zip(images_NCHW, augmented_NCHW, strict=True):
        assert {*after.flatten().tolist()} <= {0, *before.flatten().tolist()}


@pytest.mark.parametrize("shift", [0, 1])
def test_the_same_seed_gives_the_same_images(shift: int) -> None:
    images_NCHW = numbered(20, 1, 5, 5)

    def augmented(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return erase(flip_and_shift(images_NCHW, shift), 0.5)

    assert torch.equal(augmented(3), augmented(3))
    assert not torch.equal(augmented(3), augmented(4))


def test_without_flipping_nothing_is_mirrored() -> None:
    images_NCHW = numbered(50, 1, 3, 4)
    assert torch.equal(flip_and_shift(images_NCHW, 0, flip=False), images_NCHW)


@given(st.integers(1, 20), st.integers(1, 12), st.integers(1, 12))
def test_an_erased_image_loses_one_rectangle_and_nothing_else(n: int, h: int, w: int) -> None:
    images_NCHW = numbered(n, 2, h, w)
    for before_CHW, after_CHW in zip(images_NCHW, erase(images_NCHW, 1.0), strict=True):
        lost_HW = (after_CHW == 0).all(0)
        assert torch.equal(after_CHW, before_CHW.masked_fill(lost_HW, 0))
        rows, columns = lost_HW.any(1), lost_HW.any(0)
        assert torch.equal(lost_HW, rows[:, None] & columns[None])
        assert lost_HW.any()


def test_only_the_asked_share_is_erased() -> None:
    images_NCHW = numbered(400, 1, 8, 8)
    assert torch.equal(erase(images_NCHW, 0.0), images_NCHW)
    changed = int((erase(images_NCHW, 0.25) != images_NCHW).flatten(1).any(1).sum())
    assert 60 < changed < 140


@pytest.mark.parametrize(("mixup", "cutmix"), [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0)])
def test_mixed_images_have_the_shares_of_their_labels(mixup: float, cutmix: float) -> None:
    # Of two shades, each its own label: the mean brightness says what share of each went in.
    labels_N = torch.arange(8) % 2
    images_NCHW = labels_N.float()[:, None, None, None].expand(-1, 1, 16, 16).contiguous()
    mixed_NCHW, shares_NK = mix(images_NCHW, labels_N, 2, mixup, cutmix)
    assert torch.allclose(shares_NK.sum(1), torch.ones(8))
    assert torch.allclose(mixed_NCHW.mean((1, 2, 3)), shares_NK[:, 1], atol=1e-5)
