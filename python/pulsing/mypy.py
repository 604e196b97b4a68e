# SPDX-License-Identifier: Apache-2.0
"""The mypy plugin: refs have the methods of their actors' classes.

    [tool.mypy]
    plugins = ["pulsing.mypy"]

A ref is a `Ref[Calculator]`; `ref.add` is looked up in `Calculator` and gives a call of the
method's result. The classes themselves stay what they are: `@as_actor` only adds `local`, `remote`,
`spawn` and `resolve`, whose parameters are taken from the constructor where they are called.
"""

from __future__ import annotations

from collections.abc import Callable

from mypy.errorcodes import ATTR_DEFINED
from mypy.maptype import map_instance_to_supertype
from mypy.nodes import (
    ARG_NAMED_OPT,
    ARG_OPT,
    ARG_POS,
    ARG_STAR,
    ARG_STAR2,
    ArgKind,
    Argument,
    Decorator,
    FuncDef,
    MemberExpr,
    TypeInfo,
    Var,
)
from mypy.plugin import (
    AttributeContext,
    ClassDefContext,
    MethodContext,
    MethodSigContext,
    Plugin,
)
from mypy.plugins.common import add_method_to_class
from mypy.types import (
    AnyType,
    CallableType,
    FunctionLike,
    Instance,
    NoneType,
    Overloaded,
    Parameters,
    ProperType,
    Type,
    TypeOfAny,
    TypeType,
    UnionType,
    get_proper_type,
)

_DECORATORS = {"pulsing._actor.as_actor", "pulsing.remote", "pulsing.actor.remote"}
_REF = "pulsing._core.Ref"
_BLOCKING_REF = "pulsing._core.BlockingRef"
_REF_BASE = "pulsing._core._RefBase."
_SPAWNS = {"pulsing._system.ActorSystem.spawn", "pulsing._blocking.BlockingSystem.spawn"}
_MAKERS = ("local", "remote", "spawn", "resolve")
_HOOKS = ("on_start", "on_stop", "metadata", "receive")
_AWAITED = ("typing.Coroutine", "typing.Awaitable")
_STREAMS = (
    "typing.AsyncIterator",
    "typing.AsyncGenerator",
    "typing.Generator",
    "typing.Iterator",
    "pulsing._message.StreamMessage",
)


def plugin(version: str) -> type[Plugin]:
    """What mypy asks a plugin's module for."""
    return ActorPlugin


