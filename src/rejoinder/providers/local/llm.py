"""A model on this machine, without key and account, and, after the first use, without network."""

from __future__ import annotations

import asyncio
import dataclasses
import math
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from rejoinder._core import jsontext
from rejoinder._core.chunks import CompletionUsage
from rejoinder._options import checked, instance
from rejoinder.errors import APIConnectionError, ConfigurationError
from rejoinder.providers.answering.decoder import ReplyDecoder
from rejoinder.providers.answering.framings import sse_events
from rejoinder.providers.answering.stream import WireStream
from rejoinder.providers.asking.ask import HttpLLM, Question, ask
from rejoinder.providers.asking.attachments import Attachment
from rejoinder.providers.asking.body import items_of
from rejoinder.providers.asking.checks import OPTION_RULES, checked_options, or_none
from rejoinder.providers.asking.fields import (
    HttpExtras,
    build_url,
    merge_headers,
    tool_choice_name,
)
from rejoinder.providers.asking.replies import reply_type
from rejoinder.providers.asking.tools import tool_specs
from rejoinder.providers.local import engine as engines
from rejoinder.providers.local.dialect import DIALECT
from rejoinder.providers.local.fetch import fetch
from rejoinder.providers.local.format import Mode, answered_calls, request_body
from rejoinder.providers.local.models import DEFAULT_MODEL, ModelFile, find_model
from rejoinder.providers.local.tools import Call, ToolSpec, slim, specs_of
from rejoinder.providers.local.wire import LocalReader, decode_error
from rejoinder.transport._aiohttp import AiohttpTransport
from rejoinder.transport.http import CLOSED, Request
from rejoinder.types import (
    DEFAULT_API_CONNECT_OPTIONS,
    NOT_GIVEN,
    APIConnectOptions,
    NotGivenOr,
    is_given,
)

if TYPE_CHECKING:
    from rejoinder.llm.chat_context import ChatContext
    from rejoinder.llm.tool_context import ToolChoice
    from rejoinder.providers.local.fetch import Report

__all__ = ["LLM", "LLMStream"]

_CONTEXT: Final = 8192
_SLOTS: Final = 2
_MAX_TOKENS: Final = 1024
_BETWEEN: Final = 60.0
"""Maximum seconds between two signs of life of the engine, enough for a busy machine."""


class LLMStream(WireStream):
    """One reply of the embedded model."""

    def __init__(self, llm: LLM, *, question: _Question, **options: Any) -> None:
        self._local = llm
        self._question = question
        super().__init__(llm, **options)

    async def _run(self) -> bool:
        """Make one attempt. Returns True if the reply has nothing to pass on, so the model is asked
        again."""
        try:
            if await super()._run():
                return True
        except APIConnectionError as error:
            self._question.next_attempt.reset()
            lease = self._local._lease
            if lease is None or await asyncio.to_thread(lease.engine.survived):
                raise
            raise APIConnectionError(
                "the embedded engine died (out of memory, or killed); the next reply restarts it",
                retryable=error.retryable,
            ) from error
        except BaseException:
            self._question.next_attempt.reset()
            raise
        reader = self._question.next_attempt.reader
        again = None if reader is None else reader.again
        if again is None:
            return False
        self._question.next_attempt.wording = _Wording(
            again.mode, again.tool, single=True, spent=again.usage
        )
        return True


_MODEL = instance(str, os.PathLike, expected="the name of a local model or the path of a file")


