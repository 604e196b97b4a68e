# SPDX-License-Identifier: Apache-2.0
"""`pulsing stubs MODULE`: a module's `.pyi`, in which each actor class has typed refs.

The module is read, not imported. Its stub has everything that the module has: functions and classes
with their signatures, imports, constants; for a class with `@as_actor` also `local`, `remote`,
`spawn` and `resolve`, and two classes that only type checkers see: `CalculatorRef`, and
`CalculatorBlockingRef` for the blocking form.
"""

from __future__ import annotations

import ast
import copy
import importlib.util
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

__all__ = ["StubError", "main", "stub_of"]

MARK = "# Made by `pulsing stubs`: make it again after a change of the module."
_DECORATORS = ("as_actor", "remote")
_OVERRIDES = "  # type: ignore[assignment, misc, override, unused-ignore]"
_HOOKS = {"on_start", "on_stop", "metadata", "receive"}
_MAKERS = {"local", "remote", "spawn", "resolve"}
_TYPE_MAKERS = {
    "NamedTuple",
    "NewType",
    "ParamSpec",
    "TypeAliasType",
    "TypeVar",
    "TypeVarTuple",
    "TypedDict",
    "namedtuple",
}
_LITERALS = {str: "str", bytes: "bytes", int: "int", float: "float", bool: "bool"}
_PRELUDE = """\
import typing as _t
from collections.abc import Coroutine as _Coroutine
from pulsing import ActorSystem as _ActorSystem, BlockingSystem as _BlockingSystem
from pulsing import typing as _p
"""

Function = ast.FunctionDef | ast.AsyncFunctionDef


class StubError(Exception):
    """What keeps a module from having a stub."""


def stub_of(source: str, name: str) -> str:
    """The stub of a module with this source; StubError when it has no actors, or does not parse."""
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        raise StubError(f"{name}, line {error.lineno}: {error.msg}") from None
    return _Module(tree, name).text()


