"""Bedrock Converse: the history as alternating turns, and the body of a request.

Pure: no loop, no clock, no socket; the items are not changed. Bytes (of images and redacted reasoning)
stay bytes here and become base64 in the body. Reasoning in ``extra["aws"]["reasoning"]`` of a message or
call is sent back, with its signature, before the text or call that it produced. If it stood between
texts, the list also holds these texts.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from rejoinder._core import jsontext
from rejoinder._core.groups import logger, parse_arguments
from rejoinder._core.items import ChatItem, FunctionCall, FunctionCallOutput, ImageContent
from rejoinder._core.results import shown_in
from rejoinder._secrets import redacted_url
from rejoinder.errors import ConfigurationError
from rejoinder.providers.asking.alternating import Block, BlockFormat, to_turns
from rejoinder.providers.asking.attachments import Attachment
from rejoinder.providers.asking.fields import tool_choice_name
from rejoinder.providers.asking.in_order import in_order, is_text_entry
from rejoinder.providers.aws.options import Options

__all__ = ["DOCUMENTS", "BedrockFormatData", "attachment_block", "request_body", "to_chat_ctx"]

_IMAGE_FORMATS = {
    None: "jpeg",
    "image/gif": "gif",
    "image/jpeg": "jpeg",
    "image/png": "png",
    "image/webp": "webp",
}


@dataclass
class BedrockFormatData:
    """The data beside the messages."""

    system_messages: list[str]


def to_chat_ctx(
    items: Sequence[ChatItem], *, inject_dummy_user_message: bool = True
) -> tuple[list[dict[str, Any]], BedrockFormatData]:
    """`items` as messages of the Converse API, and the system texts beside them.

    The first system message is sent beside the messages; later instructions keep their place, as user
    text in an ``<instructions>`` block.

    Args:
        items: a history; calls and outputs without their counterpart are omitted with a warning.
        inject_dummy_user_message: begin with the user text ``(empty)`` if the history does not begin
            with the user.

    Raises:
        ValueError: an image cannot be read, is of a type that Bedrock does not accept, or is a
            URL: Bedrock accepts only inline images.
    """
    messages, system = to_turns(items, _DIALECT)
    if inject_dummy_user_message and (not messages or messages[0]["role"] != "user"):
        messages.insert(0, {"role": "user", "content": [{"text": "(empty)"}]})
    return messages, BedrockFormatData(system_messages=system)


def _text(text: str) -> Block:
    return {"text": text}


def _call(call: FunctionCall) -> Block:
    use = {"toolUseId": call.call_id, "name": call.name, "input": parse_arguments(call)}
    return {"toolUse": use}


def _result(output: FunctionCallOutput) -> Block:
    text, pictures = shown_in(output)
    parts: list[Block] = [{"text": text}] if text or not pictures else []
    result = {
        "toolUseId": output.call_id,
        "content": [*parts, *map(_image, pictures)],
        "status": "error" if output.is_error else "success",
    }
    return {"toolResult": result}


def _image(content: ImageContent) -> Block:
    from rejoinder._core.images import serialize_image

    image = serialize_image(content)
    if image.external_url is not None:
        raise ValueError(
            f"image {content.id!r}: Bedrock takes only inline images, got the URL "
            f"{redacted_url(image.external_url)[:200]!r}; pass a data: URL or a frame"
        )
    image_format = _IMAGE_FORMATS.get(image.mime_type)
    if image_format is None:
        raise ValueError(
            f"image {content.id!r}: Bedrock takes JPEG, PNG, GIF and WebP, got {image.mime_type}"
        )
    return {"image": {"format": image_format, "source": {"bytes": image.data_bytes}}}


def _with_reasoning(blocks: list[Block], extra: dict[str, Any]) -> list[Block]:
    state = extra.get("aws")
    reasoning = cast("dict[str, Any]", state).get("reasoning") if isinstance(state, dict) else None
    if not isinstance(reasoning, list):
        return blocks
    told: list[Block] = []
    for entry in cast("list[Any]", reasoning):
        if isinstance(entry, dict):
            block = cast("dict[str, Any]", entry)
            if is_text_entry(block):
                told.append(block)
                continue
            try:
                block = with_bytes(block)
            except binascii.Error:
                continue
            told.append({"reasoningContent": block} if block.keys() & _REASONING else block)
    ordered = in_order(blocks, told, _text)
    spoken = any("reasoningContent" not in block for block in ordered)
    while spoken and "reasoningContent" in ordered[-1]:
        ordered.pop()  # it produced nothing, and no turn may end with it
    return ordered


_REASONING = frozenset({"reasoningText", "redactedContent"})
_BYTES = frozenset({"bytes", "redactedContent"})


def with_bytes(value: Any) -> Any:
    """Convert the binary members of a block that was kept as JSON back to bytes.

    Raises:
        binascii.Error: a member is not base64.
    """
    if isinstance(value, dict):
        held = cast("dict[str, Any]", value)
        return {
            key: b64decode(entry, validate=True)
            if key in _BYTES and isinstance(entry, str)
            else with_bytes(entry)
            for key, entry in held.items()
        }
    if isinstance(value, list):
        return [with_bytes(entry) for entry in cast("list[Any]", value)]
    return value


def _read(block: Block) -> Any:
    from rejoinder.providers.aws.inverse import known_block

    return known_block(block)


def _with_output(result: Block, content: list[Any]) -> Block:
    return {"toolResult": {**result["toolResult"], "content": with_bytes(content)}}


_DIALECT = BlockFormat(
    text=_text,
    image=_image,
    call=_call,
    result=_result,
    with_state=_with_reasoning,
    unread="aws",
    read=_read,
    written=with_bytes,
    with_output=_with_output,
)

_NOTHING: Final = frozenset[str]()
_CACHE_POINT = {"cachePoint": {"type": "default"}}


def request_body(
    messages: Sequence[Mapping[str, Any]],
    data: BedrockFormatData,
    tools: Sequence[Mapping[str, Any]],
    tool_choice: str | Mapping[str, Any] | None,
    options: Options,
) -> dict[str, Any]:
    """The body of a request.

    The API has no tool choice ``none``, so the tools are omitted instead. It also refuses a history with
    calls in a request without tools, so the calls and their results are sent as text.

    Args:
        messages: from `to_chat_ctx`; not changed.
        tools: in Converse's form.
        tool_choice: ``"auto"``, ``"required"``, ``"none"``, one function by name, or ``None``.

    Raises:
        ConfigurationError: `tool_choice` has another value.
    """
    body: dict[str, Any] = dict(options.extra)
    choice = None if tool_choice is None else _choice(tool_choice)
    offered = [*tools] if choice != {} else []
    body["messages"] = _beside_documents(messages if offered else _without_calls(messages))
    if data.system_messages:
        system: list[Mapping[str, Any]] = [{"text": text} for text in data.system_messages]
        if options.cache_system:
            system.append(_CACHE_POINT)
        body["system"] = system
    given = body.get("inferenceConfig")
    inference: dict[str, Any] = dict(cast("dict[str, Any]", given)) if given else {}
    for name, member in _INFERENCE.items():
        if name in body:
            inference.setdefault(member, body.pop(name))
    if options.max_tokens is not None:
        inference["maxTokens"] = options.max_tokens
    if options.temperature is not None:
        inference["temperature"] = options.temperature
    if options.top_p is not None:
        inference["topP"] = options.top_p
    body["inferenceConfig"] = inference
    if offered:
        config: dict[str, Any] = {"tools": offered}
        if options.cache_tools:
            config["tools"] = [*offered, _CACHE_POINT]
        if choice:
            config["toolChoice"] = choice
        body["toolConfig"] = config
    if options.additional_request_fields:
        fields = dict(options.additional_request_fields)
        for name in ("thinking", "reasoning_config"):
            if _must_not_think(fields.get(name), body["messages"]):
                logger.info("thinking is off for this call: its tool calls were made without it")
                del fields[name]
        body["additionalModelRequestFields"] = fields
    if options.response_schema is not None:
        output = body.get("outputConfig")
        body["outputConfig"] = {
            **(cast("dict[str, Any]", output) if isinstance(output, dict) else {}),
            "textFormat": {
                "type": "json_schema",
                "structure": {
                    "jsonSchema": {
                        "name": options.response_name,
                        "schema": jsontext.encode(options.response_schema).decode(),
                    }
                },
            },
        }
    return body


_INFERENCE: Final = {
    "temperature": "temperature",
    "max_tokens": "maxTokens",
    "max_completion_tokens": "maxTokens",
    "max_output_tokens": "maxTokens",
    "top_p": "topP",
    "stop": "stopSequences",
}
"""Options by their common names, and their names in ``inferenceConfig``."""


def _beside_documents(messages: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """`messages`, with a text beside each document: "A text block must be included when using
    documents" (BerriAI/litellm #36499)."""
    told = list(messages)
    for place, message in enumerate(messages):
        kinds = _NOTHING.union(*message["content"])
        if "document" in kinds and "text" not in kinds:
            told[place] = {**message, "content": [*message["content"], {"text": "(document)"}]}
    return told


