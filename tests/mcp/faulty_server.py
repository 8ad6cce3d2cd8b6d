"""A small MCP server that fails on purpose. Standard library only, so that it starts at once.

    faulty_server.py TRANSPORT FAULT STEP [MARK]

TRANSPORT: stdio, sse or streamable (those print their port first). FAULT: none, stall, die, flood,
garbage, wrong, late, twice, hangup, huge, forget, modern. STEP: initialize, list, call, close. MARK only marks the process.
"""

import contextlib
import http.server
import json
import os
import queue
import signal
import sys
import threading
import time
import urllib.parse

TRANSPORT, FAULT, STEP = sys.argv[1:4]
LATE = 0.9
HUGE = int(os.environ.get("FAULTY_HUGE", str(300 << 20)))
STEPS = {"initialize": "initialize", "tools/list": "list", "tools/call": "call"}

TOOLS = [
    {
        "name": name,
        "description": f"The tool {name}",
        "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}},
    }
    for name in [
        "echo",
        "fail",
        "picture",
        "empty",
        "exit",
        "slow",
        "structured",
        "many",
        "change",
        "ask",
        "headers",
    ]
]
RESPONSES = queue.Queue()
SEEN = []
MODERN = "2026-07-28"
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="


def call(params):
    name, arguments = params.get("name"), params.get("arguments") or {}
    text = {"type": "text", "text": str(arguments.get("text", ""))}
    if name == "fail":
        return {"content": [{"type": "text", "text": "it did not work"}], "isError": True}
    if name == "picture":
        sound = {"type": "audio", "data": "AAAA", "mimeType": "audio/wav"}
        blob = {"type": "resource", "resource": {"uri": "file:///x", "blob": "AAAA"}}
        picture = {"type": "image", "data": PIXEL, "mimeType": "image/png"}
        return {"content": [text, picture, sound, blob]}
    if name == "empty":
        return {"content": []}
    if name == "exit":
        print("the last words", file=sys.stderr, flush=True)
        os._exit(3)
    if name == "slow":
        time.sleep(float(arguments.get("text") or 30))
    if name == "seen":
        return {"content": [{"type": "text", "text": json.dumps(SEEN)}]}
    if name == "structured":
        return {"content": [], "structuredContent": {"n": 1}}
    if name == "many":
        return {"content": [{"type": "text", "text": "x" * int(arguments["text"])}]}
    if name == "change":
        TOOLS[0]["description"] = str(arguments.get("text"))
        del TOOLS[-1]
        TOOLS.append({"name": "fresh", "inputSchema": {"type": "object"}})
        return {"content": [text], "changed": True}
    return {"content": [text]}


if os.environ.get("ODD_NAMES"):
    TOOLS[1]["name"] = "files/read.v2"
    TOOLS[2]["name"] = "files_read_v2"
    TOOLS[3]["name"] = "n" * 100


def result_of(method, params):
    if method == "server/discover":
        return {
            "supportedVersions": [MODERN],
            "capabilities": {"tools": {"listChanged": True}},
            "resultType": "complete",
            "ttlMs": 0,
            "cacheScope": "public",
        }
    if method == "initialize":
        return {
            "protocolVersion": "2025-11-25",
            "capabilities": {"tools": {"listChanged": True}},
            "serverInfo": {"name": "faulty", "version": "1"},
        }
    if method == "tools/list":
        return {"tools": TOOLS}
    if method == "tools/call":
        return call(params or {})
    return {}


def answers(message):
    """What to send for one message: JSON values, or bytes to be sent as they are."""
    method, request_id = message.get("method"), message.get("id")
    if method is None or request_id is None:
        return
    if method == "initialize" and FAULT == "modern":
        data = {"supported": [MODERN], "requested": "x"}
        error = {"code": -32022, "message": "unsupported", "data": data}
        yield {"jsonrpc": "2.0", "id": request_id, "error": error}
        return
    if method == "tools/call" and message["params"]["name"] == "ask":
        schema = {"type": "object", "properties": {"name": {"type": "string"}}}
        params = {"message": "who are you?", "requestedSchema": schema}
        yield {"jsonrpc": "2.0", "id": "e1", "method": "elicitation/create", "params": params}
        said = RESPONSES.get()
        message["params"]["arguments"] = {"text": json.dumps(said.get("result") or said["error"])}
    result = result_of(method, message.get("params"))
    changed = result.pop("changed", False)
    answer = {"jsonrpc": "2.0", "id": request_id, "result": result}
    if changed:
        yield {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}
    if STEPS.get(method) != STEP or FAULT in {"none", "forget", "modern"}:
        yield answer
    elif FAULT == "stall":
        threading.Event().wait()
    elif FAULT == "die":
        print("about to die", file=sys.stderr, flush=True)
        os._exit(3)
    elif FAULT == "hangup":
        os.close(1)
        threading.Event().wait()
    elif FAULT == "garbage":
        yield b"}{ this is no JSON \xff\xfe"
    elif FAULT == "wrong":
        yield {"jsonrpc": "2.0", "id": request_id, "result": {"tools": 5, "content": {"a": 1}}}
    elif FAULT == "late":
        time.sleep(LATE)
        yield answer
    elif FAULT == "twice":
        yield answer
        yield answer
    elif FAULT == "huge":
        yield HUGE
        yield {"jsonrpc": "2.0", "id": 999_999, "result": {}}
    elif FAULT == "flood":
        noise = {"jsonrpc": "2.0", "method": "notifications/message"}
        noise["params"] = {"level": "info", "data": "x" * 200}
        kind = os.environ.get("FLOOD")
        if kind == "changes":
            noise = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}
        elif kind == "pings":
            noise = {"jsonrpc": "2.0", "id": "p", "method": "ping"}
        threading.Thread(target=flood, args=(noise,), daemon=True).start()
        yield answer


