"""What a TorchScript file could do, found out before torch sees it; and that torch would have done it."""

import io
import os
import pickle
from collections.abc import Callable
from enum import Enum
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from models.errors import ArchiveInvalid, BundleError, OperatorsNotAllowed
from models.torchscript_graph import TorchScriptGraph
from models.torchscript_scan import check_operators
from tests.archives import CODE, HEAD, coded, plain, saved, zipped

ONES = torch.ones(4)


def run(content: bytes) -> Tensor:
    """Load and run it, as serving would without the scan."""
    outputs: Tensor = torch.jit.load(io.BytesIO(content))(ONES)
    return outputs


class SavesInForward(nn.Module):
    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, x: Tensor) -> Tensor:
        torch.save(x, self.path)
        return x


class SavesWhenLoaded(nn.Module):
    path: str

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return self.path, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.path = state[0]
        self.training = state[1]
        torch.save("loaded", self.path)

    def forward(self, x: Tensor) -> Tensor:
        return x


class WritesThroughMemory(nn.Module):
    """Writes bytes of its own choice to a path of its own choice."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, x: Tensor) -> Tensor:
        mapped = torch.from_file(self.path, shared=True, size=4, dtype=torch.uint8)
        return mapped.copy_(x)


def test_saving_when_it_is_loaded_is_refused(tmp_path: Path) -> None:
    content = saved(SavesWhenLoaded(str(tmp_path / "deed")))
    assert not (tmp_path / "deed").exists()
    torch.jit.load(io.BytesIO(content))
    assert (tmp_path / "deed").exists(), "torch would not have done it"
    with pytest.raises(OperatorsNotAllowed, match=r"aten::save \(code/__torch__/tests/\w+/\w+\.py, line \d+\)"):
        check_operators(content)


@pytest.mark.parametrize(
    ("module", "operator"), [(SavesInForward, "aten::save"), (WritesThroughMemory, "aten::from_file")]
)
def test_writing_a_file_when_it_is_run_is_refused(
    tmp_path: Path, module: Callable[[str], nn.Module], operator: str
) -> None:
    content = saved(module(str(tmp_path / "deed")))
    run(content)
    assert (tmp_path / "deed").read_bytes(), "torch would not have done it"
    with pytest.raises(OperatorsNotAllowed, match=f"{operator} .*LANTERN_ALLOW_OPERATORS={operator}$"):
        check_operators(content)


# Each does the same, by another way to the name.
WAYS = (
    'torch.save(x, "PATH")',
    '(torch).save(x, "PATH")',
    'torch.\\\nsave(x, "PATH")',
    'torch.autograd.save(x, "PATH")',
    'ops.aten.save(x, "PATH")',
    'ops.anything.autograd.save(x, "PATH")',
    'getattr(torch, "save")(x, "PATH")',
    'getattr(torch, "sa" "ve")(x, "PATH")',
    'getattr(ops.aten, "\\163ave")(x, "PATH")',
    'f = torch.save\n    f(x, "PATH")',
    't = torch\n    t.save(x, "PATH")',
    'o = ops\n    o.aten.save(x, "PATH")',
    'a = ops.aten\n    a.save(x, "PATH")',
    'g = getattr\n    g(torch, "save")(x, "PATH")',
    'n = __torch__.tests\n    n.archives.deed(x, "PATH")',
    'if torch.eq(torch.len([torch.save(x, "PATH")]), 1):\n      pass',
    # A comment to Python until the next line, and to torch as well.
    '# nothing to see\n    torch.save(x, "PATH")',
)
DEED = "def deed(x: Tensor, path: str) -> NoneType:\n  torch.save(x, path)\n  return None\n"


@pytest.mark.parametrize("way", WAYS)
def test_whatever_way_leads_to_an_operator_it_is_refused(tmp_path: Path, way: str) -> None:
    body = f"    {way.replace('PATH', str(tmp_path / 'deed'))}\n    return x"
    content = coded(body, DEED if "deed(" in body else "")
    run(content)
    assert (tmp_path / "deed").exists(), "torch would not have done it"
    with pytest.raises(BundleError, match=HEAD):
        check_operators(content)


def test_what_stands_in_a_default_is_done_when_it_is_loaded_and_refused(tmp_path: Path) -> None:
    path = tmp_path / "deed"
    default = f'torch.from_file("{path}", True, 4)'
    beside = f"def f(x: Tensor, y: Tensor={default}) -> Tensor:\n  return x\n"
    content = coded("    return __torch__.tests.archives.f(x)", beside)
    torch.jit.load(io.BytesIO(content))
    assert path.exists(), "torch would not have done it"
    with pytest.raises(OperatorsNotAllowed, match="aten::from_file"):
        check_operators(content)


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ('return ops.image.read_file("/etc/hostname")', "image::read_file"),
        ('ops.image.write_file("/tmp/x", x)\n    return x', "image::write_file"),
        ("return ops.somebody.s_own(x)", "somebody::s_own"),
        ("return torch.brand_new(x)", "aten::brand_new"),
        ("return x.resize_([1000000])", "aten::resize_"),
        ('return getattr(x, "set_")(x)', "aten::set_"),
        ("ops.cuda.set_stream(x)\n    return x", "cuda::set_stream"),
        ("torch.manual_seed(0)\n    return x", "aten::manual_seed"),
        ("torch.autograd.backward([x], None, False, False)\n    return x", "aten::backward"),
        ("def g():\n      return x\n    return torch.wait(fork(g))", "aten::wait .*prim::fork"),
        ("def g():\n      return x\n    a = awaitable(g)\n    return x", "prim::awaitable"),
        ("y = __torch__.torch.classes.profiler._RecordFunction(x)\n    return x", "classes::profiler._Record"),
        ("y : __torch__.torch.classes.profiler._RecordFunction = x\n    return x", "classes::profiler._Record"),
    ],
)
def test_an_operator_that_is_not_listed_is_named(body: str, named: str) -> None:
    with pytest.raises(OperatorsNotAllowed, match=named):
        check_operators(coded(f"    {body}"))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("c = __torch__.torch\n    return x", "__torch__.torch is given another name"),
        ("c = __torch__.torch.classes\n    return x", "__torch__.torch.classes is given another name"),
        ("c = __torch__\n    return x", "__torch__ is given another name"),
        ("__torch__ = x\n    return __torch__.resize_([1000000])", "__torch__ is made a variable"),
        ("for __torch__ in [x]:\n      __torch__.set_(x)\n    return x", "__torch__ is made a variable"),
        ("return [__torch__.set_(x) for __torch__ in [x]][0]", "__torch__ is made a variable"),
        (
            "def __torch__():\n      return x\n    return __torch__.resize_([1000000])",
            "__torch__ is made a variable",
        ),
        ("ops = x\n    return ops.a.b", "ops is made a variable"),
        ("CONSTANTS = x\n    return CONSTANTS.c0", "CONSTANTS is made a variable"),
        ("class C:\n      pass\n    return x", "torch writes no ClassDef"),
        ("return getattr(x, 3)", "getattr is told a name that is not written there"),
        ("return __import__(x)", "torch knows no __import__"),
        ("return (lambda: x)()", "torch writes no Lambda"),
        ('return f"{x}"', "torch writes no JoinedStr"),
        ("import os\n    return x", "torch writes no Import"),
        ("return torch.add.Tensor(x, x)", "torch.add.Tensor is no operator"),
        ("return x\n   oh", "unindent"),
        ("return ^PythonOp()(x)", "invalid syntax"),
        ("return " + "(" * 500 + "x" + ")" * 500, "too many nested parentheses"),
        ("return " + "-" * 500_000 + "x", "nested too deep"),
        ("return x" + "[0]" * 100_000, "nested too deep"),
        ("return x # type: Tensor", "characters that torch does not write"),
        ("return \uff54orch.save(x)", "characters that torch does not write"),
        ("return x\x00", "characters that torch does not write"),
        ("\treturn x", "characters that torch does not write"),
    ],
)
def test_code_that_torch_does_not_write_is_refused(body: str, reason: str) -> None:
    with pytest.raises(ArchiveInvalid, match=reason):
        check_operators(coded(f"    {body}"))


def test_what_hides_a_root_is_refused_though_torch_takes_it() -> None:
    content = coded("    __torch__ = torch.clone(x)\n    return __torch__.resize_([1])")
    assert run(content).shape == (1,), "torch would have taken it for something else"
    with pytest.raises(ArchiveInvalid, match=r"archives.py, line \d+: __torch__ is made a variable"):
        check_operators(content)
    argument = "def f(__torch__: Tensor) -> Tensor:\n  return __torch__.resize_([1])\n"
    with pytest.raises(ArchiveInvalid, match="__torch__ is made a variable"):
        check_operators(coded("    return __torch__.tests.archives.f(x)", argument))


class OnLoading:
    """Any Python that unpickled this would run it."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("exit",)


