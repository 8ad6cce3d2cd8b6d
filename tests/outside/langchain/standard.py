"""LangChain's own standard tests for chat models.

Its integration tests ask a real model. Here a scripted one does what each of them asks for, so that
everything between LangChain and an `LLM` is real: messages, tools, structured output, streams, usage.
"""

from __future__ import annotations

import io
import json
import re
import wave
from typing import Any

import httpx
import pytest
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from rejoinder.llm.llm import CompletionUsage, FunctionToolCall
from rejoinder.llm.tool_context import ToolContext
from rejoinder.providers.langchain import ChatRejoinder
from rejoinder.testing.scripted import ScriptedCall, ScriptedLLM

USAGE = CompletionUsage(prompt_tokens=7, completion_tokens=5, total_tokens=12)


def answer(asked: ScriptedCall) -> list[Any]:
    """A call of a tool where there is one and none was called yet; otherwise words."""
    items = asked.chat_ctx.items
    last = items[-1]
    if last.type == "function_call_output":
        return [f"The tool says {last.output}.", USAGE]
    if not asked.tools:
        return ["Hello, ", "what can I do for ", "you?", USAGE]
    tools = ToolContext(asked.tools).parse_function_tools("openai", strict=False)
    tool = tools[0]["function"]
    if isinstance(asked.tool_choice, dict):
        name = asked.tool_choice["function"]["name"]
        (tool,) = [one["function"] for one in tools if one["function"]["name"] == name]
    words = str(last.text_content) if last.type == "message" else ""
    arguments = filled(tool["parameters"], words)
    call = FunctionToolCall(
        name=tool["name"], arguments=json.dumps(arguments), call_id=f"call_{len(items)}"
    )
    return [call, USAGE]


def filled(schema: dict[str, Any], words: str) -> Any:
    """A value for `schema`; numbers and quoted texts are those of the question."""
    kind = schema.get("type")
    if "enum" in schema:
        return schema["enum"][0]
    if kind == "object" or "properties" in schema:
        wanted = schema.get("required", ())
        return {name: filled(schema["properties"][name], words) for name in wanted}
    if kind in ("integer", "number"):
        found = re.findall(r"\d+", words)
        return int(found[0]) if found else 1
    if kind == "array":
        return [filled(schema.get("items", {}), words)]
    quoted = re.findall(r"'([^']+)'", words)
    return quoted[0] if quoted else "a joke"


class _Ours:
    @property
    def chat_model_class(self) -> Any:
        return ChatRejoinder

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"llm": ScriptedLLM(*[answer] * 50)}

    @property
    def supports_image_inputs(self) -> bool:
        return True

    @property
    def supports_image_urls(self) -> bool:
        return True

    @property
    def supports_pdf_inputs(self) -> bool:
        return True

    @property
    def supports_audio_inputs(self) -> bool:
        return True

    @property
    def supports_image_tool_message(self) -> bool:
        return True

    @property
    def supports_pdf_tool_message(self) -> bool:
        return True

    @property
    def supports_anthropic_inputs(self) -> bool:
        return True


class TestStandard(_Ours, ChatModelUnitTests):
    pass


class TestIntegration(_Ours, ChatModelIntegrationTests):
    @pytest.fixture(autouse=True)
    def _without_a_network(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The tests download their pictures, documents and sounds."""

        def get(url: str, **options: Any) -> httpx.Response:
            content = PICTURE if url.endswith((".jpg", ".png")) else PDF
            return httpx.Response(200, content=SOUND if url.endswith(".wav") else content)

        monkeypatch.setattr(httpx, "get", get)


PICTURE = b"\x89PNG\r\n\x1a\n"
PDF = b"%PDF-1.7\n"
_SOUND = io.BytesIO()
with wave.open(_SOUND, "wb") as _file:
    _file.setparams((1, 2, 8000, 0, "NONE", ""))
    _file.writeframes(b"\x01\x00" * 80)
SOUND = _SOUND.getvalue()
