"""The tools of a conversation in the form of each provider's API."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from rejoinder._core import dialects
from rejoinder._core.dialects import Dialect
from rejoinder._core.frozen import Frozen
from rejoinder._core.names import portable_names
from rejoinder._core.rules import TOOL_NAME
from rejoinder._core.tool_forms import ToolForm
from rejoinder._core.tools import RawFunctionToolInfo
from rejoinder._options import STRING
from rejoinder.llm._plans import plan_of
from rejoinder.llm._tools import (
    FunctionTool,
    ProviderTool,
    RawFunctionTool,
    get_function_info,
    get_raw_function_info,
    info_of,
    is_raw_function_tool,
)

__all__ = ["form_of", "legacy_openai", "strict_openai", "tool_specs"]

logger = logging.getLogger("rejoinder")

Spec = dict[str, Any]


def tool_specs(
    tools: Mapping[str, FunctionTool | RawFunctionTool],
    provider_tools: Sequence[ProviderTool],
    format: str | Dialect,
    *,
    provider_tool_type: type[Any] | None = None,
    **options: Any,
) -> list[Spec]:
    """See `ToolContext.parse_function_tools`; `format` may be a dialect itself."""
    if isinstance(format, Dialect):
        dialect = format
    else:
        STRING.check("ToolContext.parse_function_tools.format", format)
        try:
            dialect = dialects.find(format)
        except ValueError as error:
            raise ValueError(f"tools: {error}") from None
    accepted = TOOL_NAME if dialect.rules is None else dialect.rules.name
    sent = portable_names(tuple(tools), accepted)
    key = (dialect.name, *options.items())
    specs: list[Spec] = []
    for name, tool in tools.items():
        # Cached with its source, so that a changed tool gets a new description.
        info = info_of(tool)
        source: tuple[object, ...]
        if isinstance(info, RawFunctionToolInfo):
            cache, source = info.descriptions, (sent[name], info.raw_schema)
        else:
            cache, source = plan_of(tool).descriptions, (sent[name], info.description)
        made = cache.get(key)
        if made is None or made[0] != source:
            made = (source, Frozen(_describe(tool, sent[name], dialect, options)))
            cache[key] = made
        specs.append(made[1].copy())
    if provider_tools:
        provider = dialect.name.partition(".")[0]
        specs += [
            tool.to_dict()
            for tool in provider_tools
            if _belongs(tool, provider, provider_tool_type)
        ]
    return specs


def _describe(
    tool: FunctionTool | RawFunctionTool, name: str, dialect: Dialect, options: dict[str, Any]
) -> Spec:
    form = form_of(tool, name)
    spec = _builder(dialect)(form, **options)
    if form.changes:
        told = "; ".join(map(str, form.changes))
        logger.info("the tool %r, as %s takes it: %s", info_of(tool).name, dialect.name, told)
    return spec


def form_of(tool: FunctionTool | RawFunctionTool, name: str | None = None) -> ToolForm:
    """`tool` as plain values, under `name` if it is given."""
    if is_raw_function_tool(tool):
        raw = get_raw_function_info(tool).raw_schema
        return ToolForm(name or raw["name"], raw.get("description") or "", None, raw)
    info = get_function_info(tool)
    return ToolForm(name or info.name, info.description or "", plan_of(tool), {})


def _builder(dialect: Dialect) -> dialects.ToolSpec:
    build = dialect.tool_spec
    if build is None:
        raise ValueError(f"tools: the dialect {dialect.name!r} does not support tools")
    return dialects.load(build, f"tools of {dialect.name!r}") if isinstance(build, str) else build


def _belongs(tool: ProviderTool, provider: str, wanted: type[Any] | None) -> bool:
    if wanted is not None:
        return isinstance(tool, wanted)
    return tool.provider in (None, provider)


def legacy_openai(tool: FunctionTool | RawFunctionTool, *, internally_tagged: bool = False) -> Spec:
    """The plain JSON schema in OpenAI's envelope, a raw one unchanged; flat, with the type inside, if
    tagged."""
    spec = _raw(tool) if is_raw_function_tool(tool) else _plain(tool)
    if internally_tagged:
        return {**spec, "type": "function"}
    return {"type": "function", "function": spec}


def strict_openai(tool: FunctionTool | RawFunctionTool) -> Spec:
    """The strict schema in OpenAI's envelope; a raw tool unchanged."""
    if is_raw_function_tool(tool):
        return legacy_openai(tool)
    form = form_of(tool)
    spec = {
        "name": form.name,
        "strict": True,
        "description": form.description,
        "parameters": plan_of(tool).strict.copy(),
    }
    return {"type": "function", "function": spec}


def _plain(tool: FunctionTool | RawFunctionTool) -> Spec:
    form = form_of(tool)
    return {
        "name": form.name,
        "description": form.description,
        "parameters": plan_of(tool).legacy.copy(),
    }


def _raw(tool: RawFunctionTool) -> Spec:
    spec = Frozen(get_raw_function_info(tool).raw_schema).copy()
    spec.pop("meta", None)  # metadata of a tool server; providers refuse unknown keys
    return spec