class _Module:
    """One module on its way to a stub."""

    def __init__(self, tree: ast.Module, name: str):
        self.tree = tree
        self.classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
        self.actors = [node for node in self.classes.values() if _is_actor(node)]
        self.bases = _pulsing_names(tree)
        self.seen: set[str] = set()
        if not self.actors:
            raise StubError(f"{name} has no class with @as_actor: its refs need no stub")

    def text(self) -> str:
        body = list(self.statements(self.tree.body))
        after: list[str] = []
        for actor in self.actors:
            after += [self.ref(actor, blocking=False), self.ref(actor, blocking=True)]
        future = [s for s in body if _module(s) == "__future__"]
        parts = [MARK, *map(ast.unparse, future), _PRELUDE]
        for statement in body:
            if statement in future:
                continue
            parts.append(ast.unparse(ast.fix_missing_locations(statement)))
            for actor in self.actors:
                if isinstance(statement, ast.ClassDef) and statement.name == actor.name:
                    parts += ["    " + line for line in self.makers(actor)]
        return "\n".join(parts + after) + "\n"

    # What a module or a class says, without the code.

    def statements(self, body: Iterable[ast.stmt], enum: bool = False) -> Iterator[ast.stmt]:
        overloads: set[str] = set()
        for node in body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                overload = "overload" in map(_bare, node.decorator_list)
                if overload or node.name not in overloads:
                    yield _signature(node)
                overloads |= {node.name} if overload else set()
                self.seen.add(node.name)
            elif isinstance(node, ast.ClassDef):
                self.seen.add(node.name)
                yield self.class_of(node)
            elif isinstance(node, (ast.Import, ast.ImportFrom)):
                yield _exported(node)
            elif isinstance(node, (ast.If, ast.Try, ast.With)):
                yield from self.branches(node)
            else:
                yield from self.constants(node, enum)

    def branches(self, node: ast.If | ast.Try | ast.With) -> Iterator[ast.stmt]:
        if not isinstance(node, ast.If):
            yield from self.statements(node.body)
            return
        test = ast.unparse(node.test)
        if "__name__" in test:
            return
        known = "TYPE_CHECKING" in test or "sys.version_info" in test or "sys.platform" in test
        body, other = list(self.statements(node.body)), list(self.statements(node.orelse))
        if known and (body or other):
            yield ast.If(node.test, body or [ast.Pass()], other)
        else:
            yield from body or other

    def constants(self, node: ast.stmt, enum: bool) -> Iterator[ast.stmt]:
        """Assigned names with their types, as far as they can be told."""
        if isinstance(node, ast.AnnAssign):
            bare = ast.unparse(node.annotation).endswith(("Final", "TypeAlias"))
            value = node.value if bare or node.value is None else ast.Constant(...)
            yield ast.AnnAssign(node.target, node.annotation, value, node.simple)
        elif isinstance(node, ast.Assign):
            names = [n.id for t in node.targets for n in ast.walk(t) if isinstance(n, ast.Name)]
            single = len(node.targets) == 1 and isinstance(node.targets[0], ast.Name)
            if enum or (single and (_is_type(node.value) or names == ["__all__"])):
                yield node
                return
            kind = _kind_of(node.value) if single else "_t.Any"
            for name in names:
                if name not in self.seen and name != "__slots__":
                    self.seen.add(name)
                    yield _declared(name, kind)
        elif type(node).__name__ == "TypeAlias":
            yield node

    def class_of(self, node: ast.ClassDef) -> ast.ClassDef:
        stub = copy.copy(node)
        stub.decorator_list = [d for d in node.decorator_list if not _makes_actor(d)]
        outer, self.seen = self.seen, set()
        enum = any(
            "Enum" in ast.unparse(base) or "Flag" in ast.unparse(base) for base in node.bases
        )
        body = list(self.statements(node.body, enum))
        self.seen |= {ast.unparse(p.target) for p in body if isinstance(p, ast.AnnAssign)}
        body[:0] = [_declared(n, k) for n, k in _attributes(node) if n not in self.seen]
        stub.body = body or [ast.Expr(ast.Constant(...))]
        self.seen = outer
        return stub

    # What an actor class has beside.

    def line(self, node: ast.ClassDef) -> Iterator[ast.ClassDef]:
        """The class and its bases in this module, nearest first."""
        yield node
        for base in node.bases:
            found = self.classes.get(_bare(base))
            if found is not None:
                yield from self.line(found)

    def is_open(self, node: ast.ClassDef) -> bool:
        """Whether methods may come from elsewhere, so that an unknown one is no error."""
        known = {"object", "Generic", "Protocol", "ABC", *self.classes, *self.bases}
        return any(_bare(base) not in known for c in self.line(node) for base in c.bases)

    def makers(self, node: ast.ClassDef) -> list[str]:
        found = next((f for c in self.line(node) for f in _constructor(c)), None)
        # A subclass may be built from other arguments than its base.
        own = _OVERRIDES if any(_is_actor(c) for c in list(self.line(node))[1:]) else ""
        coming = f"_Coroutine[_t.Any, _t.Any, {node.name}Ref]"
        lines = []
        for name in ("local", "remote"):
            for system, gives in (
                ("_ActorSystem", coming),
                ("_BlockingSystem", f"{node.name}BlockingRef"),
            ):
                arguments = _maker_arguments(found, f"cls, system: {system}")
                lines += [f"@_t.overload{own}", "@classmethod"]
                lines += [f"def {name}({arguments}) -> {gives}: ...{own}"]
        arguments = _maker_arguments(found, "cls")
        lines += [f"@classmethod{own}", f"def spawn({arguments}) -> {coming}: ...{own}"]
        arguments = "cls, name: str, timeout: float | None = ..."
        return [*lines, f"@classmethod{own}", f"def resolve({arguments}) -> {coming}: ...{own}"]

    def ref(self, node: ast.ClassDef, blocking: bool) -> str:
        end = "BlockingRef" if blocking else "Ref"
        parents = [c for c in list(self.line(node))[1:] if _is_actor(c)]
        bases = [f"{p.name}{end}" for p in parents[:1]] or [f"_p.{end}[{node.name}]"]
        lines = [f"class {node.name}{end}({', '.join(bases)}):"]
        if not self.is_open(node):
            lines.append(f"    __getattr__: None{_OVERRIDES}")
        taken = {name for p in parents for name in _methods(p)}
        for method in self.endpoints(node):
            own = _OVERRIDES if method.name in taken else ""
            lines += ["    " + line for line in _endpoint(method, blocking, own)]
        return "\n".join(lines if len(lines) > 1 else [*lines, "    ..."])

    def endpoints(self, node: ast.ClassDef) -> list[Function]:
        """The methods that refs have, those of plain bases in this module among them."""
        found: dict[str, list[Function]] = {}
        for c in self.line(node):
            if c is not node and _is_actor(c):
                break
            for name, methods in _methods(c).items():
                found.setdefault(name, methods)
        return [method for methods in found.values() for method in methods]


