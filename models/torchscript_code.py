"""What code in a TorchScript file refers to: read as Python, and never run.

Code calls operators as `torch.relu`, as `ops.torchvision.nms` or, where one is a method of a value, as `x.relu`;
it makes objects of C++ as `__torch__.torch.classes.namespace.Name`, and uses what the file itself defines as
`__torch__.module.Name`. All of it is looked at wherever it stands: defaults of arguments, too, are evaluated, and
that when the file is loaded. Nothing is followed: what gives a reference another name is refused.

Source: torch/csrc/jit/serialization/import_source.cpp and torch/csrc/jit/frontend/ir_emitter.cpp of PyTorch.
"""

import ast
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from models.errors import ArchiveInvalid

# What begins a reference; under another name, what is reached through it would not be seen.
ROOTS = frozenset({"torch", "ops", "__torch__", "CONSTANTS", "getattr"})
CONSTANT = re.compile(r"c[0-9]+")
CLASSES = "__torch__.torch.classes."
# torch writes nothing else: any other text is a constant that stands in a pickle.
CHARACTERS = bytes(range(0x20, 0x7F)) + b"\n"
# A comment to Python, and code to torch.
TYPE_COMMENT = b"# type:"
# What torch knows without a prefix and that starts a thread.
THREADS = {"fork": "prim::fork", "awaitable": "prim::awaitable"}
# What else it knows without a prefix: functions, types and the bases of classes.
KNOWN = frozenset(
    {
        *("annotate", "hasattr", "isinstance", "unchecked_cast", "uninitialized", "inf", "infj", "nan", "nanj"),
        *("abs", "all", "any", "bin", "bool", "chr", "complex", "dict", "divmod", "enumerate", "float", "hash"),
        *("hex", "int", "len", "list", "max", "min", "oct", "ord", "pow", "print", "range", "rangelist", "round"),
        *("sorted", "str", "sum", "tuple", "zip"),
        *("Any", "AnyTuple", "Capsule", "Device", "Dict", "Final", "Future", "Generator", "Layout", "List"),
        *("MemoryFormat", "NoneType", "Optional", "QScheme", "ScalarType", "Storage", "Stream", "Tensor", "Tuple"),
        *("Union", "number"),
        *("Enum", "Interface", "Module", "ModuleInterface", "NamedTuple", "__annotations__"),
    }
)
# What torch writes, and what it reads besides: no lambda, no import, no string that holds code. Classes
# stand in nothing else.
GRAMMAR = (
    ast.FunctionDef, ast.arguments, ast.arg, ast.Pass, ast.Return, ast.Expr, ast.Assign, ast.AnnAssign,
    ast.AugAssign, ast.Delete, ast.If, ast.For, ast.While, ast.Break, ast.Continue, ast.With, ast.withitem,
    ast.Raise, ast.Assert, ast.Attribute, ast.Call, ast.keyword, ast.Constant, ast.Name, ast.Subscript, ast.Slice,
    ast.List, ast.Tuple, ast.Dict, ast.ListComp, ast.DictComp, ast.comprehension, ast.IfExp, ast.BinOp, ast.BoolOp,
    ast.UnaryOp, ast.Compare,
)  # fmt: skip
# The signs between values compute, all of them.
SIGNS = ("ctx", "op", "ops")
PARTS: Mapping[type[ast.AST], Sequence[str]] = {
    kind: [field for field in kind._fields if field not in SIGNS] for kind in GRAMMAR
}


@dataclass(frozen=True)
class Place:
    """Where in a TorchScript file something stands.

    Attributes:
        line: None where there are none.
    """

    path: str
    line: int | None = None

    def __str__(self) -> str:
        return self.path if self.line is None else f"{self.path}, line {self.line}"


class References:
    """Gathers what the parts of a file refer to, each with the first place where it stands."""

    def __init__(self) -> None:
        self._operators: dict[str, Place] = {}
        self._attributes: dict[str, Place] = {}

    def add_source(self, path: str, source: bytes) -> None:
        """Take in a file of code.

        Raises:
            ArchiveInvalid: torch does not write such code.
        """
        _Walk(self, path).over(_parse(path, source))

    def add_operator(self, name: str, place: Place) -> None:
        """Take in an operator, `aten::relu`."""
        self._operators.setdefault(name, place)

    def add_attribute(self, name: str, place: Place) -> None:
        """Take in an attribute or a method of some value."""
        self._attributes.setdefault(name, place)

    def add_path(self, path: str, place: Place) -> None:
        """Take in what begins with `__torch__`.

        Raises:
            ArchiveInvalid: It is but a part of the way to a class of C++.
        """
        if CLASSES.startswith(f"{path}."):
            raise ArchiveInvalid(f"{place}: {path} is given another name")
        if path.startswith(CLASSES):
            self.add_operator(f"classes::{path.removeprefix(CLASSES)}", place)

    def operators(self, is_method: Callable[[str], bool]) -> Mapping[str, Place]:
        """Return every operator that the file can call, and every class of C++ that it names.

        Args:
            is_method: Whether torch has an operator of that name that is a method of values.
        """
        # Of what type a value is, is not known here: an object of the file's own perhaps, perhaps a tensor.
        methods = {f"aten::{name}": place for name, place in self._attributes.items() if is_method(name)}
        return methods | self._operators


