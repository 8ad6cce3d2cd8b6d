"""A tool as each provider's API wants to see it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from rejoinder._core import dialects
from rejoinder._core.dialects import Dialect
from rejoinder._core.rules import TOOL_NAME
from rejoinder._core.schema import Frozen, gemini_schema
from rejoinder.errors import ConfigurationError
from rejoinder.llm.tool_context import (
    FunctionTool,
    ProviderTool,
    RawFunctionTool,
    get_function_info,
    get_raw_function_info,
    is_raw_function_tool,
    plan_of,
)

if TYPE_CHECKING:
    from rejoinder.llm.tool_context import ToolContext

__all__ = ["tool_specs"]

Spec = dict[str, Any]


def tool_specs(
    tool_ctx: ToolContext,
    format: str | Dialect,
    *,
    provider_tool_type: type[Any] | None = None,
    **options: Any,
) -> list[Spec]:
    """See `ToolContext.parse_function_tools`; `format` may be a dialect itself."""
    if isinstance(format, str):
        try:
            dialect = dialects.find(format)
        except ValueError as error:
            raise ValueError(f"tools: {error}") from None
    else:
        dialect = format
    provider = dialect.name.partition(".")[0]
    key = (dialect.name, *options.items())
    specs = [_cached(tool, key, dialect, options) for tool in tool_ctx.function_tools.values()]
    return specs + [
        tool.to_dict()
        for tool in tool_ctx.provider_tools
        if _belongs(tool, provider, provider_tool_type)
    ]


def _cached(
    tool: FunctionTool | RawFunctionTool,
    key: tuple[Any, ...],
    dialect: Dialect,
    options: dict[str, Any],
) -> Spec:
    # Beside what it was made from, so that a tool which is described anew is sent anew.
    if is_raw_function_tool(tool):
        info = get_raw_function_info(tool)
        cache, source = info.specs, (info.name, info.raw_schema)
    else:
        info = get_function_info(tool)
        cache, source = plan_of(tool).specs, (info.name, info.description)
    made = cache.get(key)
    if made is None or made[0] != source:
        _check_name(source[0], dialect)
        made = cache[key] = (source, Frozen(_builder(dialect)(tool, **options)))
    return made[1].copy()


def _builder(dialect: Dialect) -> dialects.ToolSpec:
    build = dialect.tool_spec
    if build is None:
        raise ValueError(f"tools: the dialect {dialect.name!r} does not describe any")
    return dialects.load(build, f"tools of {dialect.name!r}") if isinstance(build, str) else build


def _check_name(name: str, dialect: Dialect) -> None:
    accepted = TOOL_NAME if dialect.rules is None else dialect.rules.name
    if not accepted.fullmatch(name):
        raise ConfigurationError(
            f"tool `{name}`: {dialect.name} takes names like {accepted.pattern}; give it another one with "
            '@function_tool(name="...")'
        )


def _belongs(tool: ProviderTool, provider: str, wanted: type[Any] | None) -> bool:
    if wanted is not None:
        return isinstance(tool, wanted)
    return tool.provider in (None, provider)


def legacy_openai(tool: FunctionTool | RawFunctionTool, *, internally_tagged: bool = False) -> Spec:
    """The plain JSON schema in OpenAI's envelope; flat with the type inside when tagged."""
    spec = _raw(tool) if is_raw_function_tool(tool) else _plain(tool)
    if internally_tagged:
        return {**spec, "type": "function"}
    return {"type": "function", "function": spec}


def strict_openai(tool: FunctionTool | RawFunctionTool) -> Spec:
    """The strict schema in OpenAI's envelope; a raw tool as it is."""
    if is_raw_function_tool(tool):
        return legacy_openai(tool)
    return {"type": "function", "function": _strict(tool)}


def _plain(tool: FunctionTool | RawFunctionTool) -> Spec:
    info = get_function_info(tool)
    return {
        "name": info.name,
        "description": info.description or "",
        "parameters": plan_of(tool).legacy.copy(),
    }