# Reading syntax.


def _bare(node: ast.expr) -> str:
    """The last name of `a.b.Name[...]`."""
    if isinstance(node, ast.Subscript):
        node = node.value
    if isinstance(node, ast.Call):
        node = node.func
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _makes_actor(decorator: ast.expr) -> bool:
    return _bare(decorator) in _DECORATORS


def _is_actor(node: ast.ClassDef) -> bool:
    return any(map(_makes_actor, node.decorator_list))


def _pulsing_names(tree: ast.Module) -> set[str]:
    """Names of the base class `Actor` in the module."""
    names = {"Actor"} if any(isinstance(n, ast.Import) for n in tree.body) else set()
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pulsing"):
            names |= {a.asname or a.name for a in node.names if a.name == "Actor"}
    return names


def _is_type(node: ast.expr) -> bool:
    """Whether an assigned expression makes a type, or names something that has one."""
    if isinstance(node, ast.Call):
        return _bare(node) in _TYPE_MAKERS
    if isinstance(node, ast.BinOp):
        return isinstance(node.op, ast.BitOr) and _is_type(node.left)
    return isinstance(node, (ast.Attribute, ast.Name, ast.Subscript))


def _kind_of(node: ast.expr | None) -> str:
    if isinstance(node, ast.Constant) and type(node.value) in _LITERALS:
        return _LITERALS[type(node.value)]
    if isinstance(node, ast.UnaryOp) and not isinstance(node.op, ast.Not):
        return _kind_of(node.operand)
    if isinstance(node, ast.JoinedStr):
        return "str"
    kinds = {ast.List: "list", ast.ListComp: "list", ast.Set: "set", ast.SetComp: "set"}
    kinds |= {ast.Dict: "dict", ast.DictComp: "dict"}
    kind = kinds.get(type(node))
    if kind is None:
        return "_t.Any"
    return f"{kind}[_t.Any, _t.Any]" if kind == "dict" else f"{kind}[_t.Any]"


def _declared(name: str, kind: str) -> ast.stmt:
    return ast.parse(f"{name}: {kind}").body[0]


def _exported(node: ast.Import | ast.ImportFrom) -> ast.Import | ast.ImportFrom:
    """In a stub only `import x as x` is seen from outside."""
    stub = copy.deepcopy(node)
    for alias in stub.names:
        if "." not in alias.name and alias.name != "*" and _module(node) != "__future__":
            alias.asname = alias.asname or alias.name
    return stub


def _module(node: ast.stmt) -> str | None:
    return node.module if isinstance(node, ast.ImportFrom) else None


def _signature(node: Function) -> Function:
    stub = copy.copy(node)
    stub.args = _arguments(node.args)
    stub.body = [ast.Expr(ast.Constant(...))]
    if isinstance(node, ast.AsyncFunctionDef) and _yields(node):
        plain = {f: getattr(stub, f) for f in stub._fields if hasattr(stub, f)}
        return ast.FunctionDef(**plain)
    return stub


def _arguments(arguments: ast.arguments) -> ast.arguments:
    stub = copy.deepcopy(arguments)
    stub.defaults = [ast.Constant(...) for _ in arguments.defaults]
    stub.kw_defaults = [None if d is None else ast.Constant(...) for d in arguments.kw_defaults]
    return stub


def _annotated(arguments: ast.arguments) -> ast.arguments:
    """Where nothing is said, anything is taken; strict checks then find nothing to say of a ref."""
    rest = [a for a in (arguments.vararg, arguments.kwarg) if a is not None]
    for argument in (arguments.posonlyargs + arguments.args)[1:] + arguments.kwonlyargs + rest:
        if argument.annotation is None:
            argument.annotation = ast.parse("_t.Any", mode="eval").body
    return arguments


