"""Gemini: the history as turns of user and model, and the body of a request.

Pure: no loop, no clock, no socket; the items are not changed. Bytes (of images and thought
signatures) stay bytes here and become base64 in the body. Function responses are a separate turn, never
merged with the user's next message. Parts with signatures, and parts that are neither text nor call,
are sent back unchanged and in their place; see `rejoinder.providers.google.state`.

Requests are written in camel case. `to_chat_ctx` returns the same in snake case, as google-genai and
LiveKit Agents 1.2.17 do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, cast

from msgspec.structs import replace

from rejoinder._core.groups import logger, parse_arguments
from rejoinder._core.items import ChatItem, FunctionCall, FunctionCallOutput, ImageContent
from rejoinder._core.results import shown_in
from rejoinder.errors import ConfigurationError
from rejoinder.providers.asking.alternating import Block, BlockFormat, to_turns
from rejoinder.providers.asking.attachments import Attachment
from rejoinder.providers.asking.fields import tool_choice_name
from rejoinder.providers.google.options import Options
from rejoinder.providers.google.state import (
    PARTS,
    SIGNATURE,
    placed_parts,
    signature_bytes,
    sound_parts,
)

__all__ = ["GoogleFormatData", "attachment_part", "request_body", "to_chat_ctx", "to_contents"]

TOOL_NAME: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_.-]{0,63}")
"""The accepted names of functions."""


PICTURE_ALONE: Final = "a picture, which follows"
"""The text of a result that is only a picture, because the API requires a response beside it."""


@dataclass
class GoogleFormatData:
    """The data beside the turns."""

    system_messages: list[str]


def to_chat_ctx(
    items: Sequence[ChatItem],
    *,
    inject_dummy_user_message: bool = True,
    thought_signatures: Mapping[str, bytes] | None = None,
) -> tuple[list[dict[str, Any]], GoogleFormatData]:
    """`items` as turns of the Gemini API in snake case, and the system texts beside them.

    The first system message is sent beside the turns; later instructions keep their place, as user
    text in an ``<instructions>`` block.

    Args:
        items: a history; calls and outputs without their counterpart are omitted with a warning.
        inject_dummy_user_message: append the user text ``.`` if the last turn is not the user's or
            a tool's.
        thought_signatures: signatures by call id, for calls without their own.

    Raises:
        ValueError: an image cannot be read.
    """
    blocks = _BLOCKS
    if thought_signatures:
        blocks = replace(_BLOCKS, call=partial(_signed_call, thought_signatures))
    turns, data = to_contents(items, blocks, inject_dummy_user_message)
    for turn in turns:
        turn["parts"] = [_snake(part) for part in turn["parts"]]
    return turns, data


def to_contents(
    items: Sequence[ChatItem],
    blocks: BlockFormat | None = None,
    inject_dummy_user_message: bool = True,
) -> tuple[list[dict[str, Any]], GoogleFormatData]:
    """`items` as they are sent, in camel case.

    Raises:
        ValueError: an image cannot be read.
    """
    turns, system = to_turns(items, blocks or _BLOCKS)
    if inject_dummy_user_message and (not turns or turns[-1]["role"] == "model"):
        turns.append({"role": "user", "parts": [{"text": "."}]})
    return turns, GoogleFormatData(system_messages=system)


_SNAKE = {
    "codeExecutionResult": "code_execution_result",
    "executableCode": "executable_code",
    "fileData": "file_data",
    "fileUri": "file_uri",
    "functionCall": "function_call",
    "functionResponse": "function_response",
    "inlineData": "inline_data",
    "mimeType": "mime_type",
    "thoughtSignature": "thought_signature",
    "toolCall": "tool_call",
    "toolResponse": "tool_response",
}


def _snake(part: Mapping[str, Any]) -> dict[str, Any]:
    """A part with its members, and those of a blob, in snake case."""
    return {
        _SNAKE.get(name, name): {_SNAKE.get(key, key): entry for key, entry in value.items()}
        if name in ("inlineData", "fileData")
        else value
        for name, value in part.items()
    }


def _text(text: str) -> Block:
    return {"text": text}


def _call(call: FunctionCall) -> Block:
    named = {"id": call.call_id, "name": call.name, "args": parse_arguments(call)}
    return {"functionCall": named}


def _signed_call(signatures: Mapping[str, bytes], call: FunctionCall) -> Block:
    (part,) = _with_signature([_call(call)], signatures.get(call.call_id))
    return part


def _result(output: FunctionCallOutput) -> Block:
    text, pictures = shown_in(output)
    if pictures and not text:
        text = PICTURE_ALONE
    response: Block = {
        "id": output.call_id,
        "name": output.name,
        "response": {"error" if output.is_error else "output": text},
    }
    if pictures:
        response["parts"] = [_image(picture) for picture in pictures]
    return {"functionResponse": response}


def _image(content: ImageContent) -> Block:
    from rejoinder._core.images import serialize_image
    from rejoinder._core.pictures import type_of_address

    image = serialize_image(content)
    if image.external_url is not None:
        return {
            "fileData": {
                "fileUri": image.external_url,
                # The API demands a type, which the extension of a URL may show.
                "mimeType": image.mime_type or type_of_address(image.external_url) or "image/jpeg",
            }
        }
    return {"inlineData": {"data": image.data_bytes, "mimeType": image.mime_type}}


def _with_signature(parts: list[Block], signature: bytes | None) -> list[Block]:
    """Add the signature to the last part that is not an image."""
    if signature:
        for part in reversed(parts):
            if "text" in part or "functionCall" in part:
                part["thoughtSignature"] = signature
                break
    return parts


def _with_state(parts: list[Block], extra: dict[str, Any]) -> list[Block]:
    state: Any = extra.get("google")
    if not isinstance(state, dict):
        return parts
    held = cast("dict[str, Any]", state)
    signature = signature_bytes(held.get(SIGNATURE))
    if PARTS not in held:
        return _with_signature(parts, signature)
    if parts and "functionCall" in parts[-1]:
        parts = _with_signature(parts, signature)
    return placed_parts(parts, sound_parts(held[PARTS]), _text)


def _read(part: Block) -> Any:
    from rejoinder.providers.google.inverse import known_part

    return known_part(part)


def _with_output(result: Block, kept: list[Any]) -> Block:
    """A response with its other members and its parts."""
    further, *parts = kept
    response = {**further, **result["functionResponse"]}
    if parts:
        response["parts"] = parts
    return {"functionResponse": response}


_BLOCKS = BlockFormat(
    text=_text,
    image=_image,
    call=_call,
    result=_result,
    with_state=_with_state,
    assistant="model",
    content="parts",
    results_apart=True,
    unread="google",
    read=_read,
    with_output=_with_output,
)


def request_body(
    messages: Sequence[Mapping[str, Any]],
    data: GoogleFormatData,
    tools: Sequence[Mapping[str, Any]],
    tool_choice: str | Mapping[str, Any] | None,
    options: Options,
) -> dict[str, Any]:
    """The body of a request.

    Function tools and Google's own tools exclude each other on most models; there the function
    tools are sent, and a warning is logged.

    Args:
        messages: from `to_contents`; not changed.
        tools: function declarations in Gemini's form.
        tool_choice: ``"auto"``, ``"required"``, ``"none"``, one function by name, or ``None``.

    Raises:
        ConfigurationError: `tool_choice` has another value.
    """
    body: dict[str, Any] = dict(options.extra_config)
    body["contents"] = messages if options.call_ids else _without_call_ids(messages)
    if data.system_messages:
        body["systemInstruction"] = {
            "role": "user",
            "parts": [{"text": text} for text in data.system_messages],
        }
    specs: list[Mapping[str, Any]] = []
    config: dict[str, Any] = dict(body.get("toolConfig") or {})
    if tools:
        declarations: list[Mapping[str, Any]] = []
        for tool in tools:
            if "parameters_json_schema" in tool:
                tool = dict(tool)
                tool["parametersJsonSchema"] = tool.pop("parameters_json_schema")
            declarations.append(tool)
        specs.append({"functionDeclarations": declarations})
        if tool_choice is not None:
            config["functionCallingConfig"] = _calling_config(tool_choice, tools)
    if options.built_in:
        if not tools:
            specs.extend(options.built_in)
        elif options.combines_tools:
            specs.extend(options.built_in)
            config["includeServerSideToolInvocations"] = True
        else:
            logger.warning(
                "built-in tools are omitted: this model does not accept them together with functions",
                extra={"tools": [name for tool in options.built_in for name in tool]},
            )
    if specs:
        body["tools"] = specs
    if options.retrieval_config is not None:
        config["retrievalConfig"] = options.retrieval_config
    if config:
        body["toolConfig"] = config
    generation = dict(options.generation)
    if options.response_schema is not None or options.response_json_schema is not None:
        generation["responseMimeType"] = "application/json"
        if options.response_schema is not None:
            generation["responseSchema"] = options.response_schema
        else:
            generation["responseJsonSchema"] = options.response_json_schema
    body["generationConfig"] = generation
    return body


def _without_call_ids(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "role": message["role"],
            "parts": [
                {
                    name: {key: entry for key, entry in value.items() if key != "id"}
                    if name in ("functionCall", "functionResponse")
                    else value
                    for name, value in part.items()
                }
                for part in message["parts"]
            ],
        }
        for message in messages
    ]


def _calling_config(
    tool_choice: str | Mapping[str, Any], tools: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    if isinstance(tool_choice, Mapping):
        return {"mode": "ANY", "allowedFunctionNames": [tool_choice_name(tool_choice, TOOL_NAME)]}
    if tool_choice == "required":
        return {"mode": "ANY", "allowedFunctionNames": [tool["name"] for tool in tools]}
    if tool_choice in ("auto", "none"):
        return {"mode": tool_choice.upper()}
    raise ConfigurationError(
        "tool_choice: expected 'auto', 'required', 'none' or one function, got " + repr(tool_choice)
    )


def attachment_part(attachment: Attachment) -> dict[str, Any]:
    """Sound or a document as a part of a turn."""
    if attachment.url:
        return {"fileData": {"fileUri": attachment.url, "mimeType": attachment.mime_type}}
    return {"inlineData": {"data": attachment.data, "mimeType": attachment.mime_type}}