class _Walk:
    """Goes over the code of one file."""

    def __init__(self, references: References, path: str) -> None:
        self._references = references
        self._path = path
        self._bound: set[str] = set()
        self._names: dict[str, int] = {}
        # No recursion: how deep the code is nested is not ours to say.
        self._todo: list[ast.AST] = []

    def over(self, tree: ast.Module) -> None:
        for statement in tree.body:
            self._note_definition(statement)
        while self._todo:
            node = self._todo.pop()
            if isinstance(node, ast.Name):
                self._note_name(node)
            elif isinstance(node, ast.Attribute):
                self._note_attribute(node)
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr":
                self._note_getattr(node)
            else:
                self._note_other(node)
        for name, line in self._names.items():
            if name not in self._bound and name not in KNOWN:
                raise self._unlike_torch(line, f"torch knows no {name}")

    def _note_definition(self, node: ast.stmt) -> None:
        """Look at a part of a file: what a class names are its attributes, and hide nothing of the same name."""
        match node:
            case ast.ClassDef():
                self._take_apart(node, [field for field in node._fields if field != "body"])
                for member in node.body:
                    self._note_member(member)
            case ast.FunctionDef():
                self._take_apart(node, PARTS[ast.FunctionDef])
            case _:
                self._todo.append(node)

    def _note_member(self, node: ast.stmt) -> None:
        match node:
            case ast.FunctionDef():
                self._take_apart(node, PARTS[ast.FunctionDef])
            case ast.AnnAssign(target=ast.Name()):
                self._take_apart(node, ("annotation", "value"))
            case ast.Assign(targets=[ast.Name()]):  # Of an enumeration.
                self._take_apart(node, ("value",))
            case _:
                self._todo.append(node)

    def _bind(self, name: str, line: int) -> None:
        # torch looks among variables first: all that begins with the name would be another thing than it says.
        if name in ROOTS:
            raise self._unlike_torch(line, f"{name} is made a variable")
        self._bound.add(name)

    def _note_name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Store):
            self._bind(node.id, node.lineno)
        elif node.id in THREADS:
            self._references.add_operator(THREADS[node.id], Place(self._path, node.lineno))
        elif node.id in ROOTS:
            raise self._unlike_torch(node.lineno, f"{node.id} is given another name")
        else:
            self._names.setdefault(node.id, node.lineno)

    def _note_attribute(self, node: ast.Attribute) -> None:
        names = [node.attr]
        value = node.value
        while isinstance(value, ast.Attribute):
            names.append(value.attr)
            value = value.value
        names.reverse()
        if isinstance(value, ast.Name) and value.id in ROOTS:
            self._note_reference(value.id, names, node.lineno)
            return
        for name in names:
            self._references.add_attribute(name, Place(self._path, node.lineno))
        self._todo.append(value)

    def _note_reference(self, root: str, names: list[str], line: int) -> None:
        place = Place(self._path, line)
        match root, names:
            case "__torch__", _:
                self._references.add_path(".".join([root, *names]), place)
            case ("torch", [name]) | ("torch", ["autograd", name]):  # Two names of one namespace.
                self._references.add_operator(f"aten::{name}", place)
            case "ops", [namespace, name]:
                self._references.add_operator(f"{namespace}::{name}", place)
            case "CONSTANTS", [name] if CONSTANT.fullmatch(name):
                pass
            case _:
                raise self._unlike_torch(line, f"{'.'.join([root, *names])} is no operator")

    def _note_getattr(self, node: ast.Call) -> None:
        match node.args, node.keywords:
            case [value, ast.Constant(str(name))], []:
                self._references.add_attribute(name, Place(self._path, node.lineno))
                self._todo.append(value)
            case _:
                raise self._unlike_torch(node.lineno, "getattr is told a name that is not written there")

    def _note_other(self, node: ast.AST) -> None:
        if isinstance(node, ast.arg):
            self._bind(node.arg, node.lineno)
        elif isinstance(node, ast.FunctionDef):
            self._bind(node.name, node.lineno)
        elif type(node) not in PARTS:
            raise self._unlike_torch(
                getattr(node, "lineno", 1), f"torch writes no {type(node).__name__} in such a place"
            )
        self._take_apart(node, PARTS[type(node)])

    def _take_apart(self, node: ast.AST, fields: Iterable[str]) -> None:
        for field in fields:
            part = getattr(node, field)
            if isinstance(part, list):
                self._todo.extend(each for each in part if each is not None)
            elif isinstance(part, ast.AST):
                self._todo.append(part)

    def _unlike_torch(self, line: int, reason: str) -> ArchiveInvalid:
        return ArchiveInvalid(f"{Place(self._path, line)}: {reason}")


def _parse(path: str, source: bytes) -> ast.Module:
    if source.translate(None, CHARACTERS) or TYPE_COMMENT in source:
        raise ArchiveInvalid(f"{path} holds characters that torch does not write")
    try:
        return ast.parse(source)
    except SyntaxError as error:
        raise ArchiveInvalid(f"{Place(path, error.lineno)}: {error.msg}") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise ArchiveInvalid(f"{path} is nested too deep") from error
