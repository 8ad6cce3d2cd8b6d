"""The names of `livekit.agents.llm.utils`, re-exported from the modules that define them."""

from __future__ import annotations

from rejoinder._core import diff, images
from rejoinder._core.diff import DiffOps
from rejoinder._core.diff import _compute_lcs as _compute_lcs  # reachable here in the reference
from rejoinder._core.images import SerializedImage
from rejoinder._foreign import has, read
from rejoinder._options import Rule, checked
from rejoinder.llm._execution import (
    FunctionCallResult,
    execute_function_call,
    make_function_call_output,
)
from rejoinder.llm._signatures import (
    ResponseFormatT,
    build_legacy_openai_schema,
    build_strict_openai_schema,
    function_arguments_to_pydantic_model,
    is_context_type,
    is_typed_dict,
    parse_function_arguments,
    prepare_function_arguments,
    to_openai_response_format,
    to_response_format_param,
    validated_arguments,
)
from rejoinder.wire import tags
from rejoinder.wire.tags import (
    THINK_TAG_END,
    THINK_TAG_START,
    ThinkingTokenFilter,
)

__all__ = [
    "THINK_TAG_END",
    "THINK_TAG_START",
    "DiffOps",
    "FunctionCallResult",
    "ResponseFormatT",
    "SerializedImage",
    "ThinkingTokenFilter",
    "build_legacy_openai_schema",
    "build_strict_openai_schema",
    "compute_chat_ctx_diff",
    "execute_function_call",
    "function_arguments_to_pydantic_model",
    "is_context_type",
    "is_typed_dict",
    "make_function_call_output",
    "parse_function_arguments",
    "prepare_function_arguments",
    "serialize_image",
    "strip_thinking_tokens",
    "to_openai_response_format",
    "to_response_format_param",
    "validated_arguments",
]

_HAS_ITEMS = Rule("a ChatContext", lambda value: read(value, "items", list) is not None)
_TEXTS = Rule(
    "a string or a list of parts",
    lambda value: isinstance(value, str | list | tuple),
).optional
_THINKING = Rule(
    "a ThinkingTokenFilter or an asyncio.Event",
    lambda value: isinstance(value, ThinkingTokenFilter) or has(value, "is_set"),
)

compute_chat_ctx_diff = checked(old_ctx=_HAS_ITEMS, new_ctx=_HAS_ITEMS)(diff.compute_chat_ctx_diff)
serialize_image = checked()(images.serialize_image)
strip_thinking_tokens = checked(content=_TEXTS, thinking=_THINKING)(tags.strip_thinking_tokens)

for _public in (
    DiffOps,
    FunctionCallResult,
    SerializedImage,
    ThinkingTokenFilter,
    compute_chat_ctx_diff,
    execute_function_call,
    make_function_call_output,
    prepare_function_arguments,
    serialize_image,
    strip_thinking_tokens,
):
    _public.__module__ = __name__
