"""`rejoinder` inside other frameworks: one module per framework, the only one that imports it.

==============================  =====================================================
`rejoinder.integrations.livekit`        a model for LiveKit's ``AgentSession``, and the other way round
`rejoinder.integrations.pipecat`        an LLM service for Pipecat pipelines
`rejoinder.integrations.pydantic_ai`    a model for Pydantic AI agents
`rejoinder.integrations.openai_agents`  a model and a model provider for the OpenAI Agents SDK
==============================  =====================================================

No adapter knows a provider: each takes any `rejoinder.llm.LLM`, including a `FallbackAdapter`.
"""
