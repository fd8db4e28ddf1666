"""The device that is served on."""

import pytest
import torch

from models.device import choose_device, device_in_turn
from models.errors import DeviceUnavailable


@pytest.mark.parametrize(("wanted", "chosen"), [("cpu", "cpu"), ("auto", None)])
def test_the_device_is_as_asked_or_what_there_is(wanted: str, chosen: str | None) -> None:
    best = "cuda" if torch.cuda.is_available() else "cpu"
    assert choose_device(wanted).type == (chosen or best)


@pytest.mark.parametrize("wanted", ["cuda:99", "cuda:128", "cuda:999"])
def test_a_device_that_is_not_there_is_refused(wanted: str) -> None:
    with pytest.raises(DeviceUnavailable, match=f"device {wanted}: this machine has"):
        choose_device(wanted)


@pytest.mark.parametrize(
    ("wanted", "found", "devices"),
    [
        ("auto", 2, ["cuda:0", "cuda:1", "cuda:0"]),
        ("cuda", 3, ["cuda:0", "cuda:1", "cuda:2"]),
        ("cuda:1", 2, ["cuda:1"] * 3),
        ("cpu", 2, ["cpu"] * 3),
        ("auto", 0, ["auto"] * 3),
    ],
)
def test_each_process_takes_the_next_gpu_unless_one_is_named(
    monkeypatch: pytest.MonkeyPatch, wanted: str, found: int, devices: list[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: found)
    assert [device_in_turn(wanted, place) for place in range(3)] == devices


def test_fp32_is_not_rounded_to_tf32() -> None:
    torch.backends.cudnn.allow_tf32 = True
    choose_device("cpu")
    assert not torch.backends.cudnn.allow_tf32