class LLM(HttpLLM):
    """A model that runs on this machine (llama.cpp; needs ``pip install 'rejoinder[local]'``).

    A model from `MODELS` is fetched at its first use, and loaded at the first reply or by `prewarm`;
    the engine ends with `aclose` of the last `LLM` that uses it. There is no deadline for the first
    output unless the caller sets one, because fetching, loading and reading a long prompt take time.

    Args:
        model: a name from `MODELS`, or the path of a GGUF file.
        context: maximum tokens of prompt and reply together.
        slots: maximum number of concurrent replies; further requests wait. Memory grows with
            `context` times `slots`.
        threads: cores to use. By default, all but one of the available cores read the prompt, and
            half of them write the reply, which works much better beside other busy programs.
        gpu_layers: layers to put on a GPU, if the engine was built for one.
        temperature, top_p, seed: sampling; by default the engine's, with a low temperature for
            models from `MODELS`, and the lowest for forced calls.
        max_completion_tokens: limit of a reply. Small models do not always stop by themselves.
        tool_choice, parallel_tool_calls: defaults for `chat`.
        in_process: run the engine inside this process. Loading then blocks all its threads for
            seconds.
        report: called with the `Progress` of a fetch.

    Raises:
        ConfigurationError: no such model or file, or the engine is not installed.
    """

    @checked(**OPTION_RULES | {"model": _MODEL})
    def __init__(
        self,
        *,
        model: str | os.PathLike[str] = DEFAULT_MODEL,
        context: int = _CONTEXT,
        slots: int = _SLOTS,
        threads: int | None = None,
        gpu_layers: int = 0,
        temperature: NotGivenOr[float] = NOT_GIVEN,
        top_p: NotGivenOr[float] = NOT_GIVEN,
        seed: NotGivenOr[int] = NOT_GIVEN,
        max_completion_tokens: NotGivenOr[int] = NOT_GIVEN,
        tool_choice: NotGivenOr[ToolChoice] = NOT_GIVEN,
        parallel_tool_calls: NotGivenOr[bool] = NOT_GIVEN,
        in_process: bool = False,
        report: Report | None = None,
    ) -> None:
        for name, value in (("context", context), ("slots", slots), ("threads", threads)):
            if value is not None and value < 1:
                raise ConfigurationError(f"{name}: expected at least 1, got {value}")
        engines.require_engine()
        found = find_model(model)
        super().__init__(
            model=found.name if isinstance(found, ModelFile) else found.stem,
            provider="local",
            base_url="",
            transport=AiohttpTransport(trust_env=False),
        )
        self._found = found
        writing, reading = engines.default_threads()
        self._settings = engines.EngineSettings(
            path="",
            context=context,
            slots=slots,
            threads=threads or writing,
            prompt_threads=threads or reading,
            gpu_layers=gpu_layers,
            in_process=in_process,
        )
        self._options: dict[str, Any] = {
            "max_tokens": max_completion_tokens if is_given(max_completion_tokens) else _MAX_TOKENS
        }
        for name, value in (("temperature", temperature), ("top_p", top_p), ("seed", seed)):
            if is_given(value):
                self._options[name] = value
        self._one_call = isinstance(found, ModelFile) and found.one_call
        self._temperature = found.temperature if isinstance(found, ModelFile) else None
        self._tool_choice = tool_choice
        self._parallel = parallel_tool_calls
        self._report = report
        self._lease: engines.Lease | None = None
        self._closed = False
        self._guard = threading.Lock()

    @checked_options
    def chat(
        self,
        *,
        chat_ctx: ChatContext,
        tools: list[Any] | None = None,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
        parallel_tool_calls: NotGivenOr[bool] = NOT_GIVEN,
        tool_choice: NotGivenOr[ToolChoice] = NOT_GIVEN,
        response_format: NotGivenOr[Any] = NOT_GIVEN,
        extra_kwargs: NotGivenOr[dict[str, Any]] = NOT_GIVEN,
    ) -> LLMStream:
        """Ask the model; see `rejoinder.llm.LLM.chat`.

        Small models call tools often, and not always sensibly. A forced call (``"required"`` or a
        tool by name) always fits the tool's schema.

        Args:
            response_format: the form of the answer: a pydantic model, a TypedDict, a dataclass, or
                a JSON schema.
            extra_kwargs: further members of the request (``stop``, ``min_p``,
                ``repeat_penalty``, ...).

        Raises:
            ConfigurationError: an option cannot be satisfied.
        """
        declared = slim(tool_specs(tools, DIALECT, strict=False))
        specs = specs_of(declared)
        mode, forced = _mode(
            tool_choice if is_given(tool_choice) else or_none(self._tool_choice), specs
        )
        parallel = parallel_tool_calls if is_given(parallel_tool_calls) else self._parallel
        spec = reply_type(response_format)
        schema = None if spec is None else spec.value_schema
        items = items_of(chat_ctx)
        after_tool = bool(items) and items[-1].type == "function_call_output"
        if after_tool and mode == "auto" and self._one_call:
            mode = "plain"
        extras = HttpExtras(extra_kwargs)
        options = {**self._options, **extras.body}
        if mode == "forced" or (after_tool and self._one_call):
            options.setdefault("temperature", 0.0)
        elif self._temperature is not None:
            options.setdefault("temperature", self._temperature)
        wording = _Wording(
            mode, forced, single=not parallel if is_given(parallel) else self._one_call
        )
        question = _Question(
            dialect=DIALECT,
            decode_error=decode_error,
            extras=extras,
            specs=declared,
            llm=self,
            tools=specs,
            options=options,
            schema=schema,
            done=answered_calls(items),
            next_attempt=_NextAttempt(wording),
        )
        return ask(
            self,
            question,
            partial(LLMStream, question=question),
            chat_ctx=chat_ctx,
            tools=tools,
            conn_options=_patient(conn_options),
        )

    async def load(self) -> None:
        """Load the model, and fetch it before if necessary.

        Raises:
            ModelError: it cannot be fetched or loaded.
        """
        await self._engine()

    async def _prewarm_impl(self) -> None:
        await self.load()

    async def aclose(self) -> None:
        await super().aclose()
        await self._transport.aclose()
        with self._guard:
            self._closed = True
            lease, self._lease = self._lease, None
        if lease is not None:
            lease.release()

    async def _engine(self) -> engines.Engine:
        """The running engine; a new one if the last one has died."""
        self._check_open()
        lease = self._lease
        if lease is not None and lease.engine.alive:
            return lease.engine
        found = self._found
        path = await fetch(found, report=self._report) if isinstance(found, ModelFile) else found
        fresh = await engines.acquire(dataclasses.replace(self._settings, path=str(path)))
        with self._guard:
            kept: engines.Lease | None = self._lease
            spare: engines.Lease | None = fresh
            if not self._closed and (kept is None or not kept.engine.alive):
                spare, self._lease = kept, fresh
                kept = fresh
        if spare is not None:
            spare.release()
        self._check_open()
        return (kept or fresh).engine

    def _check_open(self) -> None:
        if self._closed:
            raise APIConnectionError(CLOSED, retryable=False).but(section="closed")