def _strict(tool: FunctionTool | RawFunctionTool) -> Spec:
    info = get_function_info(tool)
    return {
        "name": info.name,
        "strict": True,
        "description": info.description or "",
        "parameters": plan_of(tool).strict.copy(),
    }


def _raw(tool: RawFunctionTool) -> Spec:
    spec = Frozen(get_raw_function_info(tool).raw_schema).copy()
    spec.pop("meta", None)  # a tool server's own notes; providers refuse unknown keys
    return spec


def _raw_parameters(spec: Spec) -> Spec:
    # Providers other than OpenAI insist on an object schema.
    return spec["parameters"] or {"type": "object", "properties": {}}


def openai(tool: FunctionTool | RawFunctionTool, *, strict: bool = True) -> Spec:
    if strict and not is_raw_function_tool(tool) and plan_of(tool).why_not_strict is None:
        return strict_openai(tool)
    return legacy_openai(tool)


def responses(tool: FunctionTool | RawFunctionTool, *, strict: bool = False) -> Spec:
    if strict and not is_raw_function_tool(tool) and plan_of(tool).why_not_strict is None:
        return {**_strict(tool), "type": "function"}
    return legacy_openai(tool, internally_tagged=True)


# Anthropic's strict form knows neither limits of numbers and texts nor recursion.
_ANTHROPIC_REFUSES = frozenset(
    {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength"}
    | {"maxLength", "maxItems"}
)


def anthropic(tool: FunctionTool | RawFunctionTool, *, strict: bool = True) -> Spec:
    if is_raw_function_tool(tool):
        spec = _raw(tool)
        return {
            "name": spec["name"],
            "description": spec.get("description") or "",
            "input_schema": _raw_parameters(spec),
        }
    plan = plan_of(tool)
    info = get_function_info(tool)
    out: Spec = {"name": info.name, "description": info.description or ""}
    if (
        strict
        and plan.why_not_strict is None
        and not _uses(plan.schema, _ANTHROPIC_REFUSES)
        and not plan.recursive
    ):
        return {**out, "input_schema": plan.strict.copy(), "strict": True}
    return {**out, "input_schema": plan.legacy.copy()}


def _uses(schema: object, keys: frozenset[str]) -> bool:
    if isinstance(schema, list):
        return any(_uses(part, keys) for part in cast("list[object]", schema))
    if not isinstance(schema, Mapping):
        return False
    node = cast("Mapping[str, object]", schema)
    # A property may bear the name of a keyword; then a schema stands behind it.
    if any(key in node and not isinstance(node[key], Mapping) for key in keys):
        return True
    return any(_uses(part, keys) for part in node.values())


def google(tool: FunctionTool | RawFunctionTool, *, json_schema: bool = True) -> Spec:
    if is_raw_function_tool(tool):
        raw = _raw(tool)
        out: Spec = {"name": raw["name"], "description": raw.get("description") or ""}
        if not raw["parameters"]:
            return out
        if json_schema:
            return {**out, "parameters_json_schema": raw["parameters"]}
        parameters = gemini_schema(raw["parameters"])
        return out if parameters is None else {**out, "parameters": parameters}
    info = get_function_info(tool)
    plan = plan_of(tool)
    out = {"name": info.name, "description": info.description or ""}
    if plan.gemini is None:
        if json_schema:
            return {**out, "parameters_json_schema": plan.legacy.copy()}
        gemini_schema(plan.schema)  # raises, and says what the dialect has no words for
    parameters = plan.gemini.copy() if plan.gemini else None
    return out if parameters is None else {**out, "parameters": parameters}


def aws(tool: FunctionTool | RawFunctionTool) -> Spec:
    if is_raw_function_tool(tool):
        spec = _raw(tool)
        parameters = _raw_parameters(spec)
    else:
        spec = _plain(tool)
        parameters = spec["parameters"]
    out: Spec = {"name": spec["name"]}
    if spec.get("description"):  # an empty one is refused
        out["description"] = spec["description"]
    return {"toolSpec": {**out, "inputSchema": {"json": parameters}}}
