"""Strict checkers of histories: they refuse what each provider's API refuses.

Law: our own rules only, no vendor's package; values in, a list of problems out, nothing raised for
any value. A checker is stricter than its API only where clones of that API, or its older models,
are stricter; it does not know models, and what depends on one is a keyword.

    problems = check_history("anthropic", body)
    assert_legal("openai", messages)
"""

from __future__ import annotations

import binascii
import json
import re
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, TypeAlias, cast

from rejoinder._options import checked

__all__ = ["PROVIDERS", "IllegalHistoryError", "assert_legal", "check_history"]


class IllegalHistoryError(AssertionError):
    """A history that the provider would refuse; `problems` says why, one text each."""

    def __init__(self, provider: str, problems: list[str]) -> None:
        super().__init__(
            f"{provider} would refuse this history:" + "".join(f"\n  {text}" for text in problems)
        )
        self.provider = provider
        self.problems = problems


@checked()
def check_history(
    provider: str,
    history: Any,
    *,
    system: Any = None,
    prefill: bool = False,
    thinking: bool = False,
    signatures: bool = False,
    long_ids: bool = False,
) -> list[str]:
    """What `provider` would find wrong with `history`; empty when it would accept it.

    Args:
        provider: one of `PROVIDERS`, named as the formats are.
        history: the messages, or the whole body of a request.
        system: system texts that go beside the messages; taken from the body if one is given.
        prefill: the model continues a last message of the assistant, so there may be one.
        thinking: extended thinking is on (Anthropic): the assistant turns since the user last
            spoke must begin with it.
        signatures: the model demands thought signatures (Gemini 3 and later).
        long_ids: call ids of chat completions may have any length, as at servers other than
            OpenAI's and Azure's.

    Raises:
        ValueError: no checker has this name.
    """
    checker = _CHECKERS.get(provider)
    if checker is None:
        raise ValueError(
            f"no checker for {provider!r}: expected one of {', '.join(sorted(_CHECKERS))}"
        )
    check = checker(prefill=prefill, thinking=thinking, signatures=signatures)
    if long_ids and isinstance(check, _Completions):
        check.call_id = _LONG_ID
    messages = history
    if isinstance(history, Mapping):
        body = cast("Mapping[str, Any]", history)
        messages = next((body[key] for key in check.keys if key in body), None)
        if system is None:
            system = next((body[key] for key in check.system_keys if key in body), None)
        check.body(body)
        if messages is None and check.continues:
            return check.problems
    if not isinstance(messages, list):
        if not (isinstance(messages, str) and check.takes_text):
            check.add("", f"expected a list of messages, got {type(messages).__name__}")
        return check.problems
    if system is not None:
        check.system(system)
    check.strings(cast("list[Any]", messages), check.keys[0])
    if not messages:
        check.add(check.keys[0], "there must be at least one")
    else:
        check.run(cast("list[Any]", messages))
    return check.problems


def assert_legal(provider: str, history: Any, **options: Any) -> None:
    """Raise `IllegalHistoryError` if `check_history` of the same arguments finds a problem."""
    problems = check_history(provider, history, **options)
    if problems:
        raise IllegalHistoryError(provider, problems)


_IMAGE_TYPES = ("image/gif", "image/jpeg", "image/png", "image/webp")
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


