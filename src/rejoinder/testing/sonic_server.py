"""Nova Sonic on the loopback interface: over HTTP/2, with signed frames, strict about their order.

    async with SonicServer() as server:
        server.say("Hello there.")
        model = aws.realtime.RealtimeModel(
            base_url=server.url, api_key="AKIDEXAMPLE", api_secret="any", region="us-east-1"
        )

It answers typed text and tool results. `SonicConnection.speech` simulates the user's speech. Like the
real service, it refuses events in a wrong order (`rejoinder.testing.sonic_grammar`), a broken chain of
signatures, and sound that stops for longer than `idle`. `SonicConnection.stream` causes faults of
HTTP/2: GOAWAY, RST_STREAM, small windows.
Needs the package ``h2`` (``rejoinder[aws]``).
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self, TypeAlias, cast

from rejoinder._options import COUNT, SECONDS, WHOLE, check_fields, checked
from rejoinder.clouds.event_signing import EventSigner, seed_of
from rejoinder.clouds.sigv4 import Credentials
from rejoinder.testing.h2_server import H2Server, H2ServerStream
from rejoinder.testing.realtime_connection import ServerCall
from rejoinder.testing.sonic_grammar import IllegalEventError, SonicGrammar
from rejoinder.wire.eventstream import EventStreamDecoder, encode_message

__all__ = ["SonicConnection", "SonicReply", "SonicServer"]

_BYTES_PER_MS: Final = 48
_INVALID: Final = "Invalid input request, please fix your input and try again."


@dataclass(frozen=True)
class SonicReply:
    """One reply of the model: calls first, then sentences, each with `ms` milliseconds of sound.

    `hold`: the last sound stays open until `SonicConnection.release` or an interruption.
    `truth`: report the spoken text after each sentence.
    """

    sentences: Sequence[str] = ()
    ms: int = 100
    calls: Sequence[ServerCall] = ()
    hold: bool = False
    truth: bool = True

    def __post_init__(self) -> None:
        check_fields(self, ms=WHOLE)


SonicHandler: TypeAlias = Callable[["SonicConnection", str, dict[str, Any]], Awaitable[bool] | bool]
"""Receives each event of a client first, with its kind. Returning true marks the event as
handled."""


class SonicConnection:
    """One session, seen from the service.

    Attributes:
        number: 1 for the first session of the server.
        stream: the HTTP/2 stream.
        grammar: checks and records the events of the client.
        events: all events of the client, except sound.
        last_frame: the empty frame that ends a signed stream has come.
    """

    def __init__(self, server: SonicServer, stream: H2ServerStream, number: int) -> None:
        self._server = server
        self.stream = stream
        self.number = number
        self.grammar = SonicGrammar(typed=server.typed)
        self.events: list[dict[str, Any]] = []
        self.last_frame = False
        self.heard_at = asyncio.get_running_loop().time()
        self._count = 0
        self._started = False
        self._release = asyncio.Event()
        self._interrupted = False
        self._speaking = asyncio.Lock()
        self._open_sound: str | None = None
        self.tasks: set[asyncio.Task[None]] = set()

    # -- saying ------------------------------------------------------------------------------

    async def send(self, kind: str, **fields: Any) -> None:
        """Send one event."""
        ids = {"completionId": f"completion_{self.number}", "sessionId": f"session_{self.number}"}
        await self.send_text(json.dumps({"event": {kind: {**ids, **fields}}}))

    async def send_text(self, text: str) -> None:
        """Send a chunk that holds this text."""
        payload = json.dumps({"bytes": base64.b64encode(text.encode()).decode()}).encode()
        await self._frame("event", "chunk", payload)

    async def fail(self, name: str, message: str) -> None:
        """Send an exception, and end the stream."""
        await self._frame("exception", name, json.dumps({"message": message}).encode())
        self.stream.end()

    async def speech(self, *texts: str) -> None:
        """Simulate speech of the user, transcribed in one or several pieces."""
        for text in texts:
            await self._text("USER", "FINAL", text, "PARTIAL_TURN")

    async def speak(self, reply: SonicReply) -> None:
        """Speak a reply after the current one."""
        async with self._speaking:
            await self._speak(reply)

    async def interrupt(self, *, control: bool = True) -> None:
        """Simulate an interruption by the user. `control`: also report it in a text for
        programs."""
        self._interrupted = True
        self._release.set()
        if self._open_sound is not None:
            await self._content_end(self._open_sound, "AUDIO", "INTERRUPTED")
            self._open_sound = None
        if control:
            await self._text("ASSISTANT", "FINAL", '{ "interrupted" : true }', "INTERRUPTED")

    def release(self) -> None:
        """Let a held reply end."""
        self._release.set()

    def later(self, work: Any) -> None:
        """Run a coroutine beside the reading of events."""
        task = asyncio.ensure_future(_until_gone(work))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _speak(self, reply: SonicReply) -> None:
        self._interrupted = False
        self._release.clear()
        for call in reply.calls:
            await self.call(call)
        for index, sentence in enumerate(reply.sentences):
            if self._interrupted:
                return
            last = index == len(reply.sentences) - 1
            await self._text("ASSISTANT", "SPECULATIVE", sentence, "PARTIAL_TURN")
            self._open_sound = name = await self._content_start("AUDIO", "ASSISTANT")
            sound = base64.b64encode(bytes(reply.ms * _BYTES_PER_MS)).decode()
            await self.send("audioOutput", contentId=name, role="ASSISTANT", content=sound)
            if last and reply.hold:
                await self._release.wait()
            if self._open_sound is None:
                return  # interrupted
            self._open_sound = None
            await self._content_end(name, "AUDIO", "END_TURN" if last else "PARTIAL_TURN")
            if reply.truth:
                stop = "END_TURN" if last else "PARTIAL_TURN"
                await self._text("ASSISTANT", "FINAL", sentence, stop)
            await asyncio.sleep(0)
        await self.tokens(speech_in=15, text_in=5, speech_out=7, text_out=3)

    async def call(self, call: ServerCall) -> None:
        """Ask for a tool."""
        self.grammar.calls.add(call.call_id)
        name = await self._content_start("TOOL", "TOOL")
        await self.send(
            "toolUse",
            contentId=name,
            role="TOOL",
            toolName=call.name,
            toolUseId=call.call_id,
            content=call.arguments,
        )
        await self._content_end(name, "TOOL", "TOOL_USE")

    async def truth(self, sentence: str, stop: str = "END_TURN") -> None:
        """Report the spoken text of a sentence."""
        await self._text("ASSISTANT", "FINAL", sentence, stop)

    async def tokens(
        self, *, speech_in: int = 0, text_in: int = 0, speech_out: int = 0, text_out: int = 0
    ) -> None:
        """Report token counts, as a difference."""
        delta = {
            "input": {"speechTokens": speech_in, "textTokens": text_in},
            "output": {"speechTokens": speech_out, "textTokens": text_out},
        }
        await self.send("usageEvent", details={"delta": delta, "total": delta})

    async def _text(self, role: str, stage: str, text: str, stop: str) -> None:
        name = await self._content_start("TEXT", role, stage)
        await self.send("textOutput", contentId=name, role=role, content=text)
        await self._content_end(name, "TEXT", stop)

    async def _content_start(self, kind: str, role: str, stage: str | None = None) -> str:
        if not self._started:
            self._started = True
            await self.send("completionStart")
        self._count += 1
        name = f"content_{self.number}_{self._count}"
        fields: dict[str, Any] = {"contentId": name, "type": kind, "role": role}
        if stage is not None:
            fields["additionalModelFields"] = json.dumps({"generationStage": stage})
        await self.send("contentStart", **fields)
        return name

    async def _content_end(self, name: str, kind: str, stop: str) -> None:
        await self.send("contentEnd", contentId=name, type=kind, stopReason=stop)

    async def _frame(self, kind: str, name: str, payload: bytes) -> None:
        which = ":event-type" if kind == "event" else ":exception-type"
        headers = {":message-type": kind, which: name, ":content-type": "application/json"}
        await self.stream.send(encode_message(headers, payload), piece=self._server.piece)

    # -- hearing -----------------------------------------------------------------------------

    async def handle(self, kind: str, fields: dict[str, Any]) -> None:
        """Process a legal event of the client as the service does."""
        if kind != "contentEnd":
            return
        grammar = self.grammar
        answers = len(grammar.typed_texts) + len(grammar.results)
        if answers > self._server.answered.get(self.number, 0):
            self._server.answered[self.number] = answers
            self.later(self.speak(self._server.next_reply()))


async def _until_gone(work: Any) -> None:
    try:
        await work
    except ConnectionError:
        return  # the client is gone


class SonicServer:
    """Serves any number of sessions.

    Args:
        credentials: the credentials of the clients, to check their signatures. ``None``: any.
        tls: a context for the server's side; without one HTTP/2 is spoken by prior knowledge.
        window: bytes that a client may send ahead.
        piece: bytes of one DATA frame.
        typed: accept text of the user, as Nova 2 does.
        idle: seconds without sound after which a session is ended.
        cap: seconds after which each session is ended.
        on_event: called with each event of a client before it is handled.
        on_connect: called when a session is accepted.
        refuse: called with each request; returns the status, error name and message of a refusal.

    Attributes:
        connections: all sessions so far.
        illegal: events of clients that the service would refuse.
        requests: the header fields of all requests.
    """

    @checked(window=COUNT, piece=COUNT, idle=SECONDS, cap=SECONDS)
    def __init__(
        self,
        *,
        credentials: Credentials | None = None,
        tls: ssl.SSLContext | None = None,
        window: int | None = None,
        piece: int = 1 << 14,
        typed: bool = True,
        idle: float | None = None,
        cap: float | None = None,
        on_event: SonicHandler | None = None,
        on_connect: Callable[[SonicConnection], Awaitable[None]] | None = None,
        refuse: Callable[[int], tuple[int, str, str] | None] | None = None,
    ) -> None:
        self.piece = piece
        self.typed = typed
        self.idle = idle
        self.cap = cap
        self.on_event = on_event
        self.on_connect = on_connect
        self.refuse = refuse
        self.connections: list[SonicConnection] = []
        self.illegal: list[str] = []
        self.requests: list[dict[str, str]] = []
        self.answered: dict[int, int] = {}
        self._credentials = credentials
        self._replies: deque[SonicReply] = deque()
        self._changed = asyncio.Event()
        self._http = H2Server(self._serve, tls=tls, window=window)

    @property
    def url(self) -> str:
        """The URL for `base_url`."""
        return self._http.url

    @property
    def protocol_errors(self) -> list[Exception]:
        """HTTP/2 violations of the clients."""
        return self._http.errors

    def say(self, *sentences: str, **options: Any) -> None:
        """The next reply speaks these sentences."""
        self.reply(SonicReply(sentences, **options))

    def reply(self, *replies: SonicReply) -> None:
        """The next replies."""
        self._replies.extend(replies)

    def next_reply(self) -> SonicReply:
        """The next reply; ``Hello.`` if none is queued."""
        return self._replies.popleft() if self._replies else SonicReply(["Hello."])

    @checked()
    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until `condition` holds. It is checked whenever a client has sent something."""
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        tasks = [task for connection in self.connections for task in connection.tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._http.__aexit__(exc_type, exc, traceback)

    # -- serving -----------------------------------------------------------------------------

    async def _serve(self, stream: H2ServerStream) -> None:
        self.requests.append(stream.fields)
        refused = None if self.refuse is None else self.refuse(len(self.requests))
        if refused is not None:
            status, name, text = refused
            stream.respond(status, x_amzn_errortype=name, content_type="application/json")
            await stream.send(json.dumps({"message": text}).encode())
            stream.end()
            return
        connection = SonicConnection(self, stream, len(self.connections) + 1)
        self.connections.append(connection)
        stream.respond(200, content_type="application/vnd.amazon.eventstream")
        self._changed.set()
        if self.idle is not None or self.cap is not None:
            connection.later(self._watch(connection))
        if self.on_connect is not None:
            await self.on_connect(connection)
        decoder = EventStreamDecoder()
        signer = self._signer(stream)
        while data := await stream.receive():
            for message in decoder.feed(data):
                if signer is not None:
                    signed = signer.frame(
                        message.payload,
                        wall_now=cast("int", message.headers[":date"]) / 1000,
                    )
                    (again,) = EventStreamDecoder().feed(signed)
                    if again.headers[":chunk-signature"] != message.headers[":chunk-signature"]:
                        self.illegal.append("a signature that is not that of its frame")
                        await connection.fail("validationException", "The signature does not match")
                        return
                if not message.payload:
                    connection.last_frame = True
                    continue
                if not await self._heard(connection, message.payload):
                    return
            self._changed.set()
        if stream.ended:
            try:
                connection.grammar.close()
            except IllegalEventError as error:
                self.illegal.append(str(error))
            stream.end()
        self._changed.set()

    def _signer(self, stream: H2ServerStream) -> EventSigner | None:
        if self._credentials is None:
            return None
        authorization = stream.fields["authorization"]
        region = authorization.split("/")[2]
        return EventSigner(
            seed_of(authorization),
            credentials=self._credentials,
            region=region,
            service="bedrock",
        )

    async def _heard(self, connection: SonicConnection, frame: bytes) -> bool:
        (inner,) = EventStreamDecoder().feed(frame)
        whole: Any = json.loads(base64.b64decode(json.loads(inner.payload)["bytes"]))
        try:
            connection.grammar.check(whole)
        except IllegalEventError as error:
            self.illegal.append(str(error))
            await connection.fail("validationException", _INVALID)
            return False
        ((kind, fields),) = cast("dict[str, Any]", whole["event"]).items()
        if kind == "audioInput":
            connection.heard_at = asyncio.get_running_loop().time()
        else:
            connection.events.append(whole["event"])
        dealt = False if self.on_event is None else self.on_event(connection, kind, fields)
        if not isinstance(dealt, bool):
            dealt = await dealt
        if not dealt:
            await connection.handle(kind, fields)
        self._changed.set()
        return True

    async def _watch(self, connection: SonicConnection) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            now = loop.time()
            if self.cap is not None and now - began >= self.cap:
                await connection.fail("modelTimeoutException", "The session has lasted too long.")
                return
            if self.idle is not None and now - connection.heard_at >= self.idle:
                text = "Timed out waiting for input events."
                await connection.fail("validationException", text)
                return
            rest = [began + self.cap - now] if self.cap is not None else []
            rest += [connection.heard_at + self.idle - now] if self.idle is not None else []
            await asyncio.sleep(max(0.001, min(rest)))