def _own_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Everything in a function but what is in functions and classes inside of it."""
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            yield from _own_nodes(child)


def _yields(node: Function) -> bool:
    return any(isinstance(n, (ast.Yield, ast.YieldFrom)) for n in _own_nodes(node))


def _assignments(node: Function) -> Iterator[tuple[ast.expr, ast.expr | None, ast.expr | None]]:
    """What a function assigns: target, annotation, value."""
    for part in _own_nodes(node):
        if isinstance(part, ast.AnnAssign):
            yield part.target, part.annotation, part.value
        elif isinstance(part, ast.Assign):
            for target in part.targets:
                yield target, None, part.value


def _attributes(node: ast.ClassDef) -> list[tuple[str, str]]:
    """What the methods of a class assign to `self.x`, each with its type."""
    found: dict[str, str] = {}
    for method in node.body:
        if not isinstance(method, (ast.FunctionDef, ast.AsyncFunctionDef)) or not method.args.args:
            continue
        own = method.args.args[0].arg
        given = {a.arg: a.annotation for a in method.args.args + method.args.kwonlyargs}
        for target, kind, value in _assignments(method):
            if isinstance(target, ast.Attribute) and _bare(target.value) == own:
                if kind is None and isinstance(value, ast.Name):
                    kind = given.get(value.id)
                found.setdefault(target.attr, ast.unparse(kind) if kind else _kind_of(value))
    return list(found.items())


def _constructor(node: ast.ClassDef) -> Iterator[ast.arguments]:
    for part in node.body:
        if isinstance(part, ast.FunctionDef) and part.name == "__init__":
            yield part.args
            return
    if any(_bare(d) == "dataclass" for d in node.decorator_list):
        fields = [p for p in node.body if isinstance(p, ast.AnnAssign)]
        texts = [
            f"{ast.unparse(f.target)}: {ast.unparse(f.annotation)}{' = ...' if f.value else ''}"
            for f in fields
            if not ast.unparse(f.annotation).startswith(("ClassVar", "typing.ClassVar"))
        ]
        made = ast.parse(f"def __init__({', '.join(['self', *texts])}): ...").body[0]
        assert isinstance(made, ast.FunctionDef)
        yield made.args


def _maker_arguments(constructor: ast.arguments | None, first: str) -> str:
    """`cls, system`, the constructor's arguments, and `name=` and the others."""
    options = {
        "name": "str | None",
        "public": "bool | str",
        "placement": "_t.Any",
        "detached": "bool",
    }
    own = _arguments(constructor or ast.arguments([], [ast.arg("self")], None, [], [], None, []))
    positional = own.posonlyargs + own.args
    own.posonlyargs, own.args = [], positional[1:]
    own.defaults = own.defaults[-len(own.args) :] if own.args else []
    taken = {a.arg for a in own.args + own.kwonlyargs}
    for name, kind in options.items():
        if name not in taken:
            own.kwonlyargs.append(ast.arg(name, ast.parse(kind, mode="eval").body))
            own.kw_defaults.append(ast.Constant(...))
    return f"{first}, {ast.unparse(own)}"


def _methods(node: ast.ClassDef) -> dict[str, list[Function]]:
    """Public methods by name; several of one name are overloads, without their implementation."""
    found: dict[str, list[Function]] = {}
    for part in node.body:
        if not isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        decorators = {_bare(d) for d in part.decorator_list}
        if part.name.startswith("_") or part.name in _HOOKS | _MAKERS:
            continue
        if decorators & {"property", "cached_property", "setter", "getter", "deleter"}:
            continue
        if part.name in found and "overload" not in decorators:
            continue
        found.setdefault(part.name, []).append(part)
    return found


def _endpoint(node: Function, blocking: bool, ignore: str) -> list[str]:
    """A method as a ref has it."""
    decorators = {_bare(d) for d in node.decorator_list}
    result = "_t.Any" if node.returns is None else ast.unparse(node.returns)
    streams = _yields(node)
    if streams:
        result = _item_of(node.returns)
    elif _bare(node.returns or ast.Name("")) == "StreamMessage":
        streams = True
        result = "_t.Any"
    arguments = _annotated(_arguments(node.args))
    if "batch" in decorators:
        arguments, result = _batched(arguments), _item_of(node.returns)
    if "staticmethod" in decorators:
        arguments.posonlyargs = [ast.arg("self")] + arguments.posonlyargs
        if len(arguments.posonlyargs) == 1:
            arguments.args, arguments.posonlyargs = [ast.arg("self"), *arguments.args], []
    head = f"def {node.name}({ast.unparse(arguments)})"
    if "overload" in decorators:
        kind = {
            (False, False): f"_p.Call[{result}]",
            (False, True): f"_p.StreamCall[{result}]",
            (True, False): result,
            (True, True): f"_p.StreamReader[{result}]",
        }[blocking, streams]
        return ["@_t.overload", f"{head} -> {kind}: ...{ignore}"]
    kind = ("blocking_" if blocking else "") + ("stream_" if streams else "") + "endpoint"
    return [f"@_p.{kind}{ignore}", f"{head} -> {result}: ...{ignore}"]


