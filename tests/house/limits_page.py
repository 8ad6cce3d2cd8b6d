"""The tables of docs/limits.md, with each value read from the code.

PYTHONPATH=src:tests python -m house.limits_page    # writes them
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

PAGE = Path(__file__).parents[2] / "docs" / "limits.md"
Unit = Literal["s", "bytes", "", "characters"]


class Limit(NamedTuple):
    """A row. `where` is ``module:parameter of a call`` or ``module:constant``."""

    what: str
    where: str
    unit: Unit
    passed: str
    """What happens at the limit."""
    change: str = ""
    """How to change it; the parameter itself by default, and nothing for a constant."""


def seconds(what: str, where: str, passed: str, change: str = "") -> Limit:
    return Limit(what, where, "s", passed, change)


TABLES: dict[str, list[Limit]] = {
    "a request to a model": [
        seconds(
            "connect, first output, time between two outputs: each",
            "rejoinder.types:APIConnectOptions.timeout",
            "`APITimeoutError`, which is retried while nothing has reached your program",
            "`timeout`, or `connect`, `first_output`, `between_outputs`",
        ),
        seconds(
            "the whole reply, with retries and pauses",
            "rejoinder.types:APIConnectOptions.total",
            "`APITimeoutError`",
        ),
        Limit(
            "retries",
            "rejoinder.types:APIConnectOptions.max_retry",
            "",
            "the last error is raised",
        ),
        seconds(
            "pause before the second and later retries",
            "rejoinder.types:APIConnectOptions.retry_interval",
            "the request is sent again; `Retry-After` of the provider takes precedence",
        ),
        seconds(
            "pause before the first retry",
            "rejoinder.types:_FIRST_RETRY_INTERVAL",
            "the request is sent again",
        ),
        seconds(
            "a paused stream that is not read",
            "rejoinder.llm.llm:_FORGOTTEN",
            "the reply is abandoned",
        ),
        seconds(
            "`aclose` of a stream that does not end",
            "rejoinder.llm.llm:_CLOSE_TIMEOUT",
            "it returns, and the attempt is left to end by itself",
        ),
        Limit(
            "unread chunks",
            "rejoinder._aio:Chan.high",
            "",
            "reading pauses, and the deadlines with it",
        ),
        seconds(
            "the usage, after a whole answer",
            "rejoinder.providers.answering.stream:_GRACE",
            "the reply ends without usage",
        ),
        Limit(
            "pauses of one reply (`pause_turn`)",
            "rejoinder.providers.answering.stream:_MAX_PAUSES",
            "",
            "it is not continued again",
        ),
        seconds(
            "an idle connection",
            "rejoinder.transport._aiohttp:_KEEP_ALIVE",
            "it is closed",
        ),
        Limit(
            "redirects",
            "rejoinder.transport._aiohttp:_MAX_REDIRECTS",
            "",
            "`APIStatusError`",
        ),
    ],
    "the size of a reply": [
        Limit(
            "one event",
            "rejoinder.providers.answering.chunks:EVENT_LIMIT",
            "bytes",
            "`WireError`",
        ),
        Limit(
            "text and thinking",
            "rejoinder.providers.answering.chunks:TEXT_LIMIT",
            "characters",
            "`WireError`",
        ),
        Limit(
            "arguments of calls, thinking, refusals and provider state",
            "rejoinder.providers.answering.chunks:KEPT_LIMIT",
            "bytes",
            "`WireError`",
        ),
        Limit(
            "calls, parts or items",
            "rejoinder.providers.answering.chunks:MAX_ENTRIES",
            "",
            "`WireError`",
        ),
        Limit(
            "values in the JSON of one event",
            "rejoinder.providers.answering.chunks:MAX_VALUES",
            "",
            "`WireError`",
        ),
        Limit(
            "the body of an error",
            "rejoinder.providers.answering.stream:_ERROR_BODY_LIMIT",
            "bytes",
            "the rest is not read",
        ),
        Limit(
            "tokens of a reply of Claude, if you set no limit",
            "rejoinder.providers.anthropic.options:DEFAULT_MAX_TOKENS",
            "",
            "the reply ends with `length`",
            "`max_tokens` of `anthropic.LLM`",
        ),
        Limit(
            "tokens of a reply of the embedded model",
            "rejoinder.providers.local.llm:_MAX_TOKENS",
            "",
            "the reply ends with `length`",
            "`max_tokens` of `local.LLM`",
        ),
    ],
    "a turn and its tools": [
        Limit(
            "replies with calls",
            "rejoinder.turn:run_turn.max_steps",
            "",
            "the model has to answer without tools; `Done.reason` is `max_steps`",
        ),
        Limit(
            "calls that give the same output",
            "rejoinder.turn:run_turn.max_repeats",
            "",
            "the call is not run again, and the model receives the reason",
        ),
        Limit(
            "values in the arguments of a call, or in a typed answer",
            "rejoinder._core.json_values:MAX_VALUES",
            "",
            "the model is asked for fewer",
        ),
        Limit(
            "typed answers that do not match",
            "rejoinder.turn:run_turn.max_output_retries",
            "",
            "`OutputMismatchError`",
        ),
        Limit(
            "tools that run at once",
            "rejoinder.turn:run_turn.max_concurrency",
            "",
            "further calls wait",
        ),
        seconds(
            "one tool",
            "rejoinder.turn:run_turn.tool_timeout",
            "it is cancelled, and its output warns of a possible effect",
            "`tool_timeout`, or `timeout` of `function_tool`",
        ),
        seconds(
            "a cancelled tool that does not end",
            "rejoinder.llm._execution:_STOP_TIMEOUT",
            "the turn continues without waiting for the tool",
        ),
        seconds(
            "`Turn.aclose`, for tools that do not end",
            "rejoinder.llm._tool_runs:CLOSE_TIMEOUT",
            "it returns",
        ),
        Limit(
            "schemas inside the schema of a tool",
            "rejoinder._core.json_schema:MAX_SCHEMAS",
            "",
            "the rest accepts anything",
        ),
        Limit(
            "levels of the schema of a tool",
            "rejoinder._core.json_schema:MAX_DEPTH",
            "",
            "the rest accepts anything",
        ),
        Limit(
            "values in enums of the schema of a tool",
            "rejoinder._core.json_schema:MAX_VALUES",
            "",
            "the rest is dropped",
        ),
    ],
    "fallback": [
        seconds(
            "the first text or call of each model",
            "rejoinder.llm:FallbackAdapter.attempt_timeout",
            "the next model is asked",
        ),
        Limit(
            "retries of each model",
            "rejoinder.llm:FallbackAdapter.max_retry_per_llm",
            "",
            "the next model is asked",
        ),
        seconds(
            "pause before a retry of a model",
            "rejoinder.llm:FallbackAdapter.retry_interval",
            "it is asked again",
        ),
        seconds(
            "the first token of any model",
            "rejoinder.llm:TurnBudget.first_token_by",
            "the turn fails",
        ),
        seconds(
            "the time between two outputs of the answering model",
            "rejoinder.llm:TurnBudget.next_token_within",
            "the reply counts as cut; `on_cut` decides. By default the limit is `attempt_timeout`",
        ),
        seconds("the whole reply", "rejoinder.llm:TurnBudget.done_by", "the turn fails"),
        Limit(
            "tokens that are not heard, or heard twice",
            "rejoinder.llm:TurnBudget.max_extra_tokens",
            "",
            "no hedge, restart or resume begins",
        ),
        Limit(
            "share of the turns that are hedged",
            "rejoinder.llm:Hedge.max_share",
            "",
            "no hedge begins",
        ),
        seconds(
            "the shortest learned delay of a hedge",
            "rejoinder.llm:Hedge.min_delay",
            "the next model is asked as well",
        ),
        seconds(
            "the first cooldown",
            "rejoinder._core.breaker:BreakerOptions.cooldown",
            "the model is probed",
            "`breaker=BreakerOptions(...)`",
        ),
        seconds(
            "the longest cooldown",
            "rejoinder._core.breaker:BreakerOptions.max_cooldown",
            "the model is probed",
            "`breaker=BreakerOptions(...)`",
        ),
        seconds(
            "the longest cooldown that a provider asks for",
            "rejoinder._core.breaker:_LONGEST_REST",
            "the model is probed",
        ),
        seconds(
            "a probe",
            "rejoinder._core.breaker:BreakerOptions.probe_timeout",
            "the model rests again",
            "`breaker=BreakerOptions(...)`",
        ),
    ],
    "conversations on disk": [
        seconds(
            "another process that holds the file",
            "rejoinder.store:SqliteStore.patience",
            "`StoreError`",
        ),
        seconds(
            "text of a reply that a crash may lose",
            "rejoinder.conversation:_TEXT_EVERY",
            "it is written",
        ),
        seconds(
            "a turn on another host that writes nothing",
            "rejoinder.conversation:_FORGOTTEN",
            "it no longer counts as running",
        ),
    ],
    "MCP servers": [
        seconds(
            "the answer to a question",
            "rejoinder.llm.mcp:MCPServerHTTP.client_session_timeout_seconds",
            "the call fails, and the model receives the error",
        ),
        seconds(
            "connecting to a server over HTTP",
            "rejoinder.llm.mcp:MCPServerHTTP.timeout",
            "the connection is tried again",
        ),
        seconds(
            "silence of a stream of events",
            "rejoinder.llm.mcp:MCPServerHTTP.sse_read_timeout",
            "the connection is made again",
        ),
        seconds(
            "a limit of 0 or `None`",
            "rejoinder.llm._mcp_server:_NO_DEADLINE",
            "the server counts as dead",
        ),
        seconds(
            "the longest pause before a new connection",
            "rejoinder.mcp.supervisor:_LONGEST_REST",
            "it is made",
        ),
        Limit(
            "connections in a row that fail",
            "rejoinder.mcp.supervisor:_RESTARTS",
            "",
            "from then on only a call makes a connection",
        ),
    ],
    "realtime sessions": [
        seconds(
            "silence before the beginning of a reply",
            "rejoinder.providers.openai.realtime:RealtimeModel.reply_timeout",
            "`RealtimeError` (`timeout`)",
        ),
        seconds(
            "silence of the service",
            "rejoinder.providers.openai.realtime:RealtimeModel.silence_timeout",
            "the connection is replaced, and the reply has failed",
        ),
        seconds(
            "confirmation of a change",
            "rejoinder.providers.sessions.options:SessionOptions.update_timeout",
            "`RealtimeError`",
        ),
        seconds(
            "confirmation of the history of a new connection",
            "rejoinder.providers.sessions.connections:_FURNISH_TIMEOUT",
            "the connection is replaced",
        ),
        seconds(
            "the end of a cancelled reply",
            "rejoinder._core.realtime.replies:_STOP_TIMEOUT",
            "the next reply is requested",
        ),
        seconds(
            "the end of a turn, for a replacement because of age",
            "rejoinder.providers.sessions.connections:_FORCE_AFTER",
            "the connection is replaced",
        ),
        Limit(
            "share of `reply_timeout` that a request waits for a replacement to find a pause",
            "rejoinder._core.realtime.replies:_SWAP_PATIENCE",
            "",
            "the connection is replaced at once",
        ),
        seconds(
            "speech whose sound has stopped without an end (a muted microphone)",
            "rejoinder.providers.sessions.uplink:_UNREPORTED_TIMEOUT",
            "it counts as over, and holds no replacement",
        ),
        seconds(
            "age of a connection to OpenAI",
            "rejoinder.providers.openai.realtime:_MAX_DURATION",
            "it is replaced between two turns",
            "`max_session_duration`",
        ),
        seconds(
            "silence before the beginning of a reply of Nova Sonic",
            "rejoinder.providers.aws.realtime:RealtimeModel.generate_reply_timeout",
            "`RealtimeError` (`timeout`)",
        ),
        seconds(
            "age of a connection to Nova Sonic",
            "rejoinder.providers.aws.realtime:_MAX_DURATION",
            "it is replaced between two turns",
        ),
        seconds(
            "the user's sound that is kept while there is no connection",
            "rejoinder.providers.sessions.options:SessionOptions.kept_sound",
            "the oldest sound is dropped",
        ),
        seconds(
            "a realtime model of a fallback that does not connect",
            "rejoinder.llm:RealtimeModelFallbackAdapter.attempt_timeout",
            "the next one is used",
        ),
        seconds(
            "running tools, for a change of models that is not urgent",
            "rejoinder.llm._realtime_fallback_session:_PATIENCE",
            "the model is changed",
        ),
        Limit(
            "one frame",
            "rejoinder.transport.ws:SocketRequest.max_frame",
            "bytes",
            "the connection ends, and the next one is opened",
            "fixed",
        ),
        Limit(
            "values in the JSON of one frame",
            "rejoinder._core.json_values:MAX_VALUES",
            "",
            "the frame is skipped, and an `error` event reports it",
        ),
        Limit(
            "one frame whose JSON does not follow the standard",
            "rejoinder._core.realtime.frames:TOLERATED",
            "bytes",
            "it is not read",
        ),
        Limit(
            "sound and text of one reply that wait to be read",
            "rejoinder.providers.sessions.streams:_MAX_UNREAD",
            "bytes",
            "the connection ends, and the next one is opened",
        ),
        Limit(
            "the text of one reply",
            "rejoinder.providers.sessions.streams:_MAX_TEXT",
            "characters",
            "the connection ends, and the next one is opened",
        ),
        Limit(
            "messages of one reply",
            "rejoinder.providers.sessions.streams:_MAX_MESSAGES",
            "",
            "the connection ends, and the next one is opened",
        ),
        Limit(
            "items of a conversation",
            "rejoinder.providers.sessions.conversation:MAX_ITEMS",
            "",
            "the session ends with an `error` event that is not recoverable",
        ),
        Limit(
            "beginnings of replies and of speech within ten seconds",
            "rejoinder.providers.sessions.link:_MOST_TURNS",
            "",
            "the connection ends; the session too, if the next ones do the same",
        ),
        Limit(
            "frames without sound and text within ten seconds",
            "rejoinder.providers.sessions.link:_MOST_FRAMES",
            "",
            "the connection ends; the session too, if the next ones do the same",
        ),
        Limit(
            "pings, pongs and other control frames within ten seconds",
            "rejoinder.transport.flood:MOST_SIGNS",
            "",
            "the connection ends; the session too, if the next ones do the same",
        ),
        Limit(
            "connections in a row whose end the service announces as they begin",
            "rejoinder.providers.sessions.connections:_MOST_LEAVING",
            "",
            "an `error` event reports it, and the next one is used until it ends",
        ),
        Limit(
            "one piece of sound of the Live API, in base64",
            "rejoinder.providers.openai.live_wire:_MOST_SOUND",
            "characters",
            "it is not played, and an `error` event reports it",
        ),
        Limit(
            "header fields of an answer over HTTP/2",
            "rejoinder.transport._h2:_MAX_FIELDS",
            "bytes",
            "the connection ends, and the next one is opened",
        ),
    ],
    "the command line and the page": [
        seconds(
            "silence of a provider in `rejoinder chat` (a local model: no limit before its first word)",
            "rejoinder.cli.session:SILENCE",
            "the reply fails",
            "`--timeout`",
        ),
        seconds(
            "a tool of `rejoinder chat`",
            "rejoinder.cli.chat:_TOOL_TIMEOUT",
            "it is cancelled",
            "`--tool-timeout`",
        ),
        Limit(
            "a request to the page",
            "rejoinder.web.guard:LARGEST_BODY",
            "bytes",
            "status 413",
        ),
        seconds(
            "connecting to the hub of models",
            "rejoinder.providers.local.sources:_CONNECT",
            "the next source is tried",
        ),
    ],
}

INSIDE = {
    # These bound how long our own steps take, and are never met by a program.
    "rejoinder.cli.chat._CLOSE_TIMEOUT",
    "rejoinder.cli.commands._PATIENCE",
    "rejoinder.cli.loop._PATIENCE",
    "rejoinder.cli.web._CLOSE_TIMEOUT",
    "rejoinder.providers.sessions.link._FAREWELL_TIMEOUT",
    "rejoinder.transport._aiohttp_ws._CLOSE_TIMEOUT",
    "rejoinder.transport._h2._CLOSE_TIMEOUT",
    "rejoinder.providers.local.wire._PATIENCE",  # characters, not seconds
}


def value(where: str) -> Any:
    """What a limit is now."""
    module, _, path = where.partition(":")
    thing = importlib.import_module(module)
    name, _, parameter = path.partition(".")
    thing = getattr(thing, name)
    return inspect.signature(thing).parameters[parameter].default if parameter else thing


def shown(limit: Limit) -> str:
    number = value(limit.where)
    if number is None or not isinstance(number, int | float):
        return "none"
    if limit.unit == "bytes":
        for size, name in ((1 << 20, "MiB"), (1 << 10, "kiB")):
            if number >= size:
                return f"{number / size:g} {name}"
        return f"{number} bytes"
    if limit.unit == "s":
        for size, name in ((3600, "h"), (60, "min")):
            if number >= 2 * size or number == size == 3600:
                return f"{number / size:g} {name}"
        return f"{number:g} s"
    text = f"{number:,}" if isinstance(number, int) else f"{number:g}"
    return f"{text} {limit.unit}".rstrip()


def changed_by(limit: Limit) -> str:
    if limit.change:
        return limit.change
    name, _, parameter = limit.where.partition(":")[2].partition(".")
    if not parameter or name in {"Chan", "SessionOptions"}:
        return "fixed"
    return f"`{name}({parameter}=...)`"


def tables() -> Iterator[str]:
    for section, limits in TABLES.items():
        yield f"## {section[0].upper()}{section[1:]}\n"
        yield "| limit | default | at the limit | to change it |"
        yield "| --- | --- | --- | --- |"
        for limit in limits:
            cells = (limit.what, shown(limit), limit.passed, changed_by(limit))
            yield f"| {' | '.join(cells)} |"
        yield ""


def page(text: str) -> str:
    """The page with today's tables."""
    start, end = "<!-- limits: made by tests/house/limits_page.py -->", "<!-- end of limits -->"
    body = start + "\n\n" + "\n".join(tables()) + "\n" + end
    return re.sub(f"{re.escape(start)}.*{re.escape(end)}", lambda _: body, text, flags=re.DOTALL)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text("utf-8")), "utf-8")
