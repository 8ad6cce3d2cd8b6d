"""What a hostile or broken server may send, in the framing of each provider.

`GENERATORS` is a table: a name, and what makes a body of about so many bytes for a row. The tests of
this folder count work and memory on it; `bench/hostile.py` measures how long the loop stands still.
"""

from __future__ import annotations

import base64
import gzip
import json
import socket
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from itertools import chain, repeat
from typing import Any, Final

from contract.rows import Row
from rejoinder.testing._dialects import DIALECTS
from rejoinder.wire.eventstream import encode_message

__all__ = ["GENERATORS", "LARGE", "frame", "pieces", "sending"]


def frame(row: Row, payload: bytes, name: str = "") -> bytes:
    """One event with any payload."""
    if row.format == "bedrock":
        return encode_message(
            {":message-type": "event", ":event-type": name or "metadata"}, payload
        )
    if row.format == "bedrock-anthropic":
        wrapped = json.dumps({"bytes": base64.b64encode(payload).decode()}).encode()
        return encode_message({":message-type": "event", ":event-type": "chunk"}, wrapped)
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + payload + b"\n\n"


def pieces(body: bytes, size: int = 1 << 14) -> Iterator[bytes]:
    """`body` as `WireStream` gives it to a decoder."""
    for start in range(0, len(body), size):
        yield body[start : start + size]


def _delta(row: Row, text: str) -> tuple[dict[str, Any], str]:
    """An event with a piece of text."""
    match row.format:
        case "openai" | "mistral":
            return {"choices": [{"index": 0, "delta": {"content": text}}]}, ""
        case "responses":
            return {"type": "response.output_text.delta", "delta": text}, ""
        case "google":
            return {"candidates": [{"content": {"parts": [{"text": text}]}}]}, ""
        case "bedrock":
            return {"contentBlockIndex": 0, "delta": {"text": text}}, "contentBlockDelta"
        case _:
            delta = {"type": "text_delta", "text": text}
            return {"type": "content_block_delta", "index": 0, "delta": delta}, ""


