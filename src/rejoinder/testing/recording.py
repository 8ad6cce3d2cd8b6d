"""Recordings of HTTP exchanges: one JSON file each, with timing and without secrets.

The rule of this module: secrets are removed before an `Exchange` is created, so they can never be
written or printed. Lengths are kept, because a recording includes the sizes of the network reads. The
format is that of this package's recorded test traffic, plus ``chunk_times``. Fields that a file lacks
are unknown.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import struct
import time
import urllib.parse
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, cast
from zlib import crc32

from rejoinder._options import checked
from rejoinder._secrets import MIN_SECRET, credentials, is_secret_name
from rejoinder.errors import APIError
from rejoinder.testing import _files
from rejoinder.transport.http import HttpResponse, HttpTransport, Request, ResponseAround

__all__ = [
    "Cleaner",
    "Exchange",
    "RecordedError",
    "RecordingTransport",
    "load_exchange",
    "load_exchanges",
    "record",
    "save_exchange",
    "zip_exchanges",
]

_REMOVED: Final = "[removed]"
_REQUEST_FIELDS: Final = frozenset(
    {"accept", "accept-encoding", "content-length", "content-type", "user-agent"}
)
_REQUEST_PREFIXES: Final = ("anthropic-version", "anthropic-beta", "openai-beta", "x-stainless-")
_RESPONSE_FIELDS: Final = frozenset(
    {"content-type", "date", "location", "request-id", "retry-after", "retry-after-ms", "server"}
)
_RESPONSE_PREFIXES: Final = (
    "anthropic-ratelimit-",
    "apim-request-id",
    "x-amzn-",
    "x-ms-",
    "x-ratelimit-",
    "x-request-id",
    "x-should-retry",
)
_QUERY_NAMES: Final = frozenset({"alt", "api-version", "beta", "model"})
_KNOWN_SECRETS: Final = re.compile(
    rb"sk-[A-Za-z0-9_\-]{16,}"  # OpenAI, Anthropic, OpenRouter, DeepSeek
    rb"|(?:gsk|xai|hf|pplx|r8|fw|csk|nvapi|ghp|gho|github_pat)[_-][A-Za-z0-9_\-]{16,}"
    rb"|AIza[A-Za-z0-9_\-]{30,}|ya29\.[A-Za-z0-9_\-.]{16,}"  # Google
    rb"|(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}|ABSK[A-Za-z0-9+/=]{32,}"  # AWS
    rb"|eyJ[A-Za-z0-9_\-]{10,}\.[A-Za-z0-9_\-]{10,}\.[A-Za-z0-9_\-]{10,}"  # a signed token
    rb"|(?i:bearer)(?:\s|%20)+[A-Za-z0-9_\-.=+/]{16,}"
)
_U32: Final = struct.Struct("!I")


@dataclass(frozen=True, slots=True)
class RecordedError:
    """How an exchange failed: the class of the error, its text, and seconds since the request."""

    type: str
    message: str
    at: float


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and its response as they were on the wire, decompressed and without secrets.

    `chunk_sizes` and `chunk_times` describe the arrival of the body: the bytes of each read, and the
    seconds from the request to it. Both are empty if unknown. `status` is ``None`` if there was no
    response.
    """

    id: str = ""
    provider: str = ""
    api: str = ""
    model: str | None = None
    kind: str = ""
    tags: tuple[str, ...] = ()
    method: str = "POST"
    url: str | None = None
    request_headers: Mapping[str, str] = field(default_factory=dict[str, str])
    request_body: Any = None
    """A JSON value if the body is JSON, else text; ``None`` if it was not recorded."""
    status: int | None = 200
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""
    head_at: float = 0.0
    chunk_sizes: tuple[int, ...] = ()
    chunk_times: tuple[float, ...] = ()
    error: RecordedError | None = None

    def to_json(self) -> dict[str, Any]:
        """The content of the file of this exchange."""
        response: dict[str, Any] = {"status": self.status, "headers": dict(self.headers)}
        try:
            response["body"] = self.body.decode()
        except UnicodeDecodeError:
            response["body_b64"] = base64.b64encode(self.body).decode()
        response["head_at"] = self.head_at
        response["chunk_sizes"] = list(self.chunk_sizes)
        response["chunk_times"] = list(self.chunk_times)
        data: dict[str, Any] = {
            "id": self.id,
            "provider": self.provider,
            "api": self.api,
            "model": self.model,
            "kind": self.kind,
            "tags": list(self.tags),
            "request": {
                "method": self.method,
                "url": self.url,
                "headers": dict(self.request_headers),
                "body": self.request_body,
            },
            "response": response,
        }
        if self.error is not None:
            error = self.error
            data["error"] = {"type": error.type, "message": error.message, "at": error.at}
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Raises:
        ValueError: `data` is not a recording of an HTTP exchange.
        """
        try:
            response: dict[str, Any] = data["response"]
            request: dict[str, Any] = data.get("request") or {}
            headers: dict[str, str] = response.get("headers") or {}
            error: dict[str, Any] | None = data.get("error")
            if response.get("body_b64") is not None:
                body = base64.b64decode(response["body_b64"])
            else:
                body = (response.get("body") or "").encode("utf-8", "surrogatepass")
            return cls(
                id=data.get("id") or "",
                provider=data.get("provider") or "",
                api=data.get("api") or "",
                model=data.get("model"),
                kind=data.get("kind") or "",
                tags=tuple(data.get("tags") or ()),
                method=request.get("method") or "POST",
                url=request.get("url"),
                request_headers=request.get("headers") or {},
                request_body=request.get("body"),
                status=response.get("status"),
                headers={name.lower(): value for name, value in headers.items()},
                body=body,
                head_at=response.get("head_at") or 0.0,
                chunk_sizes=tuple(response.get("chunk_sizes") or ()),
                chunk_times=tuple(response.get("chunk_times") or ()),
                error=None
                if error is None
                else RecordedError(error["type"], error["message"], error["at"]),
            )
        except (KeyError, TypeError, AttributeError) as problem:
            raise ValueError(f"not the recording of an HTTP exchange: {problem!r}") from problem

    @property
    def pieces(self) -> list[bytes]:
        """The body, cut into the reads in which it arrived; in one piece if they are unknown."""
        pieces: list[bytes] = []
        position = 0
        for size in self.chunk_sizes:
            pieces.append(self.body[position : position + size])
            position += size
        pieces.append(self.body[position:])
        return [piece for piece in pieces if piece]


def load_exchange(path: str | Path) -> Exchange:
    """Read one file.

    Raises:
        ValueError: it is not a recording of an HTTP exchange.
    """
    return _files.load(Exchange, path)


def load_exchanges(path: str | Path) -> list[Exchange]:
    """Read a file, or all ``*.json`` of a folder in the order of their names, without subfolders."""
    return _files.load_all(Exchange, path)


def save_exchange(exchange: Exchange, path: str | Path) -> None:
    """Write one file, and create its folder if needed."""
    _files.save(exchange, path)


@checked()
def zip_exchanges(exchanges: Sequence[Exchange]) -> bytes:
    """A ZIP of `exchanges`, numbered in their order. `replay` and `load_exchanges` read it from a file."""
    return _files.zipped(exchanges)


class RecordingTransport:
    """Sends through another transport, and writes each exchange into a folder or a ZIP.

    A file is written when the response was read, was closed, or failed. These are replaced by ``X``:
    header values, except those of a few harmless fields; values in a URL's query; every copy of such
    a credential anywhere else, bodies included; and everything that looks like a key of a known
    provider.

    Args:
        inner: the transport that sends the requests; closed by `aclose`.
        path: the folder, or a ZIP (a name that ends in ``.zip``), which is overwritten. Files are
            numbered from 1.
        secrets: further strings that must not be written, e.g. a customer's name.
        clock: returns seconds, for the timing.
    """

    @checked()
    def __init__(
        self,
        inner: HttpTransport,
        path: str | Path,
        *,
        secrets: Iterable[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._inner = inner
        self._series = _files.Series(path)
        self._secrets = tuple(secrets)
        self._clock = clock
        self._count = 0
        self._writing: set[asyncio.Task[None]] = set()

    async def send(self, request: Request) -> HttpResponse:
        recorder = _Recorder(self, request, self._clock())
        try:
            response = await self._inner.send(request)
        except APIError as error:
            recorder.failed(error)
            await self._write(recorder)
            raise
        recorder.head_at = recorder.elapsed()
        return _RecordedResponse(response, recorder)

    async def prewarm(self, url: str, *, timeout: float = 10.0) -> None:
        await self._inner.prewarm(url, timeout=timeout)

    async def aclose(self) -> None:
        if self._writing:
            await asyncio.gather(*self._writing)
        await self._inner.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _write(self, recorder: _Recorder) -> None:
        self._count += 1
        number = self._count
        exchange = recorder.exchange(f"{number:04}")
        # In a thread, and to the end even if the caller is cancelled: half a file is useless.
        task = asyncio.ensure_future(asyncio.to_thread(self._series.save, number, exchange))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)
        await asyncio.shield(task)


@checked()
def record(
    path: str | Path, *, secrets: Iterable[str] = (), inner: HttpTransport | None = None
) -> RecordingTransport:
    """A transport that sends requests to the provider and records every exchange in the folder or ZIP
    `path`. Use it with ``async with``, and pass it as ``transport`` to an `LLM`.

    Args:
        path: the folder, or a ZIP (a name that ends in ``.zip``), which is overwritten. Files are
            numbered from 1.
        secrets: further strings that must not be written, e.g. a customer's name.
        inner: the transport that sends the requests; by default a new one.
    """
    if inner is None:
        from rejoinder.transport._aiohttp import AiohttpTransport

        inner = AiohttpTransport()
    return RecordingTransport(inner, path, secrets=secrets)


class _Recorder:
    """An unfinished exchange. It holds secrets, so it is never written itself."""

    def __init__(self, owner: RecordingTransport, request: Request, started_at: float) -> None:
        self.owner = owner
        self.request = request
        self.started_at = started_at
        self.head_at = 0.0
        self.status: int | None = None
        self.headers: Mapping[str, str] = {}
        self.pieces: list[bytes] = []
        self.times: list[float] = []
        self.error: RecordedError | None = None
        self.written = False

    def elapsed(self) -> float:
        return round(self.owner._clock() - self.started_at, 6)

    def failed(self, error: APIError) -> None:
        self.error = RecordedError(type(error).__name__, error.message, self.elapsed())

    async def finish(self) -> None:
        if not self.written:
            self.written = True
            await self.owner._write(self)

    def exchange(self, name: str) -> Exchange:
        request = self.request
        cleaner = Cleaner(request, self.headers, self.owner._secrets)
        error = self.error
        return Exchange(
            id=name,
            kind="error" if (self.status or 0) >= 400 else "",
            method=request.method,
            url=cleaner.url(request.url),
            request_headers=cleaner.fields(request.headers, _REQUEST_FIELDS, _REQUEST_PREFIXES),
            request_body=cleaner.request_body(request),
            status=self.status,
            headers=cleaner.fields(self.headers, _RESPONSE_FIELDS, _RESPONSE_PREFIXES),
            body=cleaner.bytes(b"".join(self.pieces)),
            head_at=self.head_at,
            chunk_sizes=tuple(len(piece) for piece in self.pieces),
            chunk_times=tuple(self.times),
            error=None
            if error is None
            else RecordedError(error.type, cleaner.text(error.message), error.at),
        )


def recorded_body(request: Request) -> Any:
    """The body of `request` as a recording holds it, without secrets."""
    return Cleaner(request, {}, ()).request_body(request)


class _RecordedResponse(ResponseAround):
    """Passes the body on, and records it."""

    def __init__(self, inner: HttpResponse, recorder: _Recorder) -> None:
        super().__init__(inner)
        self._recorder = recorder
        recorder.status = inner.status
        recorder.headers = inner.headers

    async def read_some(self) -> bytes:
        recorder = self._recorder
        try:
            data = await super().read_some()
        except APIError as error:
            recorder.failed(error)
            raise
        if data:
            recorder.pieces.append(data)
            recorder.times.append(recorder.elapsed())
        return data

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await super().__aexit__(exc_type, exc, traceback)
        finally:
            await self._recorder.finish()


class Cleaner:
    """Removes the secrets of a request and its response from any value."""

    def __init__(self, request: Request, answer: Mapping[str, str], secrets: Sequence[str]) -> None:
        found = {*secrets, *request.secrets().reveal()}
        for name, value in answer.items():
            if is_secret_name(name) and not name.lower().startswith("x-ratelimit"):
                found |= credentials(value)
        # Every other parameter of the URL may be a secret.
        for name, value in urllib.parse.parse_qsl(urllib.parse.urlsplit(request.url).query):
            if name not in _QUERY_NAMES:
                found.add(value)
        forms: set[bytes] = set()
        for text in found:
            if len(text) >= MIN_SECRET:
                forms.add(text.encode())
                forms.add(urllib.parse.quote(text, safe="").encode())
                forms.add(json.dumps(text)[1:-1].encode())
        self._forms = sorted(forms, key=len, reverse=True)

    def bytes(self, data: bytes) -> bytes:
        clean = data
        for form in self._forms:
            if form in clean:
                clean = clean.replace(form, b"X" * len(form))
        clean = _KNOWN_SECRETS.sub(lambda match: b"X" * len(match[0]), clean)
        return clean if clean == data else _with_checksums(clean, data)

    def request_body(self, request: Request) -> Any:
        """The body as a recording holds it: a JSON value if it is JSON, else text."""
        if request.body is None:
            return None
        text = self.bytes(request.body).decode("utf-8", "replace")
        try:
            return json.loads(text)
        except ValueError:
            return text

    def text(self, text: str) -> str:
        return self.bytes(text.encode("utf-8", "replace")).decode("utf-8", "replace")

    def fields(
        self, headers: Mapping[str, str], names: frozenset[str], prefixes: tuple[str, ...]
    ) -> dict[str, str]:
        kept: dict[str, str] = {}
        for name, value in headers.items():
            name = name.lower()
            known = name in names or name.startswith(prefixes)
            kept[name] = self.text(value) if known else _REMOVED
        return kept

    def url(self, url: str) -> str:
        parts = urllib.parse.urlsplit(url)
        query = [
            (name, value if name in _QUERY_NAMES else _REMOVED)
            for name, value in urllib.parse.parse_qsl(parts.query, keep_blank_values=True)
        ]
        place = parts.netloc.rpartition("@")[2]
        encoded = urllib.parse.urlencode(query, safe="[]")
        return self.text(urllib.parse.urlunsplit((parts.scheme, place, parts.path, encoded, "")))


def _with_checksums(data: bytes, original: bytes) -> bytes:
    """Recompute the checksums if `original` consists of AWS event-stream frames."""
    frames: list[tuple[int, int]] = []
    position = 0
    while position + 16 <= len(original):
        total = cast("int", _U32.unpack_from(original, position)[0])
        prelude = original[position : position + 8]
        if total < 16 or crc32(prelude) != _U32.unpack_from(original, position + 8)[0]:
            return data
        if position + total > len(original):
            break  # the last frame was cut, so it has no checksum
        frames.append((position, total))
        position += total
    fixed = bytearray(data)
    for start, total in frames:
        end = start + total - 4
        fixed[end : end + 4] = _U32.pack(crc32(fixed[start:end]))
    return bytes(fixed)
