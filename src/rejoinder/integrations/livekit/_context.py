"""Contexts, tools and errors between this package and ``livekit.agents``, in both directions.

LiveKit Agents 1.2.17 lacks fields and item kinds of later versions. A conversion to LiveKit omits only
what the installed version lacks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast
from weakref import WeakKeyDictionary

from livekit.agents import APIConnectionError as TheirConnectionError
from livekit.agents import APIError as TheirError
from livekit.agents import APIStatusError as TheirStatusError
from livekit.agents import APITimeoutError as TheirTimeoutError
from livekit.agents import llm as lk

from rejoinder import errors
from rejoinder._core.items import parts_of
from rejoinder._foreign import has, read
from rejoinder._options import check, instance
from rejoinder.integrations._replies import declare_tool
from rejoinder.llm.chat_context import (
    AgentConfigUpdate,
    AgentHandoff,
    AudioContent,
    ChatContext,
    ChatMessage,
    FunctionCall,
    FunctionCallOutput,
    ImageContent,
)
from rejoinder.llm.tool_context import ProviderTool, RawFunctionTool

__all__ = [
    "context_from_livekit",
    "context_to_livekit",
    "error_from_livekit",
    "error_to_livekit",
    "item_to_livekit",
    "tools_from_livekit",
    "tools_to_livekit",
]

_OUR_ITEMS: dict[str, Any] = {
    "message": ChatMessage,
    "function_call": FunctionCall,
    "function_call_output": FunctionCallOutput,
    "agent_handoff": AgentHandoff,
    "agent_config_update": AgentConfigUpdate,
}

# 1.2.17 has only the first three.
_THEIR_ITEMS: dict[str, Any] = {
    "message": lk.ChatMessage,
    "function_call": lk.FunctionCall,
    "function_call_output": lk.FunctionCallOutput,
}
for _type, _name in (
    ("agent_handoff", "AgentHandoff"),
    ("agent_config_update", "AgentConfigUpdate"),
):
    _class = read(lk.chat_context, _name)
    if _class is not None:
        _THEIR_ITEMS[_type] = _class

_CacheBreakpoint: Any = read(lk.chat_context, "CacheBreakpoint")  # 1.8 has it

_THEIR_FIELDS = {kind: tuple(made.model_fields) for kind, made in _THEIR_ITEMS.items()}


def context_from_livekit(chat_ctx: lk.ChatContext) -> ChatContext:
    """The same conversation as a context of this package.

    Frames are passed on as the same objects. Cache breakpoints are not sent to models; the message keeps
    them in ``extra["rejoinder"]``, and `context_to_livekit` restores them.

    Raises:
        TypeError: `chat_ctx` is not a context of LiveKit, or an item or a part of a message is of a
            kind that this package does not know.
    """
    rule = instance(lk.ChatContext, expected="a ChatContext of livekit.agents.llm")
    check("integrations.livekit.context_from_livekit", chat_ctx=(chat_ctx, rule))
    items: list[Any] = []
    for item in chat_ctx.items:
        ours = _OUR_ITEMS.get(item.type)
        if ours is None:
            raise TypeError(
                f"chat_ctx: item {item.id!r} is of the unknown type {item.type!r}; expected one of "
                f"{', '.join(_OUR_ITEMS)}"
            )
        known = ours.model_fields
        fields = {key: value for key, value in item.__dict__.items() if key in known}
        if "extra" in fields:
            fields["extra"] = dict(fields["extra"])
        if item.type == "message":
            fields["content"], marks = _content_from_livekit(item.content)
            fields["metrics"] = dict(fields.get("metrics") or {})
            if marks:
                held = fields.get("extra", {})
                own = {**held.get("rejoinder", {}), "content": marks}
                fields["extra"] = {**held, "rejoinder": own}
        items.append(ours(**fields))
    return ChatContext(items)


def _content_from_livekit(content: Sequence[Any]) -> tuple[list[Any], list[list[Any]]]:
    """The parts of a message, and the marks between them with their positions.

    The positions are those that `ChatContext.from_dict` uses for saved contexts.
    """
    parts: list[Any] = []
    marks: list[list[Any]] = []
    for place, part in enumerate(content):
        if isinstance(part, str):
            parts.append(part)
        elif isinstance(part, lk.ImageContent):
            parts.append(ImageContent(**_fields_of(part, ImageContent)))
        elif isinstance(part, lk.AudioContent):
            frames: list[Any] = list(part.frame)
            parts.append(AudioContent(frame=frames, transcript=part.transcript))
        elif _CacheBreakpoint is not None and isinstance(part, _CacheBreakpoint):
            marks.append([place, part.model_dump()])
        else:
            kind = read(part, "type") or type(part).__name__
            raise TypeError(f"chat_ctx: a message holds the unknown content {kind}")
    return parts, marks


def context_to_livekit(chat_ctx: ChatContext) -> lk.ChatContext:
    """The same conversation as a context of LiveKit, without what the installed version lacks.

    Raises:
        TypeError: `chat_ctx` is not a `ChatContext`.
    """
    rule = instance(ChatContext, expected="a ChatContext of rejoinder.llm")
    check("integrations.livekit.context_to_livekit", chat_ctx=(chat_ctx, rule))
    items = (item_to_livekit(item) for item in chat_ctx.items)
    return lk.ChatContext([item for item in items if item is not None])


def item_to_livekit(item: Any) -> Any:
    """The same item as one of LiveKit, or ``None`` if the installed version has no such kind."""
    theirs = _THEIR_ITEMS.get(item.type)
    if theirs is None:
        return None
    known = _THEIR_FIELDS[item.type]
    fields = {
        key: value for key, value in item.__dict__.items() if key in known and value is not None
    }
    for name in ("extra", "metrics"):
        if name in fields:
            fields[name] = dict(fields[name])
    if item.type == "message":
        content = [_part_to_livekit(part) for part in parts_of(item)]
        _put_marks_back(content, item, fields)
        fields["content"] = content
    return theirs(**fields)


def _put_marks_back(content: list[Any], item: ChatMessage, fields: dict[str, Any]) -> None:
    own: Any = item.extra.get("rejoinder")
    if _CacheBreakpoint is None or not isinstance(own, dict) or "content" not in own:
        return
    rest = dict(cast("dict[str, Any]", own))
    unknown: list[list[Any]] = []
    for place, part in rest.pop("content"):
        if part.get("type") == "cache_breakpoint":
            content.insert(place, _CacheBreakpoint())
        else:
            unknown.append([place, part])
    if unknown:
        rest["content"] = unknown
    fields["extra"] = {key: value for key, value in item.extra.items() if key != "rejoinder"}
    if rest:
        fields["extra"]["rejoinder"] = rest


def _part_to_livekit(part: Any) -> Any:
    if isinstance(part, ImageContent):
        return lk.ImageContent(**_fields_of(part, lk.ImageContent))
    if isinstance(part, AudioContent):
        frames: list[Any] = list(part.frame)
        return lk.AudioContent(frame=frames, transcript=part.transcript)
    return part


def _fields_of(part: Any, target: Any) -> dict[str, Any]:
    known = target.model_fields
    return {key: value for key, value in part.__dict__.items() if key in known}


# -- tools ---------------------------------------------------------------------------------------

_declared: WeakKeyDictionary[Any, RawFunctionTool[Any, Any]] = WeakKeyDictionary()


def tools_from_livekit(tools: Sequence[Any]) -> list[Any]:
    """LiveKit's tools as the model sees them. LiveKit runs them.

    Raises:
        TypeError: a tool is of a kind that cannot be described to a model.
    """
    found: list[Any] = []
    for tool in tools:
        if has(tool, "tools"):  # a toolset
            found.extend(tools_from_livekit(tool.tools))
        elif _is_function(tool):
            found.append(_declaration_of(tool))
        else:
            found.append(_provider_tool(tool))
    return found


def _is_function(tool: Any) -> bool:
    theirs: Any = lk
    return bool(theirs.is_raw_function_tool(tool) or theirs.is_function_tool(tool))


def _declaration_of(tool: Any) -> RawFunctionTool[Any, Any]:
    try:
        known = _declared.get(tool)
    except TypeError:  # cannot be referenced weakly
        known = None
    if known is not None:
        return known
    # `Any`, because 1.2.17 and later versions describe tools with different classes.
    theirs: Any = lk
    schema: dict[str, Any]
    if theirs.is_raw_function_tool(tool):
        schema = dict(theirs.tool_context.get_raw_function_info(tool).raw_schema)
    else:
        schema = theirs.utils.build_legacy_openai_schema(tool, internally_tagged=True)
    made = declare_tool(schema["name"], schema.get("description"), schema.get("parameters"))
    try:
        _declared[tool] = made
    except TypeError:
        pass
    return made


def _provider_tool(tool: Any) -> ProviderTool:
    spec: Any = tool.to_dict() if has(tool, "to_dict", "id") else None
    if not isinstance(spec, dict):
        raise TypeError(
            f"tools: expected function tools, toolsets or provider tools with `to_dict()`, got "
            f"{type(tool).__name__}"
        )
    module = type(tool).__module__
    plugin = module.split(".")[2] if module.startswith("livekit.plugins.") else None
    return ProviderTool(id=tool.id, provider=plugin, spec=cast("dict[str, Any]", spec))


def tools_to_livekit(tools: Sequence[Any]) -> list[Any]:
    """Our function tools as raw tools of LiveKit, for a model of theirs. We run them."""
    from rejoinder.llm.tool_context import ToolContext

    made: list[Any] = []
    for tool in ToolContext(list(tools)).flatten():
        if isinstance(tool, ProviderTool):
            raise TypeError(
                f"tools: a LiveKit model takes function tools only, got the provider tool {tool.id!r}"
            )
        made.append(lk.function_tool(_run_by_us, raw_schema=_raw_schema(tool)))
    return made


def _raw_schema(tool: Any) -> dict[str, Any]:
    from rejoinder.llm.utils import build_legacy_openai_schema

    if isinstance(tool, RawFunctionTool):
        return dict(tool.info.raw_schema)
    schema = build_legacy_openai_schema(tool, internally_tagged=True)
    return {key: value for key, value in schema.items() if key != "type"}


async def _run_by_us(raw_arguments: dict[str, object]) -> None:
    raise RuntimeError("rejoinder runs its tools itself; this declaration cannot be called")


# -- errors --------------------------------------------------------------------------------------


def error_to_livekit(error: errors.APIError) -> TheirError:
    """The same failure as LiveKit's error, `retryable` included."""
    if isinstance(error, errors.APITimeoutError):
        return TheirTimeoutError(str(error), retryable=error.retryable)
    if isinstance(error, errors.APIStatusError):
        made = TheirStatusError(
            error.message,
            status_code=error.status_code,
            request_id=error.request_id,
            body=error.body,
            retryable=error.retryable,
        )
        made.retryable = error.retryable  # theirs derives it from the status alone
        return made
    if isinstance(error, errors.APIConnectionError):
        return TheirConnectionError(str(error), retryable=error.retryable)
    return TheirError(str(error), body=error.body, retryable=error.retryable)


def error_from_livekit(error: TheirError) -> errors.APIError:
    """The same failure as our error, `retryable` included."""
    if isinstance(error, TheirTimeoutError):
        return errors.APITimeoutError(error.message, retryable=error.retryable)
    if isinstance(error, TheirStatusError):
        return errors.APIStatusError(
            error.message,
            status_code=error.status_code,
            request_id=error.request_id,
            body=error.body,
            retryable=error.retryable,
        )
    if isinstance(error, TheirConnectionError):
        return errors.APIConnectionError(error.message, retryable=error.retryable)
    return errors.APIError(error.message, body=error.body, retryable=error.retryable)
