"""The checker of Gemini's contents."""

from __future__ import annotations

import re
from typing import Any, cast

from rejoinder.testing.history._checks import HistoryCheck, get, shown


class Google(HistoryCheck):
    """Gemini, on the Developer API and on Vertex AI. Keys may be camelCase or snake_case."""

    keys = ("contents",)
    system_keys = ("systemInstruction", "system_instruction")

    def system(self, system: Any) -> None:
        parts = get(system, "parts") if isinstance(system, dict) else system
        for at, part in enumerate(cast("list[Any]", parts) if isinstance(parts, list) else [parts]):
            text = get(part, "text") if isinstance(part, dict) else part
            if not isinstance(text, str) or not text:
                self.add(f"systemInstruction[{at}]", "empty text")

    def run(self, messages: list[Any]) -> None:
        waiting: list[tuple[Any, Any]] = []
        before = ""
        steps: list[tuple[str, bool]] = []  # of the last turn: each path, and whether it is signed
        for path, content in self.list_of(messages, "contents"):
            role = content.get("role", "user")
            if role not in ("model", "user"):
                self.add(f"{path}.role", f"expected user or model, got {shown(role)}")
                continue
            parts = [part for _, part in self.list_of(content.get("parts"), f"{path}.parts")]
            if not parts:
                self.add(f"{path}.parts", "there must be at least one")
            calls = [
                (part, cast("dict[str, Any]", call))
                for part in parts
                if isinstance(call := get(part, "functionCall", "function_call"), dict)
            ]
            answers = [
                cast("dict[str, Any]", answer)
                for part in parts
                if isinstance(answer := get(part, "functionResponse", "function_response"), dict)
            ]
            if not before and role != "user":
                self.add(path, "the first content must be the user's")
            if answers:
                if role != "user":
                    self.add(path, "a function response in a turn of the model")
                self.answers(path, answers, waiting)
            elif waiting:
                self.add(path, f"the responses of {[name for name, _ in waiting]} must come first")
            waiting = []
            if calls:
                if role != "model":
                    self.add(path, "a function call in a turn of the user")
                if before not in ("user", "tool"):
                    self.add(path, "a function call must come after a turn of the user or a tool")
                waiting = [(get(call, "name"), get(call, "id")) for _, call in calls]
                first = calls[0][0]
                steps.append((path, bool(get(first, "thoughtSignature", "thought_signature"))))
            for at, part in enumerate(parts):
                self.part(f"{path}.parts[{at}]", cast("str", role), part)
            if role == "user" and not answers:
                steps = []
            before = "tool" if answers else cast("str", role)
        if waiting:
            self.add("contents", f"no responses for {[name for name, _ in waiting]}")
        if before == "model" and not self.prefill:
            self.add("contents", "the last content must be the user's")
        if self.signatures:
            for path, is_signed in steps:
                if not is_signed:
                    self.add(path, "the first function call has no thought signature")

    def answers(
        self, path: str, answers: list[dict[str, Any]], waiting: list[tuple[Any, Any]]
    ) -> None:
        if len(answers) != len(waiting):
            self.add(
                path, f"{len(answers)} function responses for {len(waiting)} calls just before"
            )
            return
        names = sorted(str(name) for name, _ in waiting)
        got = sorted(str(answer.get("name")) for answer in answers)
        if names != got:
            self.add(path, f"function responses of {got} for calls of {names}")
        ids = [call_id for _, call_id in waiting if call_id is not None]
        answered = [answer["id"] for answer in answers if answer.get("id") is not None]
        if ids and answered and sorted(map(str, ids)) != sorted(map(str, answered)):
            self.add(path, "the ids of calls and responses differ")

    def part(self, path: str, role: str, part: dict[str, Any]) -> None:
        signature = get(part, "thoughtSignature", "thought_signature")
        if signature is not None and not isinstance(signature, bytes):
            text = str(signature).replace("-", "+").replace("_", "/")
            self.base64(text, f"{path}.thoughtSignature")
        kinds = [
            key
            for key in part
            if key not in ("thought", "thoughtSignature", "thought_signature", "videoMetadata")
            and key not in ("video_metadata", "mediaResolution", "partMetadata")
        ]
        if len(kinds) != 1 and not (signature and not kinds):
            self.add(path, f"expected exactly one kind of data, got {sorted(kinds)}")
            return
        if "text" in part:
            if not isinstance(part["text"], str) or (not part["text"] and not signature):
                self.add(path, "empty text")
        elif (call := get(part, "functionCall", "function_call")) is not None:
            self.is_match(get(call, "name"), _GOOGLE_NAME, f"{path}.functionCall.name")
            if get(call, "args") is not None:
                self.is_dict(get(call, "args"), f"{path}.functionCall.args")
        elif (answer := get(part, "functionResponse", "function_response")) is not None:
            self.is_match(get(answer, "name"), _GOOGLE_NAME, f"{path}.functionResponse.name")
            self.is_dict(get(answer, "response"), f"{path}.functionResponse.response")
        elif (inline := get(part, "inlineData", "inline_data")) is not None:
            kind = get(inline, "mimeType", "mime_type")
            if not isinstance(kind, str) or "/" not in kind or kind == "image/gif":
                self.add(f"{path}.inlineData", f"type {shown(kind)} is not accepted")
            self.base64(get(inline, "data"), f"{path}.inlineData.data")
        elif (file := get(part, "fileData", "file_data")) is not None:
            uri = get(file, "fileUri", "file_uri")
            if not isinstance(uri, str) or not uri.startswith(("http://", "https://", "gs://")):
                self.add(f"{path}.fileData", f"expected an address, got {shown(uri)}")


_GOOGLE_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_.:-]{0,63}")
