"""Checkers of chat completions, of OpenAI and Mistral, and of their item-based APIs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, cast

from rejoinder.testing.history._checks import NAME, HistoryCheck, get, shown

LONG_ID = re.compile(r"[^\x00-\x1f]+")


class Completions(HistoryCheck):
    """OpenAI chat completions and its clones."""

    roles = ("assistant", "developer", "system", "tool", "user")
    call_id = re.compile(r"[^\x00-\x1f]{1,40}")

    def run(self, messages: list[Any]) -> None:
        waiting: list[str] = []
        before = ""
        for path, message in self.list_of(messages, "messages"):
            role = message.get("role")
            if role not in self.roles:
                self.add(f"{path}.role", f"expected one of {self.roles}, got {shown(role)}")
                continue
            if role == "tool":
                call_id = message.get("tool_call_id")
                if call_id in waiting:
                    waiting.remove(cast("str", call_id))
                else:
                    self.add(path, f"an output for {shown(call_id)}, which is not an open call")
            elif waiting:
                self.add(path, f"the outputs of {waiting} must come first")
                waiting = []
            self.order(path, cast("str", role), before)
            calls = message.get("tool_calls")
            self.content(path, cast("str", role), message, bool(calls))
            if calls is not None and role == "assistant":
                waiting = self.calls(f"{path}.tool_calls", calls)
            before = cast("str", role)
        if waiting:
            self.add("messages", f"no outputs for {waiting}")
        self.end(before)

    def order(self, path: str, role: str, before: str) -> None:
        """Any role may follow any other."""

    def end(self, role: str) -> None:
        """Any role may be the last."""

    def calls(self, path: str, calls: Any) -> list[str]:
        ids: list[str] = []
        if isinstance(calls, list) and not calls:
            self.add(path, "expected at least one call, or no list")
        for where, call in self.list_of(calls, path):
            if self.is_match(call.get("id"), self.call_id, f"{where}.id"):
                if call["id"] in ids:
                    self.add(f"{where}.id", f"{call['id']!r} is used twice")
                ids.append(call["id"])
            function = call.get("function")
            if self.is_dict(function, f"{where}.function"):
                self.is_match(get(function, "name"), NAME, f"{where}.function.name")
                self.json_object(get(function, "arguments"), f"{where}.function.arguments")
        return ids

    def content(self, path: str, role: str, message: dict[str, Any], has_calls: bool) -> None:
        content = message.get("content")
        path = f"{path}.content"
        if content is None:
            if role != "assistant" or not (has_calls or message.get("refusal")):
                self.add(path, "missing")
        elif isinstance(content, list):
            if not content:
                self.add(path, "an empty list")
            for where, part in self.list_of(cast("list[Any]", content), path):
                self.part(where, role, part)
        elif not isinstance(content, str):
            self.add(path, f"expected text or a list, got {type(content).__name__}")
        elif not content and role == "assistant" and not has_calls:
            self.add(path, "neither text nor calls")

    def part(self, path: str, role: str, part: dict[str, Any]) -> None:
        kind = part.get("type")
        if kind == "text":
            if not isinstance(part.get("text"), str) or not part["text"]:
                self.add(f"{path}.text", "empty")
        elif kind == "image_url" and role == "user":
            image = part.get("image_url")
            url = get(image, "url") if isinstance(image, dict) else image
            self.image_url(url, f"{path}.image_url")
        elif not (kind in ("document_url", "file", "input_audio") and role == "user") and not (
            kind in ("reference", "refusal", "thinking") and role == "assistant"
        ):
            self.add(path, f"{shown(kind)} has no place in a message of {role}")


class Mistral(Completions):
    """Mistral chat completions, with the rules of the older models, which are stricter."""

    roles = ("assistant", "system", "tool", "user")
    call_id = re.compile(r"[a-zA-Z0-9]{9}")
    followers: ClassVar[dict[str, tuple[str, ...]]] = {
        "": ("assistant", "system", "user"),
        "assistant": ("assistant", "tool", "user"),
        "system": ("assistant", "system", "user"),
        "tool": ("assistant", "tool"),
        "user": ("assistant", "system", "user"),
    }

    def order(self, path: str, role: str, before: str) -> None:
        if role not in self.followers[before]:
            self.add(path, f"role {role} after role {before or 'none'}")

    def calls(self, path: str, calls: Any) -> list[str]:
        # The API does not match outputs with calls in the first message.
        if path == "messages[0].tool_calls" and calls:
            self.add(path, "the first message may not hold calls")
        return super().calls(path, calls)

    def end(self, role: str) -> None:
        if role not in ("user", "tool") and not self.prefill:
            self.add("messages", f"the last role is {role}, expected user or tool")

    def content(self, path: str, role: str, message: dict[str, Any], has_calls: bool) -> None:
        super().content(path, role, message, has_calls)
        if role == "user" and message.get("content") == "":
            self.add(f"{path}.content", "empty")


class Conversations(HistoryCheck):
    """The entries of Mistral's Conversations API."""

    keys = ("inputs", "entries")
    system_keys = ("instructions",)
    takes_text = True

    def run(self, messages: list[Any]) -> None:
        waiting: list[str] = []
        seen: set[str] = set()
        last = ""
        for path, entry in self.list_of(messages, "inputs"):
            kind = entry.get("type")
            if kind == "function.result":
                call_id = entry.get("tool_call_id")
                if call_id in waiting:
                    waiting.remove(cast("str", call_id))
                else:
                    self.add(path, f"a result for {shown(call_id)}, which is not an open call")
                if not isinstance(entry.get("result"), str):
                    self.add(f"{path}.result", "expected text")
            elif kind == "function.call":
                if last == "function.result" and waiting:
                    self.add(path, f"the results of {waiting} must come first")
                call_id = entry.get("tool_call_id")
                if self.is_match(call_id, Mistral.call_id, f"{path}.tool_call_id"):
                    if call_id in seen:
                        self.add(f"{path}.tool_call_id", f"{call_id!r} is used twice")
                    seen.add(cast("str", call_id))
                    waiting.append(cast("str", call_id))
                self.is_match(entry.get("name"), NAME, f"{path}.name")
                self.json_object(entry.get("arguments"), f"{path}.arguments")
            elif kind in ("message.input", "message.output"):
                if waiting:
                    self.add(path, f"the results of {waiting} must come first")
                    waiting = []
                self.message(path, entry, kind == "message.input")
            else:
                self.add(f"{path}.type", f"unknown: {shown(kind)}")
            last = kind if isinstance(kind, str) else ""
        if waiting:
            self.add("inputs", f"no results for {waiting}")
        if last not in ("message.input", "function.result"):
            self.add("inputs", f"the last entry is {last}, expected an input or a result")

    def message(self, path: str, entry: dict[str, Any], is_input: bool) -> None:
        role = "user" if is_input else "assistant"
        if entry.get("role") != role:
            self.add(f"{path}.role", f"expected {role}, got {shown(entry.get('role'))}")
        content = entry.get("content")
        if isinstance(content, str):
            if not content:
                self.add(f"{path}.content", "empty")
            return
        if content == []:
            self.add(f"{path}.content", "an empty list")
        for where, part in self.list_of(content, f"{path}.content"):
            if part.get("type") == "text":
                if not part.get("text"):
                    self.add(where, "empty")
            elif part.get("type") == "image_url" and is_input:
                self.image_url(part.get("image_url"), where)
            else:
                self.add(where, f"{shown(part.get('type'))} has no place here")