def with_pickle(name: str, content: bytes) -> bytes:
    return zipped((plain() | {f"archive/{name}": content}).items())


@pytest.mark.parametrize("name", ["data.pkl", "constants.pkl", "traced_inputs.pkl"])
def test_a_pickle_that_refers_to_what_has_no_place_in_a_model_is_refused(name: str) -> None:
    content = with_pickle(name, pickle.dumps(OnLoading(), protocol=2))
    with pytest.raises(ArchiveInvalid, match=rf"{name} refers to 'posix\.system'"):
        check_operators(content)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (pickle.dumps(OnLoading(), protocol=4), "torch writes no"),
        (b"\x80\x02(S'exit'\nios\nsystem\n.", "torch writes no STRING"),
        (b"\x80\x02", "data.pkl is damaged"),
        (b"\x80\x02cos", "data.pkl is damaged"),
        (b"\x80\x02ctorch.distributed.rpc\nrref\n.", r"refers to 'torch\.distributed\.rpc\.rref'"),
        (b"", "data.pkl is damaged"),
    ],
)
def test_a_pickle_that_torch_does_not_write_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(ArchiveInvalid, match=reason):
        check_operators(with_pickle("data.pkl", content))


@pytest.mark.parametrize(
    "split",
    [b"__torch__.torch.classes.profiler\n_RecordFunction", b"__torch__\ntorch.classes.profiler._RecordFunction"],
)
def test_a_pickle_s_object_of_a_class_of_c_is_refused(split: bytes) -> None:
    with pytest.raises(OperatorsNotAllowed, match=r"classes::profiler\._RecordFunction \(data\.pkl\)"):
        check_operators(with_pickle("data.pkl", b"\x80\x02c" + split + b"\n."))