class ActorPlugin(Plugin):
    """Types refs by their actors' classes."""

    def get_class_decorator_hook_2(self, fullname: str) -> Callable[[ClassDefContext], bool] | None:
        """`@as_actor`."""
        return _add_makers if fullname in _DECORATORS else None

    def get_method_signature_hook(
        self, fullname: str
    ) -> Callable[[MethodSigContext], FunctionLike] | None:
        """`Cls.local(...)` and its like."""
        owner, _, name = fullname.rpartition(".")
        if name not in _MAKERS or owner.startswith("pulsing._"):
            return None
        return lambda ctx: self._maker(ctx, owner, name)

    def get_method_hook(self, fullname: str) -> Callable[[MethodContext], Type] | None:
        """`system.spawn(actor)`."""
        return self._spawned if fullname in _SPAWNS else None

    def get_attribute_hook(self, fullname: str) -> Callable[[AttributeContext], Type] | None:
        """`ref.method`."""
        if not fullname.startswith(_REF_BASE):
            return None
        own = fullname[len(_REF_BASE) :] in self._info(_REF_BASE[:-1]).names
        return None if own else self._endpoint

    # Names of the package, as types.

    def _info(self, fullname: str) -> TypeInfo:
        symbol = self.lookup_fully_qualified(fullname)
        assert symbol is not None and isinstance(symbol.node, TypeInfo), fullname
        return symbol.node

    def _instance(self, fullname: str, *args: Type) -> Instance:
        return Instance(self._info(fullname), list(args))

    def _call(self, result: Type) -> Instance:
        return self._instance("pulsing._core.Call", result)

    def _coroutine(self, result: Type) -> Instance:
        return self._instance("typing.Coroutine", _any(), _any(), result)

    # Making actors.

    def _maker(self, ctx: MethodSigContext, owner: str, name: str) -> FunctionLike:
        symbol = self.lookup_fully_qualified(owner)
        if symbol is None or not isinstance(symbol.node, TypeInfo):
            return ctx.default_signature
        if not any("pulsing" in base.metadata for base in symbol.node.mro):
            return ctx.default_signature
        constructor: ProperType = ctx.type
        if isinstance(constructor, TypeType):
            actor: Type = constructor.item
            made = [ctx.default_signature]
        elif isinstance(constructor, FunctionLike) and constructor.is_type_obj():
            made = list(constructor.items)
            actor = made[0].ret_type
        else:
            return ctx.default_signature
        if name == "resolve":
            return ctx.default_signature.copy_modified(
                ret_type=self._coroutine(self._instance(_REF, actor))
            )
        system = None if name == "spawn" else self._system(ctx)
        items = [
            self._maker_item(ctx, item, name, system, isinstance(constructor, TypeType))
            for item in made
        ]
        return items[0] if len(items) == 1 else Overloaded(items)

    def _system(self, ctx: MethodSigContext) -> Instance:
        """The kind of system that is passed first: it decides between a coroutine and a ref."""
        first = ctx.args[0] if ctx.args else []
        given = get_proper_type(ctx.api.get_expression_type(first[0])) if first else None
        if isinstance(given, Instance) and given.type.has_base("pulsing._blocking.BlockingSystem"):
            return self._instance("pulsing._blocking.BlockingSystem")
        return self._instance("pulsing._system.ActorSystem")

    def _maker_item(
        self,
        ctx: MethodSigContext,
        constructor: CallableType,
        name: str,
        system: Instance | None,
        unknown: bool,
    ) -> CallableType:
        arguments: list[tuple[Type, ArgKind, str | None]] = []
        if system is not None:
            arguments.append((system, ARG_POS, None))
        actor = constructor.ret_type
        if unknown:
            actor = ctx.type.item if isinstance(ctx.type, TypeType) else _any()
            arguments += [(_any(), ARG_STAR, None), (_any(), ARG_STAR2, None)]
        else:
            arguments += zip(
                constructor.arg_types, constructor.arg_kinds, constructor.arg_names, strict=True
            )
            arguments = _with_options(arguments, self._options(ctx))
        blocking = system is not None and system.type.name == "BlockingSystem"
        ref = self._instance(_BLOCKING_REF if blocking else _REF, actor)
        types, kinds, names = zip(*arguments, strict=True) if arguments else ((), (), ())
        return constructor.copy_modified(
            arg_types=list(types),
            arg_kinds=list(kinds),
            arg_names=list(names),
            ret_type=ref if blocking else self._coroutine(ref),
            fallback=ctx.api.named_generic_type("builtins.function", []),
            name=f"{name} of {_label(actor)}",
            definition=None,
            from_type_type=False,
            is_bound=True,
        )

    def _options(self, ctx: MethodSigContext) -> list[tuple[str, Type]]:
        text = ctx.api.named_generic_type("builtins.str", [])
        truth = ctx.api.named_generic_type("builtins.bool", [])
        return [
            ("name", UnionType([text, NoneType()])),
            ("public", UnionType([truth, text])),
            ("placement", _any()),
            ("detached", truth),
        ]

    def _spawned(self, ctx: MethodContext) -> Type:
        """A ref of the first argument that can be an actor."""
        given = [get_proper_type(kind) for kinds in ctx.arg_types for kind in kinds]
        for actor in given:
            if isinstance(actor, Instance) and not actor.type.fullname.startswith("builtins."):
                blocking = isinstance(ctx.type, Instance) and ctx.type.type.has_base(
                    "pulsing._blocking.BlockingSystem"
                )
                if blocking:
                    return self._instance(_BLOCKING_REF, actor)
                return self._coroutine(self._instance(_REF, actor))
        return ctx.default_return_type

    # Methods of refs.

    def _endpoint(self, ctx: AttributeContext) -> Type:
        ref = _ref_of(ctx.type)
        if ref is None or not isinstance(ctx.context, MemberExpr):
            return ctx.default_attr_type
        name = ctx.context.name
        base = map_instance_to_supertype(ref, self._info(_REF_BASE[:-1]))
        actor = get_proper_type(base.args[0])
        if not isinstance(actor, Instance) or actor.type.fallback_to_any:
            return ctx.default_attr_type
        if name.startswith("_") or name in _HOOKS or name in _MAKERS:
            return self._no_endpoint(ctx, name, actor, "refs do not have private names and hooks")
        symbol = actor.type.get(name)
        if symbol is None:
            return self._no_endpoint(ctx, name, actor, "the class has no such method")
        checker = ctx.api.expr_checker  # type: ignore[attr-defined]
        method = get_proper_type(checker.analyze_external_member_access(name, actor, ctx.context))
        blocking = ref.type.has_base(_BLOCKING_REF)
        if isinstance(method, CallableType):
            return self._called(method, symbol.node, blocking)
        if isinstance(method, Overloaded):
            return Overloaded([self._called(i, symbol.node, blocking) for i in method.items])
        if isinstance(method, AnyType):
            return method
        return self._no_endpoint(ctx, name, actor, "it is not a method; refs have methods alone")

    def _no_endpoint(self, ctx: AttributeContext, name: str, actor: Instance, why: str) -> Type:
        text = f'A ref of "{actor.type.name}" has no attribute "{name}": {why}'
        ctx.api.fail(text, ctx.context, code=ATTR_DEFINED)
        return _any(TypeOfAny.from_error)

    def _called(self, method: CallableType, node: object, blocking: bool) -> CallableType:
        """The method as a ref has it: what it gives is a call, and `.tell` and `.options` exist."""
        result = self._result(method, node, blocking)
        told: Type = NoneType() if blocking else self._instance("pulsing._core.Done")
        parameters = Parameters(
            list(method.arg_types), list(method.arg_kinds), list(method.arg_names)
        )
        if method.variables:
            parameters = Parameters(
                [_any(), _any()], [ARG_STAR, ARG_STAR2], [None, None], is_ellipsis_args=True
            )
        fallback = self._instance("pulsing._core.Endpoint", parameters, result, told)
        return method.copy_modified(ret_type=result, fallback=fallback)

    def _result(self, method: CallableType, node: object, blocking: bool) -> Type:
        result = get_proper_type(method.ret_type)
        if isinstance(result, Instance):
            fullname = result.type.fullname
            item = result.args[0] if result.args else _any()
            if fullname in _STREAMS or _is_generator(node):
                if blocking:
                    return self._instance("pulsing._message.StreamMessage", item)
                return self._instance("pulsing._core.StreamCall", item)
            if fullname in _AWAITED:
                result = get_proper_type(result.args[-1])
        if isinstance(result, Instance) and result.type.fullname == _STREAMS[-1]:
            item = result.args[0] if result.args else _any()
            return result if blocking else self._instance("pulsing._core.StreamCall", item)
        return result if blocking else self._call(result)