class Responses(HistoryCheck):
    """OpenAI Responses."""

    keys = ("input",)
    takes_text = True

    def body(self, body: Mapping[str, Any]) -> None:
        self.continues = any(
            body.get(key) for key in ("conversation", "previous_response_id", "prompt")
        )

    def run(self, messages: list[Any]) -> None:
        called: dict[str, str] = {}
        answered: set[str] = set()
        ids: set[str] = set()
        thought = ""  # the path of a reasoning item whose product has not followed yet
        for path, item in self.list_of(messages, "input"):
            kind = item.get("type", "message" if "role" in item else None)
            item_id = item.get("id")
            if isinstance(item_id, str):
                if item_id in ids:
                    self.add(f"{path}.id", f"{item_id!r} is used twice")
                ids.add(item_id)
            # Reasoning with an id is valid only together with the item that it produced, which has
            # an id too. Reasoning that is sent completely, without an id, may stand alone.
            is_answer = isinstance(kind, str) and kind.endswith("_output")
            is_given = is_answer or (kind == "message" and item.get("role") != "assistant")
            if kind != "reasoning":
                if thought and (is_given or not item_id):
                    self.add(thought, "reasoning without the item that it produced")
                thought = ""
            elif item_id is not None:
                thought = thought or path
            if kind == "message" and (late := [name for name in called if name not in answered]):
                self.add(path, f"the outputs of {late} must come first")
                answered.update(late)
            if kind == "message":
                self.message(path, item)
            elif kind in ("custom_tool_call", "function_call"):
                if self.is_match(item.get("call_id"), _RESPONSES_ID, f"{path}.call_id"):
                    if item["call_id"] in called:
                        self.add(f"{path}.call_id", f"{item['call_id']!r} is used twice")
                    called[item["call_id"]] = path
                self.is_match(item.get("name"), NAME, f"{path}.name")
                if kind == "function_call":
                    self.json_object(item.get("arguments"), f"{path}.arguments")
                elif not isinstance(item.get("input"), str):
                    self.add(f"{path}.input", "missing")
            elif kind in ("custom_tool_call_output", "function_call_output"):
                call_id = item.get("call_id")
                if call_id in answered:
                    self.add(path, f"a second output for {shown(call_id)}")
                elif call_id not in called and not self.continues:
                    self.add(path, f"no call {shown(call_id)} before this output")
                if isinstance(call_id, str):
                    answered.add(call_id)
                if not isinstance(item.get("output"), (str, list)):
                    self.add(f"{path}.output", "missing")
            elif kind == "reasoning":
                if not isinstance(item.get("summary"), list):
                    self.add(f"{path}.summary", "missing")
                if not item.get("id") and not item.get("encrypted_content"):
                    self.add(path, "neither an id nor encrypted content")
            elif not isinstance(kind, str):
                self.add(f"{path}.type", "missing")
        if thought:
            self.add(thought, "reasoning without the item that it produced")
        for call_id, path in called.items():
            if call_id not in answered:
                self.add(path, f"no output for the call {call_id!r}")

    def message(self, path: str, item: dict[str, Any]) -> None:
        role = item.get("role")
        if role not in ("assistant", "developer", "system", "user"):
            self.add(f"{path}.role", f"unknown: {shown(role)}")
            return
        content = item.get("content")
        if isinstance(content, str):
            if not content and role != "user":
                self.add(f"{path}.content", "empty")
            return
        if content == []:
            self.add(f"{path}.content", "an empty list")
        allowed = ("input_file", "input_image", "input_text")
        if role == "assistant":
            allowed = ("output_text", "refusal")
        for where, part in self.list_of(content, f"{path}.content"):
            kind = part.get("type")
            if kind not in allowed:
                self.add(where, f"{shown(kind)} has no place in a message of {role}")
            elif kind == "input_image" and not part.get("file_id"):
                if role != "user":
                    self.add(where, f"an image has no place in a message of {role}")
                self.image_url(part.get("image_url"), f"{where}.image_url")
            elif kind in ("input_text", "output_text") and not isinstance(part.get("text"), str):
                self.add(where, "no text")


_RESPONSES_ID = re.compile(r"[^\x00-\x1f]{1,64}")