@dataclass(frozen=True, slots=True)
class _Wording:
    """The parts of a request that an attempt may change for the next one."""

    mode: Mode
    forced: str | None
    """The only tool that may be called."""
    single: bool
    """One call at most."""
    spent: CompletionUsage | None = None
    """The tokens of discarded replies."""


class _NextAttempt:
    """The request of the next attempt: as the caller wants, or as the previous reply suggests."""

    def __init__(self, wording: _Wording) -> None:
        self._first = wording
        self.wording = wording
        self.reader: LocalReader | None = None
        """Reads the reply of the running attempt."""

    def reset(self) -> None:
        self.wording = self._first


def _messages_alone(messages: list[dict[str, Any]], *_: object) -> dict[str, Any]:
    return {"messages": messages}  # the rest depends on the engine, once it is loaded


@dataclass(kw_only=True, eq=False)
class _Question(Question):
    provider = "local"
    compose = staticmethod(_messages_alone)

    llm: LLM
    tools: Sequence[ToolSpec]
    options: Mapping[str, Any]
    schema: Mapping[str, Any] | None
    done: frozenset[Call]
    """The calls whose results are in the conversation."""
    next_attempt: _NextAttempt

    def part(self, attachment: Attachment) -> None:
        return None  # the format describes it in words

    async def request(self, body: bytes, connect_timeout: float | None) -> Request:
        engine = await self.llm._engine()
        wording = self.next_attempt.wording
        whole = request_body(
            jsontext.decode(body)["messages"],
            self.specs,
            self.options,
            mode=wording.mode,
            forced=wording.forced,
            response_schema=self.schema,
            tell=self.llm._one_call,
            knows_tools=engine.tools,
            knows_system=engine.system,
            marks=engine.marks,
        )
        own = {
            "Authorization": f"Bearer {engine.key}",
            "Content-Type": "application/json",
            # An idle connection would keep one of the engine's few threads.
            "Connection": "close",
        }
        headers = merge_headers(own, self.extras.headers)
        url = build_url(f"{engine.address}/v1/chat/completions", query=self.extras.query)
        return Request("POST", url, headers, jsontext.encode(whole), None)

    def decoder(self, *, allow_empty: bool) -> ReplyDecoder:
        wording = self.next_attempt.wording
        reader = self.next_attempt.reader = LocalReader(
            mode=wording.mode,
            specs=self.tools,
            single=wording.single,
            answered=self.done,
            lookalikes=self.schema is None,
            allow_empty=allow_empty,
            spent=wording.spent,
        )
        return ReplyDecoder(sse_events(), reader, prefix="chatcmpl-")


def _mode(choice: Any, specs: Sequence[ToolSpec]) -> tuple[Mode, str | None]:
    """The effect of a tool choice with these tools."""
    if choice is None or choice == "auto":
        return ("auto", None) if specs else ("plain", None)
    if choice == "none":
        return "plain", None
    if choice != "required" and not isinstance(choice, Mapping):
        raise ConfigurationError(
            "tool_choice: expected 'auto', 'required', 'none' or "
            f"{{'type': 'function', 'function': {{'name': ...}}}}, got {choice!r}"
        )
    name = tool_choice_name(cast("object", choice))
    if not specs:
        raise ConfigurationError(f"tool_choice: {choice!r} needs tools, but none were passed")
    names = [spec.name for spec in specs]
    if name is not None and name not in names:
        raise ConfigurationError(f"tool_choice: expected one of {', '.join(names)}, got {name!r}")
    return "forced", name


def _patient(options: APIConnectOptions) -> APIConnectOptions:
    """Deadlines for a model that may have to be fetched and loaded first. Keeps the caller's own."""
    if options.timeout != DEFAULT_API_CONNECT_OPTIONS.timeout:
        return options
    return dataclasses.replace(
        options,
        first_output=math.inf if options.first_output is None else options.first_output,
        between_outputs=_BETWEEN if options.between_outputs is None else options.between_outputs,
    )
