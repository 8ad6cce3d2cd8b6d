"""Every name that spans and metrics use. Data only.

``gen_ai.*``, ``mcp.*``, ``server.*`` and ``error.type`` are those of OpenTelemetry's conventions for
generative AI, as their own repository (open-telemetry/semantic-conventions-genai) had them in
November 2026, schema 1.44. ``lk.*``, ``langfuse.*`` and the names of spans are those of LiveKit
Agents 1.2.17, so that dashboards made for it keep working. All other names begin with ``rejoinder.``.
"""

from __future__ import annotations

from typing import Final

# -- spans -----------------------------------------------------------------------------------

SPAN_TURN: Final = "agent_turn"
SPAN_REQUEST: Final = "llm_request"
SPAN_FALLBACK: Final = "llm_fallback_adapter"
SPAN_ATTEMPT: Final = "llm_request_run"
SPAN_TOOL: Final = "function_tool"
SPAN_REALTIME_REPLY: Final = "realtime_reply"
# A call of an MCP server is named by the conventions: ``tools/call NAME``.

# -- the conventions' attributes ---------------------------------------------------------------

ATTR_ERROR_TYPE: Final = "error.type"
ATTR_EXCEPTION_MESSAGE: Final = "exception.message"
ATTR_EXCEPTION_STACKTRACE: Final = "exception.stacktrace"
ATTR_EXCEPTION_TYPE: Final = "exception.type"
ATTR_HTTP_STATUS: Final = "http.response.status_code"
ATTR_MCP_METHOD_NAME: Final = "mcp.method.name"
ATTR_SERVER_ADDRESS: Final = "server.address"
ATTR_SERVER_PORT: Final = "server.port"

ATTR_GEN_AI_OPERATION_NAME: Final = "gen_ai.operation.name"
ATTR_GEN_AI_PROVIDER_NAME: Final = "gen_ai.provider.name"
ATTR_GEN_AI_INPUT_MESSAGES: Final = "gen_ai.input.messages"
ATTR_GEN_AI_OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
ATTR_GEN_AI_REQUEST_CHOICE_COUNT: Final = "gen_ai.request.choice.count"
ATTR_GEN_AI_REQUEST_FREQUENCY_PENALTY: Final = "gen_ai.request.frequency_penalty"
ATTR_GEN_AI_REQUEST_MAX_TOKENS: Final = "gen_ai.request.max_tokens"
ATTR_GEN_AI_REQUEST_MODEL: Final = "gen_ai.request.model"
ATTR_GEN_AI_REQUEST_PRESENCE_PENALTY: Final = "gen_ai.request.presence_penalty"
ATTR_GEN_AI_REQUEST_REASONING_LEVEL: Final = "gen_ai.request.reasoning.level"
ATTR_GEN_AI_REQUEST_SEED: Final = "gen_ai.request.seed"
ATTR_GEN_AI_REQUEST_STOP_SEQUENCES: Final = "gen_ai.request.stop_sequences"
ATTR_GEN_AI_REQUEST_STREAM: Final = "gen_ai.request.stream"
ATTR_GEN_AI_REQUEST_TEMPERATURE: Final = "gen_ai.request.temperature"
ATTR_GEN_AI_REQUEST_TOP_K: Final = "gen_ai.request.top_k"
ATTR_GEN_AI_REQUEST_TOP_P: Final = "gen_ai.request.top_p"
ATTR_GEN_AI_RESPONSE_FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
ATTR_GEN_AI_RESPONSE_ID: Final = "gen_ai.response.id"
ATTR_GEN_AI_RESPONSE_MODEL: Final = "gen_ai.response.model"
ATTR_GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
ATTR_GEN_AI_TOKEN_TYPE: Final = "gen_ai.token.type"  # noqa: S105  the name of an attribute
ATTR_GEN_AI_TOOL_CALL_ARGUMENTS: Final = "gen_ai.tool.call.arguments"
ATTR_GEN_AI_TOOL_CALL_ID: Final = "gen_ai.tool.call.id"
ATTR_GEN_AI_TOOL_CALL_RESULT: Final = "gen_ai.tool.call.result"
ATTR_GEN_AI_TOOL_NAME: Final = "gen_ai.tool.name"
ATTR_GEN_AI_TOOL_TYPE: Final = "gen_ai.tool.type"
ATTR_GEN_AI_USAGE_INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
ATTR_GEN_AI_USAGE_OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
ATTR_GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
ATTR_GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS: Final = "gen_ai.usage.cache_write.input_tokens"
ATTR_GEN_AI_USAGE_CACHE_CREATION_INPUT_TOKENS: Final = "gen_ai.usage.cache_creation.input_tokens"
"""The older name of the attribute above, which most tools read."""
ATTR_GEN_AI_USAGE_REASONING_OUTPUT_TOKENS: Final = "gen_ai.usage.reasoning.output_tokens"
ATTR_GEN_AI_USAGE_AUDIO_INPUT_TOKENS: Final = "gen_ai.usage.audio.input_tokens"
ATTR_GEN_AI_USAGE_AUDIO_OUTPUT_TOKENS: Final = "gen_ai.usage.audio.output_tokens"
ATTR_GEN_AI_USAGE_TEXT_INPUT_TOKENS: Final = "gen_ai.usage.text.input_tokens"
ATTR_GEN_AI_USAGE_TEXT_OUTPUT_TOKENS: Final = "gen_ai.usage.text.output_tokens"