def flood(noise):
    while True:
        send_unasked(noise)


def big_line(size, write):
    write(b'{"jsonrpc":"2.0","id":1000000,"result":{"content":[{"type":"text","text":"')
    block = b"x" * (1 << 20)
    for _ in range(size >> 20):
        write(block)
    write(b'"}]}}')


# ---------------------------------------------------------------------------------------------


def stdio():
    global send_unasked
    lock = threading.Lock()
    out = sys.stdout.buffer

    def send(value):
        with lock:
            if isinstance(value, int):
                big_line(value, out.write)
            else:
                out.write(value if isinstance(value, bytes) else json.dumps(value).encode())
            out.write(b"\n")
            out.flush()

    send_unasked = send
    if (STEP == "close" and FAULT in {"stall", "late", "flood"}) or FAULT == "hangup":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for line in sys.stdin.buffer:
        message = json.loads(line)
        SEEN.append(message.get("method"))
        if message.get("method") is None:
            RESPONSES.put(message)

        def work(message=message):
            for value in answers(message):
                send(value)

        threading.Thread(target=work, daemon=True).start()
    if FAULT == "hangup":
        time.sleep(600)
    if STEP == "close":
        if FAULT == "stall":
            time.sleep(600)
        elif FAULT == "late":
            time.sleep(20)
        elif FAULT == "flood":
            while True:
                send({"noise": "x" * 500})
        elif FAULT in {"garbage", "twice", "wrong"}:
            send(b"}{ garbage at the end")


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    streams = {}  # noqa: RUF012
    sessions = 0

    def log_message(self, *args):
        pass

    def do_DELETE(self):
        if STEP == "close":
            if FAULT == "stall":
                threading.Event().wait()
            if FAULT == "late":
                time.sleep(20)
            if FAULT == "die":
                os._exit(3)
            if FAULT == "garbage":
                self.wfile.write(b"\xff\xfe garbage")
                return
        self._plain(200)

    def do_GET(self):
        outgoing = queue.Queue()
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        key = str(id(outgoing))
        self.streams[key] = outgoing
        if TRANSPORT == "sse":
            self._event(f"/messages?session_id={key}", "endpoint")
        while True:
            try:
                self._send(outgoing.get())
            except OSError:
                return

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        message = json.loads(body)
        SEEN.append(message.get("method"))
        if message.get("method") == "tools/call" and message["params"]["name"] == "headers":
            message["params"]["arguments"] = {"text": json.dumps(dict(self.headers))}
        if message.get("method") is None:
            RESPONSES.put(message)
        old = self.headers.get("Mcp-Session-Id") == "s1"
        if FAULT == "forget" and old and message.get("method") == "tools/call":
            self._plain(404)
            return
        if message.get("method") == "initialize":
            Handler.sessions += 1
        session = f"s{Handler.sessions}"
        if TRANSPORT == "sse":
            key = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)["session_id"][0]
            self._plain(202)

            def work():
                for value in answers(message):
                    self.streams[key].put(value)

            threading.Thread(target=work, daemon=True).start()
            return
        if message.get("id") is None or message.get("method") is None:
            self._plain(202)
            return
        if os.environ.get("FAULTY") == "json" and STEPS.get(message["method"]) == STEP:
            self._plain(200, b"x" * HUGE if FAULT == "huge" else b"}{ no JSON", "application/json")
            return
        # The work comes first, as with most servers: no header before there is an answer.
        values = answers(message)
        first = next(values, None)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Mcp-Session-Id", session)
        self.send_header("Connection", "close")
        self.end_headers()
        self._send(first)
        for value in values:
            self._send(value)
        self.close_connection = True

    def _plain(self, status, body=b"", kind="text/plain"):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _send(self, value):
        if isinstance(value, bytes):
            self.wfile.write(b"data: " + value + b"\n\n")
        elif isinstance(value, int):
            self.wfile.write(b"data: ")
            big_line(value, self.wfile.write)
            self.wfile.write(b"\n\n")
        else:
            self._event(json.dumps(value))
        self.wfile.flush()

    def _event(self, data, event="message"):
        self.wfile.write(f"event: {event}\ndata: {data}\n\n".encode())
        self.wfile.flush()


def over_http():
    global send_unasked
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", int(os.environ.get("PORT", "0"))), Handler
    )
    server.daemon_threads = True

    def send(value):
        for outgoing in list(Handler.streams.values()):
            if outgoing.qsize() < 50:  # what comes after it waits behind no more
                outgoing.put(value)
            else:
                time.sleep(0.001)

    send_unasked = send
    print(server.server_address[1], flush=True)

    def parent_gone():
        sys.stdin.read()
        os._exit(0)

    threading.Thread(target=parent_gone, daemon=True).start()
    server.serve_forever()


with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
    stdio() if TRANSPORT == "stdio" else over_http()