class _Check:
    """One run of one checker: collects problems, each with its path."""

    keys: tuple[str, ...] = ("messages",)
    """Where a body holds the messages."""
    system_keys: tuple[str, ...] = ()
    takes_text = False
    continues = False
    """The body names what came before, so that it need not hold everything."""

    def __init__(self, *, prefill: bool, thinking: bool, signatures: bool) -> None:
        self.prefill = prefill
        self.thinking = thinking
        self.signatures = signatures
        self.problems: list[str] = []

    def add(self, path: str, problem: str) -> None:
        self.problems.append(f"{path}: {problem}" if path else problem)

    def body(self, body: Mapping[str, Any]) -> None:
        """Look at the rest of a body."""

    def system(self, system: Any) -> None:
        blocks: list[Any] = cast("list[Any]", system) if isinstance(system, list) else [system]
        for at, block in enumerate(blocks):
            text = _get(block, "text") if isinstance(block, dict) else block
            if isinstance(text, str) and _blank(text):
                self.add(f"system[{at}]", "blank text")

    def run(self, messages: list[Any]) -> None:
        raise NotImplementedError

    # -- shared looks at values

    def strings(self, value: Any, path: str) -> None:
        """Half a surrogate pair cannot be written as UTF-8. Without recursion: arguments of calls
        can be nested deeper than Python's stack."""
        left: list[tuple[Any, _Place]] = [(value, (None, path))]
        seen: set[int] = set()  # of what holds others: it may hold itself
        while left:
            held, place = left.pop()
            mark = id(held)
            if isinstance(held, str):
                if not held.isascii():
                    try:
                        held.encode()
                    except UnicodeEncodeError:
                        self.add(_path(place), "half a surrogate pair")
            elif mark in seen:
                continue
            elif isinstance(held, dict):
                seen.add(mark)
                entries = list(cast("dict[Any, Any]", held).items())
                for key, entry in reversed(entries):
                    left += (entry, (place, f".{key}")), (key, place)
            elif isinstance(held, list):
                seen.add(mark)
                entries = cast("list[Any]", held)
                left += ((entries[at], (place, f"[{at}]")) for at in reversed(range(len(entries))))

    def is_dict(self, value: Any, path: str) -> bool:
        if isinstance(value, dict):
            return True
        self.add(path, f"expected an object, got {type(value).__name__}")
        return False

    def is_match(self, value: Any, pattern: re.Pattern[str], path: str) -> bool:
        if isinstance(value, str) and pattern.fullmatch(value):
            return True
        self.add(path, f"expected text like {pattern.pattern}, got {_short(value)}")
        return False

    def json_object(self, text: Any, path: str) -> None:
        if not isinstance(text, str):
            self.add(path, f"expected JSON as text, got {type(text).__name__}")
            return
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            self.add(path, f"not JSON: {_short(text)}")
            return
        if not isinstance(value, dict):
            self.add(path, f"expected a JSON object, got {_short(text)}")

    def image_url(self, url: Any, path: str) -> None:
        if not isinstance(url, str) or not url:
            self.add(path, f"expected an address, got {_short(url)}")
        elif url.startswith("data:"):
            head, comma, data = url.partition(",")
            mime_type = head[5:].partition(";")[0]
            if mime_type not in _IMAGE_TYPES or not comma or not head.endswith(";base64"):
                self.add(path, f"expected a base64 image, got {head}")
            else:
                self.base64(data, path)
        elif not url.startswith(("http://", "https://")):
            self.add(path, f"expected an http or data address, got {_short(url)}")

    def base64(self, data: Any, path: str) -> None:
        if isinstance(data, bytes):
            if not data:
                self.add(path, "no bytes")
            return
        if not isinstance(data, str) or not data:
            self.add(path, f"expected base64, got {_short(data)}")
            return
        if data.startswith("<ELIDED"):
            return
        try:
            b64decode(data, validate=True)
        except (binascii.Error, ValueError):
            self.add(path, "not base64")

    def image_bytes(self, data: Any, mime_type: Any, path: str) -> None:
        """Base64, or bytes, that show by their first bytes no other type than the one they are
        said to be."""
        self.base64(data, path)
        start = data if isinstance(data, bytes) else _first_bytes(data)
        for shown, mark in _IMAGE_STARTS.items():
            if mark.match(start) and mime_type != shown:
                self.add(path, f"said to be {_short(mime_type)}, but the bytes are {shown}")

    def list_of(self, value: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """The objects in a list, each with its path; what is not one is told."""
        if not isinstance(value, list):
            self.add(path, f"expected a list, got {type(value).__name__}")
            return
        for at, held in enumerate(cast("list[Any]", value)):
            where = f"{path}[{at}]"
            if self.is_dict(held, where):
                yield where, held


_IMAGE_STARTS = {
    "image/gif": re.compile(rb"GIF8"),
    "image/jpeg": re.compile(rb"\xff\xd8\xff"),
    "image/png": re.compile(rb"\x89PNG"),
    "image/webp": re.compile(rb"RIFF....WEBP", re.DOTALL),
}


def _first_bytes(data: Any) -> bytes:
    try:
        return b64decode(data[:16], validate=True) if isinstance(data, str) else b""
    except (binascii.Error, ValueError):
        return b""


_Place: TypeAlias = "tuple[_Place | None, str]"
"""Where a value lies: the place of what holds it, and its own part of the path."""


def _path(place: _Place) -> str:
    parts: list[str] = []
    rest: _Place | None = place
    while rest is not None:
        rest, part = rest
        parts.append(part)
    if len(parts) > 20:
        parts[10:-10] = ["..."]
    return "".join(reversed(parts))


def _get(value: Any, *keys: str) -> Any:
    """The first of `keys` that the object holds."""
    if isinstance(value, dict):
        for key in keys:
            if key in value:
                return cast("dict[str, Any]", value)[key]
    return None


def _blank(text: str) -> bool:
    return not text or text.isspace()


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


# ---------------------------------------------------------------------------------------------


_LONG_ID = re.compile(r"[^\x00-\x1f]+")


class _Completions(_Check):
    """OpenAI chat completions and its clones."""

    roles = ("assistant", "developer", "system", "tool", "user")
    call_id = re.compile(r"[^\x00-\x1f]{1,40}")

    def run(self, messages: list[Any]) -> None:
        waiting: list[str] = []
        before = ""
        for path, message in self.list_of(messages, "messages"):
            role = message.get("role")
            if role not in self.roles:
                self.add(f"{path}.role", f"expected one of {self.roles}, got {_short(role)}")
                continue
            if role == "tool":
                call_id = message.get("tool_call_id")
                if call_id in waiting:
                    waiting.remove(cast("str", call_id))
                else:
                    self.add(path, f"an output for {_short(call_id)}, which waits for none")
            elif waiting:
                self.add(path, f"before it come the outputs of {waiting}")
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
                self.is_match(_get(function, "name"), _NAME, f"{where}.function.name")
                self.json_object(_get(function, "arguments"), f"{where}.function.arguments")
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
            url = _get(image, "url") if isinstance(image, dict) else image
            self.image_url(url, f"{path}.image_url")
        elif not (kind in ("document_url", "file", "input_audio") and role == "user") and not (
            kind in ("reference", "refusal", "thinking") and role == "assistant"
        ):
            self.add(path, f"{_short(kind)} has no place in a message of {role}")


class _Mistral(_Completions):
    """Mistral chat completions, with the rules of the older models, which are the stricter."""

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
        # The outputs are only matched with calls that come after something else.
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


class _Conversations(_Check):
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
                    self.add(path, f"a result for {_short(call_id)}, which waits for none")
                if not isinstance(entry.get("result"), str):
                    self.add(f"{path}.result", "expected text")
            elif kind == "function.call":
                if last == "function.result" and waiting:
                    self.add(path, f"before it come the results of {waiting}")
                call_id = entry.get("tool_call_id")
                if self.is_match(call_id, _Mistral.call_id, f"{path}.tool_call_id"):
                    if call_id in seen:
                        self.add(f"{path}.tool_call_id", f"{call_id!r} is used twice")
                    seen.add(cast("str", call_id))
                    waiting.append(cast("str", call_id))
                self.is_match(entry.get("name"), _NAME, f"{path}.name")
                self.json_object(entry.get("arguments"), f"{path}.arguments")
            elif kind in ("message.input", "message.output"):
                if waiting:
                    self.add(path, f"before it come the results of {waiting}")
                    waiting = []
                self.message(path, entry, kind == "message.input")
            else:
                self.add(f"{path}.type", f"unknown: {_short(kind)}")
            last = kind if isinstance(kind, str) else ""
        if waiting:
            self.add("inputs", f"no results for {waiting}")
        if last not in ("message.input", "function.result"):
            self.add("inputs", f"the last entry is {last}, expected an input or a result")

    def message(self, path: str, entry: dict[str, Any], is_input: bool) -> None:
        role = "user" if is_input else "assistant"
        if entry.get("role") != role:
            self.add(f"{path}.role", f"expected {role}, got {_short(entry.get('role'))}")
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
                self.add(where, f"{_short(part.get('type'))} has no place here")


class _Responses(_Check):
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
        thought = ""  # where a reasoning item waits for what it led to
        for path, item in self.list_of(messages, "input"):
            kind = item.get("type", "message" if "role" in item else None)
            item_id = item.get("id")
            if isinstance(item_id, str):
                if item_id in ids:
                    self.add(f"{path}.id", f"{item_id!r} is used twice")
                ids.add(item_id)
            # Reasoning with an id is only known together with the very item that it led to, by
            # its own id; what is sent whole, without an id, may stand alone.
            is_answer = isinstance(kind, str) and kind.endswith("_output")
            is_given = is_answer or (kind == "message" and item.get("role") != "assistant")
            if kind != "reasoning":
                if thought and (is_given or not item_id):
                    self.add(thought, "reasoning without the item it led to")
                thought = ""
            elif item_id is not None:
                thought = thought or path
            if kind == "message" and (late := [name for name in called if name not in answered]):
                self.add(path, f"before it come the outputs of {late}")
                answered.update(late)
            if kind == "message":
                self.message(path, item)
            elif kind in ("custom_tool_call", "function_call"):
                if self.is_match(item.get("call_id"), _RESPONSES_ID, f"{path}.call_id"):
                    if item["call_id"] in called:
                        self.add(f"{path}.call_id", f"{item['call_id']!r} is used twice")
                    called[item["call_id"]] = path
                self.is_match(item.get("name"), _NAME, f"{path}.name")
                if kind == "function_call":
                    self.json_object(item.get("arguments"), f"{path}.arguments")
                elif not isinstance(item.get("input"), str):
                    self.add(f"{path}.input", "missing")
            elif kind in ("custom_tool_call_output", "function_call_output"):
                call_id = item.get("call_id")
                if call_id in answered:
                    self.add(path, f"a second output for {_short(call_id)}")
                elif call_id not in called and not self.continues:
                    self.add(path, f"no call {_short(call_id)} before this output")
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
            self.add(thought, "reasoning without the item it led to")
        for call_id, path in called.items():
            if call_id not in answered:
                self.add(path, f"no output for the call {call_id!r}")

    def message(self, path: str, item: dict[str, Any]) -> None:
        role = item.get("role")
        if role not in ("assistant", "developer", "system", "user"):
            self.add(f"{path}.role", f"unknown: {_short(role)}")
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
                self.add(where, f"{_short(kind)} has no place in a message of {role}")
            elif kind == "input_image" and not part.get("file_id"):
                if role != "user":
                    self.add(where, f"an image has no place in a message of {role}")
                self.image_url(part.get("image_url"), f"{where}.image_url")
            elif kind in ("input_text", "output_text") and not isinstance(part.get("text"), str):
                self.add(where, "no text")


_RESPONSES_ID = re.compile(r"[^\x00-\x1f]{1,64}")


class _Blocks(_Check):
    """What Anthropic and Bedrock share: turns of blocks, calls answered in the next turn."""

    tools_key = ""
    """Where a body holds the tools, without which there may be no calls in the history."""
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
                self.add(f"{path}.role", f"expected user or assistant, got {_short(role)}")
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
                        self.add(path, f"a result for {_short(call_id)}, which waits for none")
                if waiting:
                    self.add(path, f"no results for {waiting}")
                if got and any(answer is None for answer in answers[: len(got)]):
                    self.add(path, "results must come before anything else")
            elif waiting:
                self.add(path, f"before it come the results of {waiting}")
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
            if not self.prefill:
                self.add("messages", "the last message must be the user's")
            elif (text := _get(turns[-1][2][-1] if turns[-1][2] else None, "text")) and (
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

    def text(self, path: str, text: Any) -> None:
        if not isinstance(text, str) or _blank(text):
            self.add(path, f"expected text that is not blank, got {_short(text)}")

    def call_of(self, block: dict[str, Any]) -> str | None:
        raise NotImplementedError

    def answer_of(self, block: dict[str, Any]) -> str | None:
        raise NotImplementedError

    def is_thinking(self, block: dict[str, Any]) -> bool:
        raise NotImplementedError

    def block(self, path: str, role: str, block: dict[str, Any]) -> None:
        raise NotImplementedError


class _Anthropic(_Blocks):
    """Anthropic Messages."""

    system_keys = ("system",)
    tools_key = "tools"
    results = ("document", "image", "search_result", "text", "tool_reference")

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
            if not isinstance(block.get(key), str) or _blank(block[key]):
                self.add(f"{path}.{key}", "missing")
        elif not isinstance(kind, str):
            self.add(f"{path}.type", "missing")

    def image(self, path: str, source: Any) -> None:
        kind = _get(source, "type")
        if kind == "base64":
            if _get(source, "media_type") not in _IMAGE_TYPES:
                self.add(path, f"media type {_short(_get(source, 'media_type'))} is not accepted")
            self.image_bytes(_get(source, "data"), _get(source, "media_type"), f"{path}.data")
        elif kind == "url":
            url = _get(source, "url")
            if not isinstance(url, str) or not url.startswith(("http://", "https://")):
                self.add(f"{path}.url", f"expected an address, got {_short(url)}")
        elif kind != "file":
            self.add(f"{path}.type", f"unknown: {_short(kind)}")

    def result(self, path: str, block: dict[str, Any]) -> None:
        content = block.get("content")
        if isinstance(content, list):
            for where, held in self.list_of(cast("list[Any]", content), f"{path}.content"):
                if held.get("type") not in self.results:
                    self.add(where, f"{_short(held.get('type'))} has no place in a result")
                elif held.get("type") == "text":
                    self.text(where, held.get("text"))
                elif held.get("type") == "image":
                    self.image(f"{where}.source", held.get("source"))
        elif content is not None and not isinstance(content, str):
            self.add(f"{path}.content", "expected text or a list")
        if block.get("is_error") and not content:
            self.add(f"{path}.content", "a result that is an error may not be empty")


_ANTHROPIC_ID = re.compile(r"[a-zA-Z0-9_-]+")
_ANTHROPIC_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")


class _Bedrock(_Blocks):
    """Bedrock Converse. Bytes may be bytes, as in the format, or base64, as in a body."""

    system_keys = ("system",)
    tools_key = "toolConfig"

    def call_of(self, block: dict[str, Any]) -> str | None:
        use = block.get("toolUse")
        if isinstance(use, dict) and _get(use, "type") == "server_tool_use":
            return None
        return str(_get(use, "toolUseId")) if isinstance(use, dict) else None

    def answer_of(self, block: dict[str, Any]) -> str | None:
        result = block.get("toolResult")
        if _get(result, "type") is not None:
            return None
        return str(_get(result, "toolUseId")) if isinstance(result, dict) else None

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
            self.is_match(_get(value, "toolUseId"), _BEDROCK_ID, f"{path}.toolUse.toolUseId")
            self.is_match(_get(value, "name"), _NAME, f"{path}.toolUse.name")
            self.is_dict(_get(value, "input"), f"{path}.toolUse.input")
        elif kind == "toolResult":
            if role != "user" and _get(value, "type") is None:
                self.add(path, "a result has no place in a message of the assistant")
            if _get(value, "status") not in (None, "error", "success"):
                self.add(f"{path}.toolResult.status", "expected error or success")
            content = _get(value, "content")
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
            text = _get(value, "reasoningText")
            if isinstance(text, dict):
                if not isinstance(_get(text, "text"), str):
                    self.add(f"{path}.reasoningContent", "no text")
                if not _get(text, "signature"):
                    self.add(f"{path}.reasoningContent", "no signature")
            elif not _get(value, "redactedContent"):
                self.add(f"{path}.reasoningContent", "neither text nor redacted content")

    def image(self, path: str, image: Any) -> None:
        if _get(image, "format") not in ("gif", "jpeg", "png", "webp"):
            self.add(path, f"format {_short(_get(image, 'format'))} is not accepted")
        source = _get(image, "source")
        if _get(source, "s3Location") is None:
            mime_type = f"image/{_get(image, 'format')}"
            self.image_bytes(_get(source, "bytes"), mime_type, f"{path}.source.bytes")


_BEDROCK_ID = re.compile(r"[a-zA-Z0-9_.:-]{1,64}")


class _Google(_Check):
    """Gemini, on the Developer API and on Vertex AI. Keys may be camelCase or snake_case."""

    keys = ("contents",)
    system_keys = ("systemInstruction", "system_instruction")

    def system(self, system: Any) -> None:
        parts = _get(system, "parts") if isinstance(system, dict) else system
        for at, part in enumerate(cast("list[Any]", parts) if isinstance(parts, list) else [parts]):
            text = _get(part, "text") if isinstance(part, dict) else part
            if not isinstance(text, str) or not text:
                self.add(f"systemInstruction[{at}]", "empty text")

    def run(self, messages: list[Any]) -> None:
        waiting: list[tuple[Any, Any]] = []
        before = ""
        steps: list[tuple[str, bool]] = []  # of the last turn: where, and whether it is signed
        for path, content in self.list_of(messages, "contents"):
            role = content.get("role", "user")
            if role not in ("model", "user"):
                self.add(f"{path}.role", f"expected user or model, got {_short(role)}")
                continue
            parts = [part for _, part in self.list_of(content.get("parts"), f"{path}.parts")]
            if not parts:
                self.add(f"{path}.parts", "there must be at least one")
            calls = [
                (part, cast("dict[str, Any]", call))
                for part in parts
                if isinstance(call := _get(part, "functionCall", "function_call"), dict)
            ]
            answers = [
                cast("dict[str, Any]", answer)
                for part in parts
                if isinstance(answer := _get(part, "functionResponse", "function_response"), dict)
            ]
            if not before and role != "user":
                self.add(path, "the first content must be the user's")
            if answers:
                if role != "user":
                    self.add(path, "a function response in a turn of the model")
                self.answers(path, answers, waiting)
            elif waiting:
                self.add(path, f"before it come the responses of {[name for name, _ in waiting]}")
            waiting = []
            if calls:
                if role != "model":
                    self.add(path, "a function call in a turn of the user")
                if before not in ("user", "tool"):
                    self.add(path, "a function call must come after a turn of the user or a tool")
                waiting = [(_get(call, "name"), _get(call, "id")) for _, call in calls]
                first = calls[0][0]
                steps.append((path, bool(_get(first, "thoughtSignature", "thought_signature"))))
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
        signature = _get(part, "thoughtSignature", "thought_signature")
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
        elif (call := _get(part, "functionCall", "function_call")) is not None:
            self.is_match(_get(call, "name"), _GOOGLE_NAME, f"{path}.functionCall.name")
            if _get(call, "args") is not None:
                self.is_dict(_get(call, "args"), f"{path}.functionCall.args")
        elif (answer := _get(part, "functionResponse", "function_response")) is not None:
            self.is_match(_get(answer, "name"), _GOOGLE_NAME, f"{path}.functionResponse.name")
            self.is_dict(_get(answer, "response"), f"{path}.functionResponse.response")
        elif (inline := _get(part, "inlineData", "inline_data")) is not None:
            kind = _get(inline, "mimeType", "mime_type")
            if not isinstance(kind, str) or "/" not in kind or kind == "image/gif":
                self.add(f"{path}.inlineData", f"type {_short(kind)} is not accepted")
            self.base64(_get(inline, "data"), f"{path}.inlineData.data")
        elif (file := _get(part, "fileData", "file_data")) is not None:
            uri = _get(file, "fileUri", "file_uri")
            if not isinstance(uri, str) or not uri.startswith(("http://", "https://", "gs://")):
                self.add(f"{path}.fileData", f"expected an address, got {_short(uri)}")


_GOOGLE_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_.:-]{0,63}")

_CHECKERS: dict[str, Callable[..., _Check]] = {
    "anthropic": _Anthropic,
    "aws": _Bedrock,
    "google": _Google,
    "mistralai": _Mistral,
    "mistralai.conversations": _Conversations,
    "openai": _Completions,
    "openai.responses": _Responses,
}

PROVIDERS = tuple(sorted(_CHECKERS))
"""The names that `check_history` takes."""