def _choice(tool_choice: str | Mapping[str, Any]) -> dict[str, Any]:
    """The tool choice in the API's form; an empty mapping to send no tools."""
    if isinstance(tool_choice, Mapping):
        return {"tool": {"name": tool_choice_name(tool_choice)}}
    if tool_choice == "auto":
        return {"auto": {}}
    if tool_choice == "required":
        return {"any": {}}
    if tool_choice == "none":
        return {}
    raise ConfigurationError(
        "tool_choice: expected 'auto', 'required', 'none' or one function, got " + repr(tool_choice)
    )


def _must_not_think(thinking: object, messages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether Claude would refuse thinking. With thinking on, each turn since the last user message must
    begin with it, but turns with calls of another model do not."""
    if not isinstance(thinking, dict) or cast("dict[str, Any]", thinking).get("type") != "enabled":
        return False
    for message in reversed(messages):
        blocks = message["content"]
        if message["role"] == "user":
            if any("toolResult" not in block for block in blocks):
                return False
        elif blocks and "reasoningContent" not in blocks[0]:
            return True
    return False


def _without_calls(messages: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """`messages`, with calls and results as text."""
    if not any(
        "toolUse" in block or "toolResult" in block
        for message in messages
        for block in message["content"]
    ):
        return messages
    names: dict[str, str] = {}
    told: list[Mapping[str, Any]] = []
    for message in messages:
        blocks: list[Any] = []
        for block in message["content"]:
            if "toolUse" in block:
                use = block["toolUse"]
                names[use["toolUseId"]] = use["name"]
                arguments = jsontext.encode(use["input"]).decode()
                blocks.append({"text": f"[I used the tool {use['name']} with {arguments}]"})
            elif "toolResult" in block:
                result = block["toolResult"]
                pictures = [part for part in result["content"] if "image" in part]
                texts = [part.get("text", "") for part in result["content"] if "image" not in part]
                text = "\n".join(texts) if texts else "a picture, which follows"
                word = "failed with" if result.get("status") == "error" else "answered"
                name = names.get(result["toolUseId"], "")
                blocks += [{"text": f"[The tool {name} {word}: {text}]"}, *pictures]
            elif "reasoningContent" not in block:
                # Reasoning is signed together with the calls that it produced.
                blocks.append(block)
        if blocks:
            told.append({**message, "content": blocks})
    return told


DOCUMENTS = {
    "application/msword": "doc",
    "application/pdf": "pdf",
    "application/vnd.ms-excel": "xls",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "text/csv": "csv",
    "text/html": "html",
    "text/markdown": "md",
    "text/plain": "txt",
}


def attachment_block(attachment: Attachment) -> dict[str, Any]:
    """Sound or a document as a block of a message.

    Raises:
        ConfigurationError: the API does not accept documents of this type, or not by URL.
    """
    kind = attachment.mime_type
    source: dict[str, Any] = {"bytes": attachment.data}
    if attachment.url.startswith("s3://"):
        source = {"s3Location": {"uri": attachment.url}}
    elif attachment.url:
        raise ConfigurationError(
            f"document {attachment.id!r}: Bedrock takes the document itself or an s3:// address, "
            f"got {redacted_url(attachment.url)[:200]!r}"
        )
    if kind == "audio/wav":
        return {"audio": {"format": "wav", "source": source}}
    found = DOCUMENTS.get(kind)
    if found is None:
        raise ConfigurationError(
            f"document {attachment.id!r}: Bedrock takes {', '.join(sorted(DOCUMENTS.values()))}, "
            f"got {kind}"
        )
    # The API demands a name, and models read it. A neutral name contains no instructions.
    name = "document " + "".join(letter for letter in attachment.id if letter.isalnum())[-12:]
    return {"document": {"format": found, "name": name, "source": source}}