def test_what_is_allowed_passes_and_nothing_else(tmp_path: Path) -> None:
    content = coded(f'    torch.save(x, "{tmp_path}/deed")\n    torch.manual_seed(0)\n    return x')
    check_operators(content, frozenset({"aten::save", "aten::manual_seed"}))
    # What is to be set is what is set, and more.
    with pytest.raises(OperatorsNotAllowed, match=r"compute: aten::manual_seed .*=aten::manual_seed,aten::save$"):
        check_operators(content, frozenset({"aten::save"}))


def test_torch_sees_nothing_of_what_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    content = saved(SavesInForward(str(tmp_path / "deed")))
    graph = TorchScriptGraph(content, torch.device("cpu"), frozenset({"aten::save"}))
    scores = graph(ONES)
    assert isinstance(scores, Tensor)
    assert torch.equal(scores, ONES)
    monkeypatch.setattr(torch.jit, "load", lambda *_, **__: pytest.fail("torch saw it"))
    for refused in (content, coded("    return ops.image.read_file(x)"), b"this is no graph"):
        with pytest.raises(BundleError):
            TorchScriptGraph(refused, torch.device("cpu"))


def test_the_error_names_at_most_a_few_and_allows_all() -> None:
    names = [f"op{index}" for index in range(9)]
    body = "".join(f"    torch.{name}(x)\n" for name in names) + "    return x"
    all_of_them = ",".join(f"aten::{name}" for name in names)
    with pytest.raises(OperatorsNotAllowed, match=rf"4 more; .*={all_of_them}"):
        check_operators(coded(body))


def test_an_attribute_may_have_any_name_that_is_no_method_of_a_tensor() -> None:
    class Names(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.save, self.seed, self.from_file, self.fork, self.ops = 1, 2, 3, 4, 5
            self.layers = nn.ModuleDict({"a::b": nn.ReLU()})

        def forward(self, x: Tensor) -> Tensor:
            fork, getattr_, ops = x + self.save, x + self.seed, x + self.from_file
            for layer in self.layers.values():
                x = layer(x)
            return x + fork + getattr_ + ops + self.fork + self.ops

    content = saved(Names())
    check_operators(content)
    assert torch.equal(run(content), ONES * 4 + 15)


class Backend(Enum):
    torch = 0
    ops = 1


def test_an_enumeration_may_have_any_names() -> None:
    class Chooses(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backend = Backend.torch

        def forward(self, x: Tensor) -> Tensor:
            return x + 1 if self.backend == Backend.torch else x

    content = saved(Chooses())
    check_operators(content)
    assert torch.equal(run(content), ONES + 1)


def test_the_code_that_is_looked_at_is_the_code_that_runs() -> None:
    assert CODE in plain()
    assert torch.equal(run(coded("    return torch.add(x, 41)")), ONES + 41)
