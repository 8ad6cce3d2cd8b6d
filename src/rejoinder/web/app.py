"""The routes of the server."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from rejoinder.errors import APIError, ConfigurationError
from rejoinder.llm._tool_runs import waiting_calls
from rejoinder.llm.tool_context import ToolContext
from rejoinder.store import Store, StoreError
from rejoinder.testing.recording import zip_exchanges
from rejoinder.types import APIConnectOptions
from rejoinder.web.agui import InputError, RunInput, messages_of, read_input, sse
from rejoinder.web.guard import POLICY, App, Guard, TooLargeError
from rejoinder.web.runs import Run, Thread, Threads
from rejoinder.web.team import PolicyChoice, SettingError, Team
from rejoinder.web.timeline import reason_of
from rejoinder.web.whatif import compare, seen_in

__all__ = ["make_app"]

_STATIC: Final = Path(__file__).with_name("static")
_MANY: Final = 100
_NOTICED: Final = 0.02
"""Seconds of loading a model that are part of a timeline."""


def make_app(
    team: Team,
    *,
    store: Store,
    token: str,
    hosts: frozenset[str],
    tools: Sequence[Any] = (),
    system: str = "",
    tool_timeout: float = 60.0,
    approve: bool = False,
    conn_options: APIConnectOptions,
    kept: bool = False,
    explain: Callable[[BaseException], str] = reason_of,
) -> App:
    """The ASGI application of the page.

    Args:
        team: the models.
        store: the store of conversations.
        token: the secret that requests must carry.
        hosts: the server's own names, with the port.
        tools: the tools that the models may call.
        system: instructions for conversations without any.
        tool_timeout: seconds a tool may run.
        approve: ask before each tool that may change something.
        conn_options: retries and deadlines of each request.
        kept: whether `store` outlives the server; shown on the page.
        explain: returns one sentence about the reason why a run failed.
    """
    server = _Server(team, Threads(store), tools, system, tool_timeout, approve, conn_options, kept,
                     explain)  # fmt: skip
    routes = [
        Route("/", _page),
        Route("/api/run", server.run, methods=["POST"]),
        Route("/api/stop", server.stop, methods=["POST"]),
        Route("/api/overview", server.overview, methods=["GET"]),
        Route("/api/settings", server.settings, methods=["GET"]),
        Route("/api/settings", server.change_settings, methods=["PUT"]),
        Route("/api/conversations", server.conversations, methods=["GET"]),
        # An id of a client may hold a slash. The routes that end in a word come first.
        Route("/api/conversations/{id:path}/rewind", server.rewind, methods=["POST"]),
        Route("/api/conversations/{id:path}/copy", server.copy, methods=["POST"]),
        Route("/api/conversations/{id:path}/export", server.export, methods=["GET"]),
        Route("/api/conversations/{id:path}/recording", server.recording, methods=["GET"]),
        Route("/api/conversations/{id:path}", server.conversation, methods=["GET"]),
        Route("/api/conversations/{id:path}", server.remove, methods=["DELETE"]),
        Route("/api/whatif", server.what_if, methods=["POST"]),
    ]

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            await team.aclose()
            await store.aclose()

    handlers: dict[Any, Any] = {
        InputError: _told(400), SettingError: _told(400), ConfigurationError: _told(400),
        StoreError: _told(503),
        TooLargeError: _told(413),
        HTTPException: _no_such_route,
        Exception: _fault,
    }  # fmt: skip
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers=handlers)
    return Guard(cast("App", app), token=token, hosts=hosts)


class _AsciiJson(JSONResponse):
    """Answers with JSON in ASCII: a text may hold half of a surrogate pair, which UTF-8 cannot."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


def _told(status: int) -> Callable[[Request, Exception], Response]:
    def handle(_: Request, error: Exception) -> Response:
        return _AsciiJson({"error": str(error)}, status)

    return handle


