"""LangChain's own standard tests for chat models."""

from __future__ import annotations

from typing import Any

from langchain_tests.unit_tests import ChatModelUnitTests

from rejoinder.providers.langchain import ChatRejoinder
from rejoinder.testing.scripted import ScriptedLLM


class TestStandard(ChatModelUnitTests):
    @property
    def chat_model_class(self) -> Any:
        return ChatRejoinder

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"llm": ScriptedLLM()}

    @property
    def supports_image_inputs(self) -> bool:
        return True

    @property
    def supports_image_urls(self) -> bool:
        return True