def _any(kind: int = TypeOfAny.special_form) -> AnyType:
    return AnyType(kind)


def _label(actor: Type) -> str:
    actor = get_proper_type(actor)
    return actor.type.name if isinstance(actor, Instance) else "an actor class"


def _ref_of(kind: ProperType) -> Instance | None:
    """The ref whose attribute it is; of several in a union none can be told."""
    kinds = kind.items if isinstance(kind, UnionType) else [kind]
    refs = [
        item
        for item in map(get_proper_type, kinds)
        if isinstance(item, Instance) and item.type.has_base(_REF_BASE[:-1])
    ]
    return refs[0] if len(refs) == 1 else None


def _is_generator(node: object) -> bool:
    function = node.func if isinstance(node, Decorator) else node
    return isinstance(function, FuncDef) and function.is_generator


def _with_options(
    arguments: list[tuple[Type, ArgKind, str | None]], options: list[tuple[str, Type]]
) -> list[tuple[Type, ArgKind, str | None]]:
    """The constructor's arguments and `name=` and the others, before any `**kwargs`."""
    taken = {name for _, _, name in arguments}
    added = [(kind, ARG_NAMED_OPT, name) for name, kind in options if name not in taken]
    rest = [a for a in arguments if a[1] == ARG_STAR2]
    return [a for a in arguments if a[1] != ARG_STAR2] + added + rest


def _add_makers(ctx: ClassDefContext) -> bool:
    info = ctx.cls.info
    if "pulsing" in info.metadata:
        return True
    info.metadata["pulsing"] = {"actor": True}
    anything = _any()

    def argument(name: str, kind: ArgKind) -> Argument:
        return Argument(Var(name, anything), anything, None, kind)

    rest = [argument("args", ARG_STAR), argument("kwargs", ARG_STAR2)]
    text = ctx.api.named_type("builtins.str")
    number = UnionType([ctx.api.named_type("builtins.float"), NoneType()])
    shapes = {
        "local": [argument("system", ARG_POS), *rest],
        "remote": [argument("system", ARG_POS), *rest],
        "spawn": rest,
        "resolve": [
            Argument(Var("name", text), text, None, ARG_POS),
            Argument(Var("timeout", number), number, None, ARG_OPT),
        ],
    }
    for name, arguments in shapes.items():
        if name not in info.names:
            add_method_to_class(ctx.api, ctx.cls, name, arguments, anything, is_classmethod=True)
    return True