CHAT: Final = "chat"
EXECUTE_TOOL: Final = "execute_tool"
INVOKE_AGENT: Final = "invoke_agent"
INVOKE_WORKFLOW: Final = "invoke_workflow"
REALTIME_INFERENCE: Final = "realtime_inference"
"""Values of `ATTR_GEN_AI_OPERATION_NAME`."""

# -- those of LiveKit Agents 1.2.17 --------------------------------------------------------------

ATTR_FUNCTION_TOOL_ARGS: Final = "lk.function_tool.arguments"
ATTR_FUNCTION_TOOL_IS_ERROR: Final = "lk.function_tool.is_error"
ATTR_FUNCTION_TOOL_NAME: Final = "lk.function_tool.name"
ATTR_FUNCTION_TOOL_OUTPUT: Final = "lk.function_tool.output"
ATTR_LANGFUSE_COMPLETION_START_TIME: Final = "langfuse.observation.completion_start_time"
ATTR_LLM_METRICS: Final = "lk.llm_metrics"
ATTR_PROVIDER_REQUEST_IDS: Final = "lk.provider_request_ids"
ATTR_RETRY_COUNT: Final = "lk.retry_count"
EVENT_GEN_AI_SYSTEM_MESSAGE: Final = "gen_ai.system.message"
EVENT_GEN_AI_USER_MESSAGE: Final = "gen_ai.user.message"
EVENT_GEN_AI_ASSISTANT_MESSAGE: Final = "gen_ai.assistant.message"
EVENT_GEN_AI_TOOL_MESSAGE: Final = "gen_ai.tool.message"
EVENT_GEN_AI_CHOICE: Final = "gen_ai.choice"

# -- our own ---------------------------------------------------------------------------------

ATTR_CANCELLED: Final = "rejoinder.cancelled"
"""The reply or the turn was cut before its end."""
ATTR_CANDIDATE: Final = "rejoinder.fallback.candidate"
"""Place of the model in the list of a `FallbackAdapter`, from 0."""
ATTR_COST: Final = "rejoinder.cost"
"""US dollars."""
ATTR_ESTIMATED: Final = "rejoinder.usage.estimated"
"""The tokens are estimated, because the reply was cut before its usage arrived."""
ATTR_PURPOSE: Final = "rejoinder.purpose"
"""See `rejoinder.metrics.LLMMetrics.purpose`."""
ATTR_REALTIME_ASKED: Final = "rejoinder.realtime.asked_for"
"""Whether the application asked for the reply."""
ATTR_REALTIME_OUTCOME: Final = "rejoinder.realtime.outcome"
"""How the reply ended; see `rejoinder.llm.realtime.ReplyStatus`."""
ATTR_TURN_REASON: Final = "rejoinder.turn.reason"
"""See `rejoinder.turn.Done.reason`."""
ATTR_TURN_STEPS: Final = "rejoinder.turn.steps"
"""How many requests the turn made."""
EVENT_FALLBACK: Final = {
    "restart": "rejoinder.fallback.restart",
    "cut_after_tool_call": "rejoinder.fallback.cut_after_tool_call",
    "nothing_to_add": "rejoinder.fallback.nothing_to_add",
}
"""The events with which a `FallbackAdapter` informs its consumer of a model that failed in mid-reply; see its `on_cut`."""

# -- metrics: name, unit, what it measures, bounds of the buckets --------------------------------

SECONDS: Final = (
    *(0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64),
    *(1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92),
)
TOKENS: Final = tuple(4**n for n in range(14))
DOLLARS: Final = tuple(k * 10.0**n for n in range(-6, 2) for k in (1, 2, 5))

DURATION: Final = (
    *("gen_ai.client.operation.duration", "s"),
    *("The time a request took, with its retries.", SECONDS),
)
FIRST_CHUNK: Final = (
    *("gen_ai.client.operation.time_to_first_chunk", "s"),
    *("From the request to the first chunk of any kind.", SECONDS),
)
FIRST_TOKEN: Final = (
    *("rejoinder.client.operation.time_to_first_token", "s"),
    *("From the request to the first text or tool call: the silence that a user notices.", SECONDS),
)
BETWEEN_CHUNKS: Final = (
    *("gen_ai.client.operation.time_per_output_chunk", "s"),
    *("From one chunk to the next.", SECONDS),
)
TOKEN_USAGE: Final = (
    *("gen_ai.client.token.usage", "{token}"),
    *("Tokens of a request, by `gen_ai.token.type`.", TOKENS),
)
COST: Final = (
    *("rejoinder.client.operation.cost", "{USD}"),
    *("US dollars of a request, if the price of its model is known.", DOLLARS),
)
TOOL_DURATION: Final = (
    *("gen_ai.execute_tool.duration", "s"),
    *("The time a tool took.", SECONDS),
)
TURN_DURATION: Final = (
    *("gen_ai.invoke_agent.duration", "s"),
    *("The time a turn took: all of its requests and tools.", SECONDS),
)
MCP_DURATION: Final = (
    *("mcp.client.operation.duration", "s"),
    *("The time an MCP server took to answer.", SECONDS),
)