def _item_of(returns: ast.expr | None) -> str:
    """`X` of `list[X]`, `AsyncIterator[X]`, `Generator[X, ...]`."""
    if not isinstance(returns, ast.Subscript):
        return "_t.Any"
    inner = returns.slice
    return ast.unparse(inner.elts[0] if isinstance(inner, ast.Tuple) else inner)


def _batched(arguments: ast.arguments) -> ast.arguments:
    """A batch method's parameters for a caller: one item in the place of the list."""
    own = copy.deepcopy(arguments)
    items = (own.posonlyargs + own.args)[1:2]
    kind = _item_of(items[0].annotation) if items else "_t.Any"
    return ast.arguments(
        [ast.arg("self"), ast.arg("item", ast.parse(kind, mode="eval").body)],
        [],
        None,
        [],
        [],
        None,
        [],
    )


# The command.


def _sources(module: str) -> list[tuple[str, Path]]:
    """The files of a module, or of a package and what is in it, by dotted name."""
    if module.endswith(".py") or os.sep in module:
        path = Path(module)
        if not path.is_file():
            raise StubError(f"there is no file {module}")
        return [(module, path)]
    sys.path.insert(0, os.getcwd())
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError) as error:
        raise StubError(f"{module} cannot be found: {error}") from None
    finally:
        sys.path.pop(0)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise StubError(
            f"{module} cannot be found as Python source: run the command where it can be "
            "imported, or give the path of its .py file"
        )
    found = [(module, Path(spec.origin))]
    for folder in spec.submodule_search_locations or []:
        for path in sorted(Path(folder).rglob("*.py")):
            parts = [module, *path.relative_to(folder).with_suffix("").parts]
            if len(parts) > 2 or path.name != "__init__.py":
                found.append((".".join(parts).removesuffix(".__init__"), path))
    return found


def _target(name: str, path: Path, output: str | None) -> Path:
    if output is None:
        return path.with_suffix(".pyi")
    parts = [path.stem] if os.sep in name or name.endswith(".py") else name.split(".")
    if path.name == "__init__.py":
        parts.append("__init__")
    return Path(output, *parts).with_suffix(".pyi")


def _write(target: Path, text: str, check: bool) -> bool:
    """Whether the stub was not yet what it should be."""
    old = target.read_text() if target.exists() else None
    if old == text:
        return False
    if old is not None and not old.startswith(MARK):
        raise StubError(f"{target} was not made by this command: move it away first")
    if not check:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    return True


@click.command("stubs")
@click.argument("modules", nargs=-1, required=True, metavar="MODULE...")
@click.option("--output", "-o", metavar="FOLDER", help="Write there; default: beside the module.")
@click.option("--check", is_flag=True, help="Write nothing; exit code 1 if a stub is out of date.")
def main(modules: tuple[str, ...], output: str | None, check: bool) -> None:
    """Write stubs (.pyi) that type the refs of a MODULE's actors.

    MODULE is a module, a package (all its modules that have actors), or a path of a .py file. It is
    read, not run.
    """
    stale = []
    try:
        for module in modules:
            sources = _sources(module)
            stubs = []
            for name, path in sources:
                try:
                    stubs.append((_target(name, path, output), stub_of(path.read_text(), name)))
                except StubError:
                    if len(sources) == 1:
                        raise
            if not stubs:
                raise StubError(f"{module} has no class with @as_actor: its refs need no stub")
            stale += [target for target, text in stubs if _write(target, text, check)]
    except (StubError, OSError) as error:
        raise click.ClickException(str(error)) from None
    for target in stale:
        click.echo(f"{target} is out of date" if check else target)
    if check and stale:
        sys.exit(1)
