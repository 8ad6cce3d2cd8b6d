"""What `livekit.agents.llm.utils` offers, gathered from the rooms where it is made."""

from __future__ import annotations

from rejoinder._core.diff import DiffOps, compute_chat_ctx_diff
from rejoinder._core.diff import _compute_lcs as _compute_lcs  # reachable here in the reference
from rejoinder._core.images import SerializedImage, serialize_image
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
from rejoinder.wire.tags import (
    THINK_TAG_END,
    THINK_TAG_START,
    ThinkingTokenFilter,
    strip_thinking_tokens,
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
