"""The vendors' own published types, as judges of what the formats make.

Only the shape of a request is theirs to judge; `rejoinder.testing.history` knows the rules between
its parts.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pydantic


@cache
def judge(provider: str) -> Callable[[Any, list[str]], None]:
    """A function of the messages and the system texts that raises when the types do not fit."""
    return _JUDGES[provider]()


def _typed(annotation: Any) -> Callable[[Any, list[str]], None]:
    adapter = pydantic.TypeAdapter[Any](annotation)

    def check(messages: Any, system: list[str]) -> None:
        _exhaust(adapter.validate_python(messages))

    return check


def _exhaust(value: Any) -> None:
    """What is typed as an iterable is only validated when somebody reads it."""
    if isinstance(value, dict):
        for held in value.values():
            _exhaust(held)
    elif hasattr(value, "__iter__") and not isinstance(value, (str, bytes, pydantic.BaseModel)):
        for held in value:
            _exhaust(held)


def _openai() -> Callable[[Any, list[str]], None]:
    from openai.types.chat import ChatCompletionMessageParam

    return _typed(list[ChatCompletionMessageParam])


def _responses() -> Callable[[Any, list[str]], None]:
    from openai.types.responses import ResponseInputParam

    check = _typed(ResponseInputParam)

    def check_with_ids(messages: Any, system: list[str]) -> None:
        # The type demands an id, which the API does not where the reasoning itself is sent.
        check(
            [
                {"id": "rs"} | entry if entry.get("type") == "reasoning" else entry
                for entry in messages
            ],
            system,
        )

    return check_with_ids


def _anthropic() -> Callable[[Any, list[str]], None]:
    from anthropic.types import MessageParam

    return _typed(list[MessageParam])


def _google() -> Callable[[Any, list[str]], None]:
    from google.genai.types import Content

    return _typed(list[Content])


def _mistral() -> Callable[[Any, list[str]], None]:
    from mistralai.client.models.chatcompletionrequest import ChatCompletionRequestMessage

    return _typed(list[ChatCompletionRequestMessage])


def _conversations() -> Callable[[Any, list[str]], None]:
    from mistralai.client.models.conversationinputs import ConversationInputs

    return _typed(ConversationInputs)


def _bedrock() -> Callable[[Any, list[str]], None]:
    import botocore.session
    from botocore.validate import ParamValidator

    service = botocore.session.get_session().get_service_model("bedrock-runtime")
    shape = service.operation_model("ConverseStream").input_shape

    def check(messages: Any, system: list[str]) -> None:
        parameters = {
            "modelId": "a-model",
            "messages": messages,
            "system": [{"text": text} for text in system],
        }
        report = ParamValidator().validate(parameters, shape)
        assert not report.has_errors(), report.generate_report()

    return check


_JUDGES = {
    "anthropic": _anthropic,
    "aws": _bedrock,
    "google": _google,
    "mistralai": _mistral,
    "mistralai.conversations": _conversations,
    "openai": _openai,
    "openai.responses": _responses,
}