def _no_such_route(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    return _AsciiJson({"error": f"{request.method} {request.url.path}: not found"}, status)


def _fault(_: Request, error: Exception) -> Response:
    return _AsciiJson({"error": f"a fault in rejoinder: {reason_of(error)}"}, 500)


def _whole_page() -> tuple[str, str]:
    """The whole page with its style and script inlined, so that a browser sends one request; and the
    content security policy that allows them."""
    style = (_STATIC / "style.css").read_text("utf-8")
    script = (_STATIC / "app.js").read_text("utf-8")
    page = (_STATIC / "index.html").read_text("utf-8")
    icon = quote((_STATIC / "icon.svg").read_text("utf-8"))
    page = page.replace('href="icon.svg"', f'href="data:image/svg+xml,{icon}"')
    page = page.replace('<link rel="stylesheet" href="style.css">', f"<style>{style}</style>")
    page = page.replace('<script src="app.js"></script>', f"<script>{script}</script>")
    return page, f"{POLICY}; style-src {_hash_of(style)}; script-src {_hash_of(script)}"


def _hash_of(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


_PAGE, _PAGE_POLICY = _whole_page()


async def _page(_: Request) -> Response:
    headers = {"content-security-policy": _PAGE_POLICY}
    return Response(_PAGE, media_type="text/html", headers=headers)


class _Server:
    def __init__(
        self,
        team: Team,
        threads: Threads,
        tools: Sequence[Any],
        system: str,
        tool_timeout: float,
        approve: bool,
        conn_options: APIConnectOptions,
        kept: bool,
        explain: Callable[[BaseException], str],
    ) -> None:
        self._team = team
        self._threads = threads
        self._tools = tools
        self._system = system
        self._tool_timeout = tool_timeout
        self._approve = approve
        self._conn_options = conn_options
        self._kept = kept
        self._explain = explain

    # -- runs ----------------------------------------------------------------------------------

    async def run(self, request: Request) -> Response:
        """An AG-UI run."""
        given = read_input(await _json(request))
        run = self._make_run(given)
        self._threads.add(run)

        async def body() -> AsyncGenerator[bytes]:
            events = run.events()
            try:
                async for event in events:
                    yield sse(event)
            finally:
                await events.aclose()

        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            await run.unless_stopped(self._team.load())
            if (took := loop.time() - began) > _NOTICED:
                run.timeline.add(0, "loaded", took=round(took, 4))
        except APIError as error:
            return _AsciiJson({"error": self._explain(error)}, 503)
        return StreamingResponse(body(), media_type="text/event-stream")

    def _make_run(self, given: RunInput) -> Run:
        return Run(
            self._threads.thread(given.thread),
            given,
            llm=self._team.llm,
            tools=self._tools,
            system=self._system,
            tool_timeout=self._tool_timeout,
            approve=self._approve,
            conn_options=self._conn_options,
            named=self._team.names[0],
            explain=self._explain,
        )

    async def stop(self, request: Request) -> Response:
        """Stop a run: its stream ends with the outcome ``cancelled``."""
        run = self._threads.run(str((await _object(request)).get("runId")))
        if run is None:
            return _missing("there is no such run")
        run.stop()
        return _AsciiJson({"stopped": run.id})

    # -- settings ------------------------------------------------------------------------------

    async def settings(self, _: Request) -> Response:
        """Models, faults, policy and tools."""
        return _AsciiJson(self._settings())

    async def change_settings(self, request: Request) -> Response:
        """Change the policy or the faults."""
        self._team.change(await _object(request))
        return _AsciiJson(self._settings())

    def _settings(self) -> dict[str, Any]:
        tools = list(ToolContext(list(self._tools)).function_tools)
        return {**self._team.facts(), "tools": tools, "kept": self._kept}

    # -- conversations -------------------------------------------------------------------------

    async def overview(self, request: Request) -> Response:
        """The data that the page needs at its beginning and after a run: the settings, the conversations,
        and the conversation named by ``?thread=``, if it exists."""
        found = await self._found(request)
        id = request.query_params.get("thread")
        facts: dict[str, Any] = {"settings": self._settings(), "conversations": found}
        if id:
            try:
                thread = self._threads.thread(id)
                await thread.settled()
                facts["thread"] = await self._shown(thread)
            except (
                StoreError,
                ConfigurationError,
            ) as error:  # the other conversations can still be used
                facts["problem"] = str(error)
        return _AsciiJson(facts)

    async def conversations(self, request: Request) -> Response:
        """The conversations, the latest first; with ``?search=`` those that hold all words."""
        return _AsciiJson(await self._found(request))

    async def _found(self, request: Request) -> list[dict[str, Any]]:
        words = request.query_params.get("search", "").strip()
        store = self._threads.store
        found = [asdict(each) for each in await store.conversations(limit=None)]
        if words:
            excerpts = {
                hit.conversation: hit.excerpt for hit in await store.search(words, limit=_MANY)
            }
            found = [each | {"excerpt": excerpts[each["id"]]} for each in found
                     if each["id"] in excerpts]  # fmt: skip
        return found[:_MANY]

    async def conversation(self, request: Request) -> Response:
        """One conversation: its messages, its runs in this process, and its branches."""
        return _AsciiJson(await self._shown(self._threads.thread(request.path_params["id"])))

    async def _shown(self, thread: Thread) -> dict[str, Any]:
        conversation = await thread.open()
        items = conversation.chat_ctx.items
        tips = [] if thread.running else await conversation.tips()
        return {
            "threadId": thread.id,
            "messages": messages_of(items),
            "runs": [run.facts() for run in self._threads.runs_of(thread.id)],
            "aliases": dict(thread.aliases),
            "tips": tips,
            "tip": items[-1].id if items else None,
            "waiting": [call.call_id for call, _ in waiting_calls(items)],
        }

    async def rewind(self, request: Request) -> Response:
        """Go to another branch, or back to a message."""
        thread, item = await self._place(request)
        conversation = await thread.open()
        try:
            await conversation.rewind(item)
        except ValueError as error:
            raise InputError(str(error)) from error
        return _AsciiJson(await self._shown(thread))

    async def copy(self, request: Request) -> Response:
        """A new conversation with the items of this one up to a message."""
        thread, item = await self._place(request)
        conversation = await thread.open()
        try:
            other = await conversation.branch(item)
        except ValueError as error:
            raise InputError(str(error)) from error
        return _AsciiJson(await self._shown(self._threads.thread(other.id)))

    async def _place(self, request: Request) -> tuple[Thread, str]:
        body = await _object(request)
        thread = self._threads.thread(request.path_params["id"])
        if thread.running is not None:
            raise InputError("the conversation has a run; stop it first")
        shown = str(body.get("item"))
        return thread, thread.aliases.get(shown, shown)

    async def remove(self, request: Request) -> Response:
        """Erase a conversation."""
        if not await self._threads.forget(request.path_params["id"]):
            return _missing("there is no such conversation")
        return _AsciiJson({"removed": request.path_params["id"]})

    async def export(self, request: Request) -> Response:
        """A conversation as JSON, which `ChatContext.from_dict` reads, with the timelines."""
        thread = self._threads.thread(request.path_params["id"])
        conversation = await thread.open()
        data: dict[str, Any] = conversation.chat_ctx.to_dict(
            exclude_image=False, exclude_audio=False, exclude_timestamp=False
        )
        data["runs"] = [run.facts() for run in self._threads.runs_of(thread.id)]
        return Response(json.dumps(data, indent=1, default=str), media_type="application/json")

    async def recording(self, request: Request) -> Response:
        """The traffic with providers, as files that `rejoinder.testing.replay` reads."""
        exchanges = [
            exchange
            for run in self._threads.runs_of(request.path_params["id"])
            for exchange in run.timeline.exchanges
        ]
        if not exchanges:
            return _missing(
                "nothing was recorded: a model on this machine has no traffic with a server"
            )
        data = await asyncio.to_thread(zip_exchanges, exchanges)
        return Response(data, media_type="application/zip")

    async def what_if(self, request: Request) -> Response:
        """A run under other policies."""
        body = await _object(request)
        run = self._threads.run(str(body.get("runId")))
        if run is None:
            return _missing("there is no such run")
        given: Any = body.get("policies", [])
        if not isinstance(given, list) or len(cast("list[Any]", given)) > _MANY:
            raise SettingError(f"policies: expected an array of at most {_MANY} policies")
        policies = [PolicyChoice.read(each) for each in cast("list[Any]", given)]
        one = seen_in([run.timeline.events])
        rest = seen_in([each.timeline.events for each in self._threads.runs])
        names = self._team.asked_as
        comparison = await asyncio.to_thread(
            compare, names, one, rest, [self._team.policy, *policies]
        )
        return _AsciiJson(comparison)


def _missing(message: str) -> Response:
    return _AsciiJson({"error": message}, 404)


async def _json(request: Request) -> Any:
    try:
        return json.loads(await request.body())
    except (ValueError, RecursionError) as error:
        raise InputError(f"the body: expected JSON, got something else: {error}") from None


async def _object(request: Request) -> dict[str, Any]:
    data = await _json(request)
    if not isinstance(data, dict):
        raise InputError(f"the body: expected an object, got {type(data).__name__}")
    return cast("dict[str, Any]", data)
