"""Gemini: the history as turns of user and model, and the body of a request.

Law: pure; no loop, no clock, no socket. What goes in is not changed. Bytes (of images, of thought
signatures) stay bytes here and become base64 text in the body. Function responses are a turn of
their own, never merged with what the user says next. Signatures that a call or a message carries
in ``extra["google"]["thought_signature"]`` go back on the part they came with.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

from rejoinder._core.groups import logger, parse_arguments
from rejoinder._core.items import ChatItem, FunctionCall, FunctionCallOutput, ImageContent
from rejoinder.errors import ConfigurationError
from rejoinder.providers.asking.alternating import Block, BlockFormat, to_turns
from rejoinder.providers.asking.attachments import Attachment
from rejoinder.providers.asking.fields import tool_choice_name
from rejoinder.providers.google.options import Options, camel

__all__ = ["GoogleFormatData", "attachment_part", "request_body", "to_chat_ctx"]


@dataclass
class GoogleFormatData:
    """What goes beside the turns."""

    system_messages: list[str]


def to_chat_ctx(
    items: Sequence[ChatItem],
    *,
    inject_dummy_user_message: bool = True,
    thought_signatures: Mapping[str, bytes] | None = None,
) -> tuple[list[dict[str, Any]], GoogleFormatData]:
    """`items` as turns of the Gemini API, and the system texts beside them.

    The first system message goes beside the turns; later instructions stay where they are, as
    user text in an ``<instructions>`` block.

    Args:
        items: a history; what cannot be paired is left out with a warning.
        inject_dummy_user_message: end with the user text ``.`` where the last turn is not the
            user's or a tool's.
        thought_signatures: signatures by call id, for calls that carry none themselves.

    Raises:
        ValueError: an image cannot be read.
    """
    dialect = _DIALECT
    if thought_signatures:
        dialect = replace(_DIALECT, call=partial(_signed_call, thought_signatures))
    turns, system = to_turns(items, dialect)
    if inject_dummy_user_message and (not turns or turns[-1]["role"] == "model"):
        turns.append({"role": "user", "parts": [{"text": "."}]})
    return turns, GoogleFormatData(system_messages=system)


def _text(text: str) -> Block:
    return {"text": text}


def _call(call: FunctionCall) -> Block:
    named = {"id": call.call_id, "name": call.name, "args": parse_arguments(call)}
    return {"function_call": named}


def _signed_call(signatures: Mapping[str, bytes], call: FunctionCall) -> Block:
    (part,) = _with_signature([_call(call)], signatures.get(call.call_id))
    return part


def _result(output: FunctionCallOutput) -> Block:
    response = {
        "id": output.call_id,
        "name": output.name,
        "response": {"error" if output.is_error else "output": output.output},
    }
    return {"function_response": response}


def _image(content: ImageContent) -> Block:
    from rejoinder._core.images import serialize_image

    image = serialize_image(content)
    if image.external_url is not None:
        return {
            "file_data": {
                "file_uri": image.external_url,
                # The API demands a type, and an address does not tell it.
                "mime_type": image.mime_type or "image/jpeg",
            }
        }
    return {"inline_data": {"data": image.data_bytes, "mime_type": image.mime_type}}


def _signature(extra: dict[str, Any]) -> bytes | None:
    state = extra.get("google")
    if not isinstance(state, dict):
        return None
    signature = cast("dict[str, Any]", state).get("thought_signature")
    if isinstance(signature, bytes):
        return signature
    if isinstance(signature, str):
        try:
            return b64decode(signature.replace("-", "+").replace("_", "/"), validate=True)
        except (binascii.Error, ValueError):
            return None
    return None


def _with_signature(parts: list[Block], signature: bytes | None) -> list[Block]:
    """The signature belongs to the last part that is no image."""
    if signature:
        for part in reversed(parts):
            if "text" in part or "function_call" in part:
                part["thought_signature"] = signature
                break
    return parts


def _with_state(parts: list[Block], extra: dict[str, Any]) -> list[Block]:
    return _with_signature(parts, _signature(extra))


_DIALECT = BlockFormat(
    text=_text,
    image=_image,
    call=_call,
    result=_result,
    with_state=_with_state,
    assistant="model",
    content="parts",
    results_apart=True,
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
        messages: from `to_chat_ctx`; not changed.
        tools: function declarations in Gemini's form.
        tool_choice: ``"auto"``, ``"required"``, ``"none"``, one function by name, or ``None``.

    Raises:
        ConfigurationError: the choice is none of these.
    """
    body: dict[str, Any] = dict(options.extra_config)
    body["contents"] = [
        {
            "role": message["role"],
            "parts": [_wire_part(part, options.call_ids) for part in message["parts"]],
        }
        for message in messages
    ]
    if data.system_messages:
        body["systemInstruction"] = {
            "role": "user",
            "parts": [{"text": text} for text in data.system_messages],
        }
    specs: list[Mapping[str, Any]] = []
    config: dict[str, Any] = dict(body.get("toolConfig") or {})
    if tools:
        specs.append({"functionDeclarations": [_wire_tool(tool) for tool in tools]})
        choice = _calling_config(tool_choice, tools)
        if choice is not None:
            config["functionCallingConfig"] = choice
    if options.built_in:
        if not tools:
            specs.extend(options.built_in)
        elif options.combines_tools:
            specs.extend(options.built_in)
            config["includeServerSideToolInvocations"] = True
        else:
            logger.warning(
                "built-in tools are not sent: this model does not take them together with functions",
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


def _wire_tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    return {camel(name): value for name, value in tool.items()}


_PART_NAMES = {
    "function_call": "functionCall",
    "function_response": "functionResponse",
    "thought_signature": "thoughtSignature",
}
_CALL_NAMES = {"function_call": "functionCall", "function_response": "functionResponse"}
_BLOB_NAMES = {"inline_data": "inlineData", "file_data": "fileData"}


def _wire_part(part: Mapping[str, Any], call_ids: bool) -> Mapping[str, Any]:
    if len(part) == 1 and "text" in part:
        return part  # as most are
    wire: dict[str, Any] = {}
    for name, value in part.items():
        if name in _BLOB_NAMES:
            wire[_BLOB_NAMES[name]] = {camel(key): entry for key, entry in value.items()}
        elif name in _CALL_NAMES and not call_ids:
            wire[_CALL_NAMES[name]] = {key: entry for key, entry in value.items() if key != "id"}
        else:
            wire[_PART_NAMES.get(name, name)] = value
    return wire


def _calling_config(
    tool_choice: str | Mapping[str, Any] | None, tools: Sequence[Mapping[str, Any]]
) -> dict[str, Any] | None:
    if tool_choice is None:
        return None
    if isinstance(tool_choice, Mapping):
        return {"mode": "ANY", "allowedFunctionNames": [tool_choice_name(tool_choice)]}
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
        return {"file_data": {"file_uri": attachment.url, "mime_type": attachment.mime_type}}
    return {"inline_data": {"data": attachment.data, "mime_type": attachment.mime_type}}
