"""Plans of tools' arguments: built once, at decoration, and stored on the function."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from rejoinder._core.schema import Plan

__all__ = ["RAW_CONTEXTS", "is_method", "local_names", "plan_of", "prepare_plan", "raw_contexts_of"]

PLANS: Final = "__rejoinder_tool_plans"
RAW_CONTEXTS: Final = "__rejoinder_raw_contexts"
LOCAL_NAMES: Final = "__rejoinder_local_names"


def plan_of(tool: Callable[..., Any]) -> Plan:
    """The plan for the arguments of `tool`; built once.

    Raises:
        NameError: an annotation uses a name that still does not exist.
        TypeError: no schema can describe a parameter.
    """
    bound = inspect.ismethod(tool)
    owner: Any = tool.__func__ if bound else tool
    plans: dict[bool, Plan] | None = getattr(owner, "__dict__", {}).get(PLANS)
    if plans is not None:
        plan = plans.get(bound)
        # functools.wraps copies attributes, so check that the plan belongs to this function.
        if plan is not None and plan.function is owner:
            return plan
    return _build_plan(owner, bound, getattr(owner, LOCAL_NAMES, None))


def raw_contexts_of(tool: Callable[..., Any]) -> Mapping[str, type[Any]]:
    """The context parameters of a raw tool, by name.

    Raises:
        NameError: an annotation uses a name that still does not exist.
    """
    owner: Any = getattr(tool, "__func__", tool)
    kept = getattr(owner, "__dict__", {}).get(RAW_CONTEXTS)
    if kept is not None and kept[0] is owner:  # not copied by functools.wraps
        return kept[1]
    from rejoinder._core.schema import raw_context_parameters

    return raw_context_parameters(owner)


def _build_plan(owner: Any, bound: bool, localns: Mapping[str, Any] | None) -> Plan:
    from rejoinder._core.schema import build_plan

    unbound = not bound and is_method(owner)
    plan = build_plan(owner, skip_first=bound or unbound, unbound=unbound, localns=localns)
    attributes = getattr(owner, "__dict__", None)
    if attributes is not None:
        plans = attributes.get(PLANS)
        if plans is None or any(other.function is not owner for other in plans.values()):
            plans = {}
            setattr(owner, PLANS, plans)
        plans[bound] = plan
        if unbound:
            # A bound method has the same signature, so its first use builds nothing.
            plans[True] = plan.as_bound()
    return plan


def is_method(function: Any) -> bool:
    """Whether `function` is defined in a class body and takes its instance (or class) first."""
    if not isinstance(function, types.FunctionType):
        return False
    outer = function.__qualname__.rpartition(".")[0]
    if not outer or outer.endswith("<locals>"):
        return False
    first = next(iter(inspect.signature(function).parameters.values()), None)
    return (
        first is not None
        and first.kind in (first.POSITIONAL_ONLY, first.POSITIONAL_OR_KEYWORD)
        and first.default is first.empty
        and first.name in ("self", "cls")
    )


def prepare_plan(tool: Callable[..., Any], scope: types.FrameType) -> None:
    from rejoinder._core.schema import UnresolvedName

    bound = inspect.ismethod(tool)
    owner: Any = tool.__func__ if bound else tool
    names = local_names(scope)
    try:
        _build_plan(owner, bound, names)
    except UnresolvedName:
        # A forward reference is resolved, or reported, at the first use. The scope no longer exists
        # then, so keep the names that the annotations use.
        annotations = " ".join(map(str, getattr(owner, "__annotations__", {}).values()))
        spoken_of = set(re.findall(r"\w+", annotations))
        setattr(owner, LOCAL_NAMES, {name: names[name] for name in names.keys() & spoken_of})


def local_names(scope: types.FrameType | None) -> dict[str, Any]:
    """The local names that are visible in `scope`, inner ones first. Module names need no copy."""
    names: dict[str, Any] = {}
    while scope is not None and scope.f_code.co_name != "<module>":
        names = {**scope.f_locals, **names}
        # In a class body inside a function, the function's names are visible too.
        if scope.f_code.co_flags & inspect.CO_OPTIMIZED:
            break
        scope = scope.f_back
    return names