def _begin(row: Row, number: int) -> tuple[dict[str, Any], str]:
    """An event that begins a call."""
    name, call_id = "look", f"c{number}"
    match row.format:
        case "openai" | "mistral":
            function = {"name": name, "arguments": ""}
            call = {"index": number, "id": call_id, "function": function}
            return {"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]}, ""
        case "responses":
            item = {"type": "function_call", "id": call_id, "call_id": call_id, "name": name}
            return {"type": "response.output_item.added", "output_index": number, "item": item}, ""
        case "google":
            part = {"functionCall": {"name": name, "willContinue": True}}
            return {"candidates": [{"content": {"parts": [part]}}]}, ""
        case "bedrock":
            start = {"toolUse": {"toolUseId": call_id, "name": name}}
            return {"contentBlockIndex": number, "start": start}, "contentBlockStart"
        case _:
            block = {"type": "tool_use", "id": call_id, "name": name, "input": {}}
            return {"type": "content_block_start", "index": number, "content_block": block}, ""


def _arguments(row: Row, text: str, *, named: bool = False) -> tuple[dict[str, Any], str]:
    """An event with a piece of arguments of call 0. `named`: it repeats the name, where it can."""
    match row.format:
        case "openai" | "mistral":
            call: dict[str, Any] = {"index": 0, "function": {"arguments": text}}
            if named:
                call = {"id": "c0", "function": {"name": "look", "arguments": text}}
            return {"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]}, ""
        case "responses":
            kind = "response.function_call_arguments.delta"
            return {"type": kind, "output_index": 0, "item_id": "c0", "delta": text}, ""
        case "google":
            entry = {"jsonPath": "$.a", "stringValue": text, "willContinue": True}
            part = {"functionCall": {"partialArgs": [entry], "willContinue": True}}
            return {"candidates": [{"content": {"parts": [part]}}]}, ""
        case "bedrock":
            delta: dict[str, Any] = {"toolUse": {"input": text}}
            return {"contentBlockIndex": 0, "delta": delta}, "contentBlockDelta"
        case _:
            delta = {"type": "input_json_delta", "partial_json": text}
            return {"type": "content_block_delta", "index": 0, "delta": delta}, ""


def _event(row: Row, event: tuple[dict[str, Any], str]) -> bytes:
    value, name = event
    return frame(row, json.dumps(value).encode(), name)


def _fill(one: bytes, size: int) -> bytes:
    return one * max(1, size // len(one))


def _empty_lists(row: Row, size: int) -> bytes:
    return frame(row, b'{"x":[' + _fill(b"[],", size) + b"[]]}")


def _lists_in_lists(row: Row, size: int) -> bytes:
    return frame(row, b'{"x":[' + _fill(b"[" * 400 + b"]" * 400 + b",", size) + b"[]]}")


def _choices(row: Row, size: int) -> bytes:
    """One event with as many entries as it can hold where the dialect has a list."""
    entry, key = {
        "openai": (b'{"delta":{"content":"a"}},', b'{"choices":['),
        "mistral": (b'{"delta":{"content":"a"}},', b'{"choices":['),
        "responses": (
            b'{"type":"message","content":[{"text":"a"}]},',
            b'{"type":"response.completed","response":{"output":[',
        ),
        "google": (b'{"text":"a"},', b'{"candidates":[{"content":{"parts":['),
    }.get(row.format, (b'{"type":"text","text":"a"},', b'{"content":['))
    body = key + _fill(entry, size) + entry.rstrip(b",")
    for bracket in reversed([char for char in key.decode() if char in "[{"]):
        body += b"]" if bracket == "[" else b"}"
    return frame(row, body)


def _error_object(row: Row, size: int) -> bytes:
    return frame(
        row, b'{"error":{"message":"x","details":[' + _fill(b"[],", size) + b"[]]}}", "error"
    )


def _exception(row: Row, size: int) -> bytes:
    if row.format not in ("bedrock", "bedrock-anthropic"):
        return _error_object(row, size)
    headers = {":message-type": "exception", ":exception-type": "throttlingException"}
    return encode_message(headers, b'{"message":[' + _fill(b"[],", size) + b"[]]}")


def _whole(row: Row, size: int) -> bytes:
    return b'{"x":[' + _fill(b"[],", size) + b"[]]}"


def _small_events(row: Row, size: int) -> bytes:
    return _fill(_event(row, _delta(row, "a")), size)


def _text(row: Row, size: int) -> bytes:
    return _event(row, _delta(row, "\U0001f600" + "a" * size))


def _texts(row: Row, size: int) -> bytes:
    text = "\U0001f600" + "a" * min(size, 200_000)
    return _fill(_event(row, _delta(row, text)), size)


def _comments(row: Row, size: int) -> bytes:
    if row.format in ("bedrock", "bedrock-anthropic"):
        return _fill(frame(row, b'{"p":""}', "unknown"), size)
    return _fill(b": x\n\n", size)


def _blank_lines(row: Row, size: int) -> bytes:
    return b"\n" * size


def _unknown(row: Row, size: int) -> bytes:
    return _fill(frame(row, b'{"type":"brand.new"}', "brandNew"), size)


def _calls(row: Row, size: int) -> bytes:
    one = len(_event(row, _begin(row, 1000)))
    return b"".join(_event(row, _begin(row, number)) for number in range(max(1, size // one)))


def _pieces(row: Row, size: int) -> bytes:
    one = _event(row, _arguments(row, '"a":{"b":[1,2,3]},'))
    return _event(row, _begin(row, 0)) + _event(row, _arguments(row, "{")) + _fill(one, size)


def _named_pieces(row: Row, size: int) -> bytes:
    one = _event(row, _arguments(row, '"a":{"b":[1,2,3]},', named=True))
    first = _event(row, _arguments(row, "{", named=True))
    return _event(row, _begin(row, 0)) + first + _fill(one, size)


def _wrong_arguments(row: Row, size: int) -> bytes:
    """Arguments that are no JSON, but close a bracket at each piece."""
    one = _event(row, _arguments(row, "{'a': {}}", named=True))
    return _event(row, _begin(row, 0)) + _fill(one, size)


def _white_space(row: Row, size: int) -> bytes:
    one = _event(row, _arguments(row, " "))
    return _event(row, _begin(row, 0)) + _event(row, _arguments(row, '{"a":')) + _fill(one, size)


def _nested(row: Row, size: int) -> bytes:
    return frame(row, b'{"x":' + b"[" * size)


def _garbage(row: Row, size: int) -> bytes:
    return b"\xff" * size


def _page(row: Row, size: int) -> bytes:
    return b"<html>" + _fill(b"<script ", size)


def _tags(row: Row, size: int) -> bytes:
    return _fill(_event(row, _delta(row, "<think><thinking><|channel|>")), size)


def _surrogates(row: Row, size: int) -> bytes:
    value, name = _delta(row, "TEXT")
    payload = json.dumps(value).encode().replace(b"TEXT", b"\\ud83d" * (size // 6))
    return frame(row, payload, name)


GENERATORS: Final[dict[str, Callable[[Row, int], bytes]]] = {
    "one event of empty lists": _empty_lists,
    "one event of lists in lists": _lists_in_lists,
    "one event of many entries": _choices,
    "an error of empty lists": _error_object,
    "an exception of empty lists": _exception,
    "a whole body of empty lists": _whole,
    "events of one letter": _small_events,
    "one long text": _text,
    "long texts": _texts,
    "comments": _comments,
    "blank lines": _blank_lines,
    "unknown events": _unknown,
    "calls that never end": _calls,
    "arguments in pieces": _pieces,
    "arguments in pieces with names": _named_pieces,
    "arguments that are all wrong": _wrong_arguments,
    "white space in arguments": _white_space,
    "one deep nest": _nested,
    "garbage": _garbage,
    "a page of open tags": _page,
    "marks": _tags,
    "halves of surrogates": _surrogates,
}

LARGE: Final = frozenset(
    {
        "one event of empty lists",
        "one event of lists in lists",
        "one event of many entries",
        "an error of empty lists",
        "an exception of empty lists",
        "a whole body of empty lists",
        "one long text",
        "one deep nest",
        "halves of surrogates",
    }
)
"""The generators that put all into one event."""


@contextmanager
def sending(row: Row, *bodies: bytes, packed: bool = False) -> Generator[str]:
    """The URL of a server that answers each request with the next of `bodies`, and from then on with
    the last one, from another thread: what it holds was made before, so that only the client's memory
    and time are measured inside the block.

    Args:
        packed: send them compressed by gzip.
    """
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {DIALECTS[row.format].content_type}\r\n"
    if packed:
        bodies = tuple(gzip.compress(body, 1) for body in bodies)
        head += "Content-Encoding: gzip\r\n"
    start = f"{head}Connection: close\r\n\r\n".encode()
    answers = chain((start + body for body in bodies), repeat(start + bodies[-1]))

    def serve() -> None:
        for answer in answers:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, suppress(OSError):
                connection.recv(1 << 16)
                connection.sendall(answer)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(1 << 16):
                    pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)
