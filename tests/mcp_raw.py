"""Small servers that answer exactly what a test says, over stdio and streamable HTTP."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from listening import listening
from rejoinder.llm import mcp

INITIALIZED = {
    "protocolVersion": "2025-06-18",
    "capabilities": {"tools": {}, "resources": {}, "prompts": {}},
    "serverInfo": {"name": "raw", "version": "1"},
}
TOOL = {"name": "t", "description": "t", "inputSchema": {"type": "object", "properties": {}}}
FINE = {"content": [{"type": "text", "text": "fine"}]}

_STDIO = r"""
import json, sys
answers = json.loads(sys.argv[1])
for line in sys.stdin:
    message = json.loads(line)
    method, number = message.get("method"), message.get("id")
    if number is None or method is None:
        continue
    answer = answers.get(method, {"result": {}})
    if isinstance(answer, str):
        sys.stdout.buffer.write(answer.replace("ID", json.dumps(number)).encode("latin-1") + b"\n")
        sys.stdout.buffer.flush()
        continue
    print(json.dumps({"jsonrpc": "2.0", "id": number, **answer}), flush=True)
"""


def stdio(
    *, call: Any = None, tools: Any = None, lines: dict[str, str] | None = None, **options: Any
) -> mcp.MCPServerStdio:
    """A server with one tool `t`.

    Args:
        call: the result of each call.
        tools: the list of tools.
        lines: by method, a whole line to send instead; ``ID`` stands for the id.
        options: of the server.
    """
    answers: dict[str, Any] = {
        "initialize": {"result": INITIALIZED},
        "tools/list": {"result": {"tools": [TOOL] if tools is None else tools}},
        "tools/call": {"result": FINE if call is None else call},
        **(lines or {}),
    }
    options.setdefault("client_session_timeout_seconds", 20)
    return mcp.MCPServerStdio(
        sys.executable, ["-I", "-S", "-c", _STDIO, json.dumps(answers)], **options
    )


class Request:
    """One HTTP request as the server read it."""

    def __init__(self, method: str, target: str, headers: dict[str, str], body: bytes) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.message: dict[str, Any] = json.loads(body) if body else {}

    @property
    def rpc(self) -> str:
        """The JSON-RPC method; ``""`` for a request without one."""
        return str(self.message.get("method", ""))

    @property
    def session(self) -> str | None:
        return self.headers.get("mcp-session-id")


Answer = tuple[int, dict[str, str], bytes]


def plain(status: int, body: bytes = b"", kind: str = "text/plain", **headers: str) -> Answer:
    return status, {"content-type": kind, **headers}, body


def rpc(request: Request, result: Any = None, *, status: int = 200, **headers: str) -> Answer:
    message = {"jsonrpc": "2.0", "id": request.message.get("id"), "result": result}
    return plain(status, json.dumps(message).encode(), "application/json", **headers)


def rpc_error(request: Request, code: int, message: str, *, status: int = 200) -> Answer:
    error = {"jsonrpc": "2.0", "id": request.message.get("id"), "error": {"code": code}}
    error["error"]["message"] = message
    return plain(status, json.dumps(error).encode(), "application/json")


def usual(request: Request, **headers: str) -> Answer:
    """What a well-behaved server with the tool `t` answers."""
    if request.method != "POST":
        return plain(200 if request.method == "DELETE" else 405)
    if request.message.get("id") is None:
        return plain(202)
    results = {
        "initialize": INITIALIZED,
        "tools/list": {"tools": [TOOL]},
        "tools/call": FINE,
    }
    return rpc(request, results.get(request.rpc, {}), **headers)


class HTTP:
    """A server on the loop of the test. `requests` are those it has answered."""

    def __init__(self, handler: Callable[[Request], Answer]) -> None:
        self.handler = handler
        self.requests: list[Request] = []
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    def methods(self) -> list[str]:
        return [request.rpc for request in self.requests if request.method == "POST"]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *rest = head.strip().split("\r\n")
        headers = {
            name.lower(): value.strip() for name, _, value in (r.partition(":") for r in rest)
        }
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        method, target, _ = first.split(" ")
        request = Request(method, target, headers, body)
        self.requests.append(request)
        status, fields, content = self.handler(request)
        lines = [f"HTTP/1.1 {status} Because", "connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
        lines.append(f"content-length: {len(content)}")
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + content)
        await writer.drain()


@asynccontextmanager
async def http(handler: Callable[[Request], Answer]) -> AsyncIterator[HTTP]:
    server = HTTP(handler)
    async with listening(server.serve) as url:
        server.port = int(url.rpartition(":")[2])
        yield server
