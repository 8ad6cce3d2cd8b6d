"""Checkers of APIs whose messages hold blocks: Anthropic and Amazon Bedrock."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

from rejoinder.testing.history._checks import IMAGE_TYPES, NAME, HistoryCheck, get, is_blank, shown


class Blocks(HistoryCheck):
    """Rules that Anthropic and Bedrock share: turns of blocks, calls answered in the next turn."""

    tools_key = ""
    """The member of a body that holds the tools. Without tools, the history may have no calls."""
    has_tools = True

    def body(self, body: Mapping[str, Any]) -> None:
        self.has_tools = bool(body.get(self.tools_key))

    def run(self, messages: list[Any]) -> None:
        waiting: list[str] = []
        seen: set[str] = set()
        before = ""
        turns: list[tuple[str, str, list[dict[str, Any]]]] = []
        for path, message in self.list_of(messages, "messages"):
            role = message.get("role")
            if role not in ("user", "assistant"):
                self.add(f"{path}.role", f"expected user or assistant, got {shown(role)}")
                continue
            if not before and role != "user":
                self.add(path, "the first message must be the user's")
            elif role == before:
                self.add(path, f"a second message of {role} in a row")
            blocks = self.blocks(f"{path}.content", message.get("content"))
            calls = [self.call_of(block) for block in blocks]
            answers = [self.answer_of(block) for block in blocks]
            if role == "user":
                got = [answer for answer in answers if answer is not None]
                for call_id in got:
                    if call_id in waiting:
                        waiting.remove(call_id)
                    else:
                        self.add(path, f"a result for {shown(call_id)}, which is not an open call")
                if waiting:
                    self.add(path, f"no results for {waiting}")
                if got and any(answer is None for answer in answers[: len(got)]):
                    self.add(path, "results must come before anything else")
            elif waiting:
                self.add(path, f"the results of {waiting} must come first")
            waiting = []
            for call_id in calls:
                if call_id is None:
                    continue
                if role != "assistant":
                    self.add(path, "a call in a message of the user")
                if call_id in seen:
                    self.add(path, f"the call id {call_id!r} is used twice")
                seen.add(call_id)
                waiting.append(call_id)
            for at, block in enumerate(blocks):
                self.block(f"{path}.content[{at}]", cast("str", role), block)
            if role == "assistant":
                self.reply(path, blocks)
            turns.append((path, cast("str", role), blocks))
            before = cast("str", role)
        if waiting:
            self.add("messages", f"no results for {waiting}")
        if seen and not self.has_tools:
            self.add(self.tools_key, "missing, though there are calls in the history")
        if before == "assistant":
            if self.paused(turns[-1][2]):
                pass
            elif not self.prefill:
                self.add("messages", "the last message must be the user's")
            elif (text := get(turns[-1][2][-1] if turns[-1][2] else None, "text")) and (
                text != text.rstrip()
            ):
                self.add("messages", "the last message ends in white space")
        if self.thinking:
            for path, role, blocks in reversed(turns):
                if role == "user" and any(self.answer_of(block) is None for block in blocks):
                    break
                if role == "assistant" and blocks and not self.is_thinking(blocks[0]):
                    self.add(path, "must begin with thinking, as thinking is on")

    def blocks(self, path: str, content: Any) -> list[dict[str, Any]]:
        found = [block for _, block in self.list_of(content, path)]
        if content == []:
            self.add(path, "an empty list")
        return found

    def reply(self, path: str, blocks: list[dict[str, Any]]) -> None:
        if blocks and self.is_thinking(blocks[-1]):
            self.add(path, "the last block may not be thinking")

    def paused(self, blocks: list[dict[str, Any]]) -> bool:
        """Whether a last turn with this ending is a paused one that will continue."""
        return False

    def text(self, path: str, text: Any) -> None:
        if not isinstance(text, str) or is_blank(text):
            self.add(path, f"expected text that is not blank, got {shown(text)}")

    def call_of(self, block: dict[str, Any]) -> str | None:
        raise NotImplementedError

    def answer_of(self, block: dict[str, Any]) -> str | None:
        raise NotImplementedError

    def is_thinking(self, block: dict[str, Any]) -> bool:
        raise NotImplementedError

    def block(self, path: str, role: str, block: dict[str, Any]) -> None:
        raise NotImplementedError


class Anthropic(Blocks):
    """Anthropic Messages."""

    system_keys = ("system",)
    tools_key = "tools"
    results = ("document", "image", "search_result", "text", "tool_reference")

    def run(self, messages: list[Any]) -> None:
        self.asked: set[str] = set()
        super().run(messages)

    def blocks(self, path: str, content: Any) -> list[dict[str, Any]]:
        if isinstance(content, str):
            return [{"type": "text", "text": content}]
        return super().blocks(path, content)

    def call_of(self, block: dict[str, Any]) -> str | None:
        return str(block.get("id")) if block.get("type") == "tool_use" else None

    def answer_of(self, block: dict[str, Any]) -> str | None:
        return str(block.get("tool_use_id")) if block.get("type") == "tool_result" else None

    def is_thinking(self, block: dict[str, Any]) -> bool:
        return block.get("type") in ("thinking", "redacted_thinking")

    def paused(self, blocks: list[dict[str, Any]]) -> bool:
        return bool(blocks) and blocks[-1].get("type") in _SERVER_CALLS

    def reply(self, path: str, blocks: list[dict[str, Any]]) -> None:
        super().reply(path, blocks)
        self.asked |= {
            str(block.get("id")) for block in blocks if block.get("type") in _SERVER_CALLS
        }
        for block in blocks:
            found = block.get("tool_use_id")
            if str(block.get("type")).endswith("_tool_result") and found not in self.asked:
                self.add(path, f"a result for {shown(found)}, which is not a call of a server tool")

    def block(self, path: str, role: str, block: dict[str, Any]) -> None:
        kind = block.get("type")
        if kind == "text":
            self.text(path, block.get("text"))
        elif kind == "image":
            if role != "user":
                self.add(path, "an image has no place in a message of the assistant")
            self.image(f"{path}.source", block.get("source"))
        elif kind == "tool_use":
            self.is_match(block.get("id"), _ANTHROPIC_ID, f"{path}.id")
            self.is_match(block.get("name"), _ANTHROPIC_NAME, f"{path}.name")
            self.is_dict(block.get("input"), f"{path}.input")
        elif kind == "tool_result":
            if role != "user":
                self.add(path, "a result has no place in a message of the assistant")
            self.result(path, block)
        elif kind in ("thinking", "redacted_thinking"):
            key = "signature" if kind == "thinking" else "data"
            if role != "assistant":
                self.add(path, "thinking has no place in a message of the user")
            if kind == "thinking" and not isinstance(block.get("thinking"), str):
                self.add(f"{path}.thinking", "missing")
            if not isinstance(block.get(key), str) or is_blank(block[key]):
                self.add(f"{path}.{key}", "missing")
        elif not isinstance(kind, str):
            self.add(f"{path}.type", "missing")

    def image(self, path: str, source: Any) -> None:
        kind = get(source, "type")
        if kind == "base64":
            if get(source, "media_type") not in IMAGE_TYPES:
                self.add(path, f"media type {shown(get(source, 'media_type'))} is not accepted")
            self.image_bytes(get(source, "data"), get(source, "media_type"), f"{path}.data")
        elif kind == "url":
            url = get(source, "url")
            if not isinstance(url, str) or not url.startswith(("http://", "https://")):
                self.add(f"{path}.url", f"expected an address, got {shown(url)}")
        elif kind != "file":
            self.add(f"{path}.type", f"unknown: {shown(kind)}")

    def result(self, path: str, block: dict[str, Any]) -> None:
        content = block.get("content")
        if isinstance(content, list):
            for where, held in self.list_of(cast("list[Any]", content), f"{path}.content"):
                if held.get("type") not in self.results:
                    self.add(where, f"{shown(held.get('type'))} has no place in a result")
                elif held.get("type") == "text":
                    self.text(where, held.get("text"))
                elif held.get("type") == "image":
                    self.image(f"{where}.source", held.get("source"))
        elif content is not None and not isinstance(content, str):
            self.add(f"{path}.content", "expected text or a list")
        if block.get("is_error") and not content:
            self.add(f"{path}.content", "a result that is an error may not be empty")


_ANTHROPIC_ID = re.compile(r"[a-zA-Z0-9_-]+")
_SERVER_CALLS = frozenset({"mcp_tool_use", "server_tool_use"})
_ANTHROPIC_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")


class Bedrock(Blocks):
    """Bedrock Converse. Bytes may be bytes, as in the format, or base64, as in a body."""

    system_keys = ("system",)
    tools_key = "toolConfig"

    def call_of(self, block: dict[str, Any]) -> str | None:
        use = block.get("toolUse")
        if isinstance(use, dict) and get(use, "type") == "server_tool_use":
            return None
        return str(get(use, "toolUseId")) if isinstance(use, dict) else None

    def answer_of(self, block: dict[str, Any]) -> str | None:
        result = block.get("toolResult")
        if get(result, "type") is not None:
            return None
        return str(get(result, "toolUseId")) if isinstance(result, dict) else None

    def is_thinking(self, block: dict[str, Any]) -> bool:
        return "reasoningContent" in block

    def block(self, path: str, role: str, block: dict[str, Any]) -> None:
        if len(block) != 1:
            self.add(path, f"expected exactly one key, got {sorted(block)}")
            return
        kind, value = next(iter(block.items()))
        if kind == "text":
            self.text(path, value)
        elif kind == "image":
            if role != "user":
                self.add(path, "an image has no place in a message of the assistant")
            self.image(f"{path}.image", value)
        elif kind == "toolUse":
            self.is_match(get(value, "toolUseId"), _BEDROCK_ID, f"{path}.toolUse.toolUseId")
            self.is_match(get(value, "name"), NAME, f"{path}.toolUse.name")
            self.is_dict(get(value, "input"), f"{path}.toolUse.input")
        elif kind == "toolResult":
            if role != "user" and get(value, "type") is None:
                self.add(path, "a result has no place in a message of the assistant")
            if get(value, "status") not in (None, "error", "success"):
                self.add(f"{path}.toolResult.status", "expected error or success")
            content = get(value, "content")
            if content == []:
                self.add(f"{path}.toolResult.content", "an empty list")
            for where, held in self.list_of(content, f"{path}.toolResult.content"):
                if "text" in held:
                    self.text(where, held["text"])
                elif "json" in held:
                    self.is_dict(held["json"], where)
                elif "image" in held:
                    self.image(where, held["image"])
        elif kind == "reasoningContent":
            if role != "assistant":
                self.add(path, "reasoning has no place in a message of the user")
            text = get(value, "reasoningText")
            if isinstance(text, dict):
                if not isinstance(get(text, "text"), str):
                    self.add(f"{path}.reasoningContent", "no text")
                if not get(text, "signature"):
                    self.add(f"{path}.reasoningContent", "no signature")
            elif not get(value, "redactedContent"):
                self.add(f"{path}.reasoningContent", "neither text nor redacted content")

    def image(self, path: str, image: Any) -> None:
        if get(image, "format") not in ("gif", "jpeg", "png", "webp"):
            self.add(path, f"format {shown(get(image, 'format'))} is not accepted")
        source = get(image, "source")
        if get(source, "s3Location") is None:
            mime_type = f"image/{get(image, 'format')}"
            self.image_bytes(get(source, "bytes"), mime_type, f"{path}.source.bytes")


_BEDROCK_ID = re.compile(r"[a-zA-Z0-9_.:-]{1,64}")
