"""`rejoinder` models in LiveKit Agents, 1.2.17 or newer, and LiveKit's models in `rejoinder`.

    from rejoinder.integrations.livekit import LLM, RealtimeModel

    session = AgentSession(llm=LLM(any_rejoinder_llm))
    session = AgentSession(llm=RealtimeModel(any_rejoinder_realtime_model))

Version 1.2.17 imports only beside ``openai<2``.

Raises:
    ImportError: ``livekit-agents`` is missing or too old.
"""

from rejoinder.integrations._replies import framework_version

framework_version("livekit-agents", at_least=(1, 2, 17), extra="livekit")

from rejoinder.integrations.livekit._context import (  # noqa: E402
    context_from_livekit,
    context_to_livekit,
)
from rejoinder.integrations.livekit._llm import LLM, LLMStream, from_livekit  # noqa: E402
from rejoinder.integrations.livekit._realtime import RealtimeModel, RealtimeSession  # noqa: E402

__all__ = [
    "LLM",
    "LLMStream",
    "RealtimeModel",
    "RealtimeSession",
    "context_from_livekit",
    "context_to_livekit",
    "from_livekit",
]
