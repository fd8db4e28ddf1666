import platform

import pytest
import torch

from models.backend import Requires
from models.instructions import has_instructions, missing

CPU = torch.device("cpu")


@pytest.fixture
def avx512(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"avx512_vnni": True, "avx512_bf16": False, "cpu_name": "avx_vnni", "l2_cache_size": 1}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known)


@pytest.mark.usefixtures("avx512")
@pytest.mark.parametrize(
    ("isa", "has"),
    [
        ("avx512_vnni", True),
        ("amx_int8|avx512_vnni", True),
        ("avx512_bf16", False),
        ("avx512_bf16|amx_bf16", False),
        ("l2_cache_size", False),
        ("avx512", False),
    ],
)
def test_one_of_several_sets_of_instructions_is_enough(isa: str, has: bool) -> None:
    assert has_instructions(isa) is has
    assert (missing(Requires(isa=isa), CPU) is None) is has


def test_what_asks_for_nothing_runs_anywhere() -> None:
    assert missing(Requires(), CPU) is None
    here = Requires(arch=platform.machine(), torch=torch.__version__.partition("+")[0])
    assert missing(here, CPU) is None


@pytest.mark.parametrize(
    ("requires", "reason"),
    [
        (Requires(torch="1.13"), "torch 1.13 is wanted"),
        (Requires(torch=torch.__version__[:3]), "is wanted, and this is"),
        (Requires(arch="m68k"), "of the kind m68k is wanted"),
        (Requires(isa="made_up|likewise"), "no made_up or likewise"),
    ],
)
def test_what_is_missing_is_named(requires: Requires, reason: str) -> None:
    assert reason in (missing(requires, CPU) or "")


@pytest.mark.parametrize(("wanted", "runs"), [("7.5", True), ("9.0", True), ("9.10", False), ("10.0", False)])
def test_compute_capability_is_compared_by_number(
    monkeypatch: pytest.MonkeyPatch, wanted: str, runs: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    assert (missing(Requires(cuda_cc=wanted), torch.device("cuda")) is None) is runs
    assert missing(Requires(cuda_cc=wanted), CPU) is None
