import pytest
import torch

from models.device import choose_device
from models.errors import DeviceUnavailable


@pytest.mark.parametrize(("wanted", "chosen"), [("cpu", "cpu"), ("auto", None)])
def test_the_device_is_as_asked_or_what_there_is(wanted: str, chosen: str | None) -> None:
    best = "cuda" if torch.cuda.is_available() else "cpu"
    assert choose_device(wanted).type == (chosen or best)


@pytest.mark.parametrize("wanted", ["cuda:99", "cuda:128", "cuda:999"])
def test_a_device_that_is_not_there_is_refused(wanted: str) -> None:
    with pytest.raises(DeviceUnavailable, match=f"device {wanted}: this machine has"):
        choose_device(wanted)


def test_fp32_is_not_rounded_to_tf32() -> None:
    torch.backends.cudnn.allow_tf32 = True
    choose_device("cpu")
    assert not torch.backends.cudnn.allow_tf32
