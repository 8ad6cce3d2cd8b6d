"""The public API: the names of ``livekit.agents.llm``, in the same place.

Names that every conversation needs are imported at once; those for speech-to-speech, fallback and
helpers on first access.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rejoinder._late import late_names
from rejoinder.llm.chat_context import (
    AgentConfigUpdate,
    AgentHandoff,
    AudioContent,
    ChatContent,
    ChatContext,
    ChatItem,
    ChatMessage,
    ChatRole,
    FunctionCall,
    FunctionCallOutput,
    ImageContent,
)
from rejoinder.llm.llm import (
    LLM,
    ChatChunk,
    ChoiceDelta,
    CollectedResponse,
    CompletionUsage,
    FunctionToolCall,
    LLMError,
    LLMStream,
)
from rejoinder.llm.tool_context import (
    FunctionTool,
    ProviderTool,
    RawFunctionTool,
    RunContext,
    StopResponse,
    Tool,
    ToolChoice,
    ToolContext,
    ToolError,
    ToolFlag,
    Toolset,
    find_function_tools,
    function_tool,
    is_function_tool,
    is_raw_function_tool,
)

if TYPE_CHECKING:
    from rejoinder.llm import (
        fallback_adapter,
        realtime,
        realtime_fallback_adapter,
        remote_chat_context,
        utils,
    )
    from rejoinder.llm.duplex import (
        DuplexAudioFrame,
        DuplexCapabilities,
        DuplexModel,
        DuplexOutputTranscriptDelta,
        DuplexSession,
    )
    from rejoinder.llm.fallback_adapter import (
        AvailabilityChangedEvent,
        FallbackAdapter,
        Hedge,
        TurnBudget,
    )
    from rejoinder.llm.realtime import (
        GenerationCreatedEvent,
        InputSpeechStartedEvent,
        InputSpeechStoppedEvent,
        InputTranscriptionCompleted,
        MessageGeneration,
        RealtimeCapabilities,
        RealtimeError,
        RealtimeModel,
        RealtimeModelError,
        RealtimeSession,
        RealtimeSessionReconnectedEvent,
        RemoteItemAddedEvent,
    )
    from rejoinder.llm.realtime_fallback_adapter import (
        RealtimeAvailabilityChangedEvent,
        RealtimeModelFallbackAdapter,
    )
    from rejoinder.llm.utils import FunctionCallResult, execute_function_call

__all__ = [
    "LLM",
    "AgentConfigUpdate",
    "AgentHandoff",
    "AudioContent",
    "AvailabilityChangedEvent",
    "ChatChunk",
    "ChatContent",
    "ChatContext",
    "ChatItem",
    "ChatMessage",
    "ChatRole",
    "ChoiceDelta",
    "CollectedResponse",
    "CompletionUsage",
    "DuplexAudioFrame",
    "DuplexCapabilities",
    "DuplexModel",
    "DuplexOutputTranscriptDelta",
    "DuplexSession",
    "FallbackAdapter",
    "FunctionCall",
    "FunctionCallOutput",
    "FunctionCallResult",
    "FunctionTool",
    "FunctionToolCall",
    "GenerationCreatedEvent",
    "Hedge",
    "ImageContent",
    "InputSpeechStartedEvent",
    "InputSpeechStoppedEvent",
    "InputTranscriptionCompleted",
    "LLMError",
    "LLMStream",
    "MessageGeneration",
    "ProviderTool",
    "RawFunctionTool",
    "RealtimeAvailabilityChangedEvent",
    "RealtimeCapabilities",
    "RealtimeError",
    "RealtimeModel",
    "RealtimeModelError",
    "RealtimeModelFallbackAdapter",
    "RealtimeSession",
    "RealtimeSessionReconnectedEvent",
    "RemoteItemAddedEvent",
    "RunContext",
    "StopResponse",
    "Tool",
    "ToolChoice",
    "ToolContext",
    "ToolError",
    "ToolFlag",
    "Toolset",
    "TurnBudget",
    "execute_function_call",
    "fallback_adapter",
    "find_function_tools",
    "function_tool",
    "is_function_tool",
    "is_raw_function_tool",
    "realtime",
    "realtime_fallback_adapter",
    "remote_chat_context",
    "utils",
]

_SUBMODULES = frozenset(
    {
        "fallback_adapter",
        "formats",
        "mcp",
        "realtime",
        "realtime_fallback_adapter",
        "remote_chat_context",
        "utils",
    }
)
_LATER = {
    "AvailabilityChangedEvent": "fallback_adapter",
    "FallbackAdapter": "fallback_adapter",
    "FunctionCallResult": "utils",
    "DuplexAudioFrame": "duplex",
    "DuplexCapabilities": "duplex",
    "DuplexModel": "duplex",
    "DuplexOutputTranscriptDelta": "duplex",
    "DuplexSession": "duplex",
    "GenerationCreatedEvent": "realtime",
    "Hedge": "fallback_adapter",
    "InputSpeechStartedEvent": "realtime",
    "InputSpeechStoppedEvent": "realtime",
    "InputTranscriptionCompleted": "realtime",
    "MessageGeneration": "realtime",
    "RealtimeAvailabilityChangedEvent": "realtime_fallback_adapter",
    "RealtimeCapabilities": "realtime",
    "RealtimeError": "realtime",
    "RealtimeModel": "realtime",
    "RealtimeModelError": "realtime",
    "RealtimeModelFallbackAdapter": "realtime_fallback_adapter",
    "RealtimeSession": "realtime",
    "RealtimeSessionReconnectedEvent": "realtime",
    "RemoteItemAddedEvent": "realtime",
    "TurnBudget": "fallback_adapter",
    "execute_function_call": "utils",
}


__getattr__, __dir__ = late_names(__name__, _LATER, modules=_SUBMODULES)
