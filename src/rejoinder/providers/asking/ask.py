"""One request of a provider, from the call of `chat` to the stream: written once.

A provider supplies a `Question`: the values of one call, and the few steps of its own. The common steps
are here: checking the conversation, taking a snapshot, repair, attachments, encoding, and the stream.
`HttpLLM` owns the objects that outlive a call.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

from rejoinder._core import jsontext
from rejoinder._core.changes import Change
from rejoinder._core.dialects import Dialect
from rejoinder._core.families import UNKNOWN, Family
from rejoinder._core.items import ChatItem
from rejoinder._core.prices import prepare_prices
from rejoinder._core.repair import repair
from rejoinder._core.rules import State
from rejoinder.errors import ConfigurationError
from rejoinder.llm.llm import LLM
from rejoinder.providers.answering.decoder import ReplyDecoder
from rejoinder.providers.answering.errors import DecodeError
from rejoinder.providers.answering.stream import WireStream
from rejoinder.providers.asking.attachments import Attachment, attach_joined, detach
from rejoinder.providers.asking.body import (
    Body,
    Media,
    RefusedState,
    items_of,
    survey,
)
from rejoinder.providers.asking.fields import HttpExtras
from rejoinder.providers.asking.served import Served
from rejoinder.transport.http import HttpTransport, Request
from rejoinder.types import DEFAULT_API_CONNECT_OPTIONS, APIConnectOptions

if TYPE_CHECKING:
    from rejoinder.llm.chat_context import ChatContext

__all__ = ["HttpLLM", "Question", "ask"]

logger = logging.getLogger("rejoinder")

S = TypeVar("S", bound=WireStream)


class HttpLLM(LLM[Any]):
    """An LLM over HTTP: its model and its transport.

    Args:
        model: the provider's name of the model.
        provider: name of the provider, for metrics.
        base_url: address of the server; `prewarm` connects to it.
        transport: sends the requests; it is closed with the LLM (see `make_transport`).
        conn_options: retries and deadlines of calls without their own.
    """

    def __init__(
        self,
        *,
        model: str,
        provider: str,
        base_url: str,
        transport: HttpTransport,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
    ) -> None:
        super().__init__()
        self._model = model
        self._provider = provider
        self._base_url = base_url
        self._transport = transport
        self._conn_options = conn_options
        self._refused = RefusedState()
        prepare_prices(provider, model)

    @property
    def model(self) -> str:
        return self._model

    @property
    def provider(self) -> str:
        return self._provider

    @property
    def _served_at(self) -> str:
        return self._base_url

    async def _ready(self) -> str:
        """Prepare credentials; returns the URL to connect to."""
        return self._base_url

    async def _prewarm_impl(self) -> None:
        await self._transport.prewarm(await self._ready())

    async def aclose(self) -> None:
        """End the replies that still run and close the connections that were opened here."""
        await super().aclose()
        await self._transport.aclose()


_no_changes = cast("Callable[[], list[Change]]", list)
"""`list` itself: calling `list[Change]` costs a hidden exception at every request."""


# Not frozen: each field would be set through `object`, at five times the price, at each request.
@dataclass(kw_only=True, eq=False)
class Question(ABC):
    """One call of `chat`, in the form of its provider.

    It is a snapshot of the call of `chat`. It serves every attempt, and its pure steps may run in a
    thread.
    """

    provider: ClassVar[str]
    """The provider's package, by its name in the table of capabilities."""
    may_pause: ClassVar[bool] = False
    """Whether replies may pause, and continue when they are sent back."""
    files: ClassVar[str | None] = None
    """The prefix of the names of files that the provider stores."""
    compose: ClassVar[Callable[..., dict[str, Any]]]
    """A pure function that makes the body of the request, as a `staticmethod`. It takes the messages
    and the data beside them, from `convert`, then `specs`, `choice` and `options`."""

    dialect: Dialect
    options: Any
    """The options of the body, in the form that `compose` takes."""
    decode_error: DecodeError
    extras: HttpExtras
    """Header fields and parameters of the URL; those of a call win over all others."""
    served: Served | None = None
    """The model at its host; the body is adapted to it."""
    asked: Sequence[Change] | None = None
    """The result of a request for reasoning; ``None``: the whole body specifies it."""
    changes: list[Change] = field(default_factory=_no_changes)
    """The changes that made the request acceptable, once it is encoded."""
    specs: Sequence[dict[str, Any]] = ()
    """The tools, in the form of the API."""
    choice: Any = None
    """The tool choice; ``None`` for the API's default."""
    takes_audio: bool = False
    """Whether the model accepts sound; otherwise the transcript is sent."""
    state: Sequence[str] = ()
    """Further keys of `extra` whose state may be sent."""
    prefill: bool = False
    """Whether the model continues a reply at the end of the history."""
    signatures: bool = False
    """Whether the model refuses calls without a signature."""

    @property
    def family(self) -> Family:
        """The family of the model; it determines which marks the model leaves in its text."""
        return UNKNOWN if self.served is None else self.served.family

    @abstractmethod
    def part(self, attachment: Attachment) -> dict[str, Any] | None:
        """Sound or a document as a part of a message; ``None`` if the format itself writes it.

        Raises:
            ConfigurationError: it cannot be sent.
        """

    def attach(self, messages: list[dict[str, Any]], found: dict[str, dict[str, Any]]) -> None:
        """Put the parts of attachments back in their places."""
        attach_joined(messages, found)

    def own_state(self, items: Sequence[ChatItem]) -> Sequence[ChatItem]:
        """A history with state of providers, without what this server cannot read."""
        return items

    def convert(self, items: Sequence[ChatItem]) -> tuple[list[dict[str, Any]], Any]:
        """The messages of a history, and the data beside them."""
        return self.dialect.convert(items)

    def go_on(self, body: dict[str, Any], parts: Sequence[dict[str, Any]]) -> None:
        """Add a paused reply to a body, so that the model continues it; for `may_pause`.

        Args:
            parts: the parts of the reply, from `ReplyDecoder.paused`: one for each pause.
        """
        raise NotImplementedError

    @abstractmethod
    async def request(self, body: bytes, connect_timeout: float | None) -> Request:
        """The request of one attempt, with new credentials."""

    @abstractmethod
    def decoder(self, *, allow_empty: bool) -> ReplyDecoder:
        """A new decoder for one attempt.

        Args:
            allow_empty: a reply without text and tool calls is legal.
        """


def ask(
    llm: HttpLLM,
    question: Question,
    stream: Callable[..., S],
    *,
    chat_ctx: ChatContext,
    tools: list[Any] | None,
    conn_options: APIConnectOptions,
) -> S:
    """Ask `question` about a conversation.

    Args:
        stream: the class of the stream.
        chat_ctx, tools, conn_options: the arguments of `chat`.

    Raises:
        ConfigurationError: the conversation holds something that cannot be sent.
    """
    items = items_of(chat_ctx)
    media = survey(
        items,
        question.provider,
        takes_audio=question.takes_audio,
        takes=None if question.served is None else question.served.takes,
    )
    # After a tool's output a model may have nothing to add.
    after_tool = bool(items) and items[-1].type == "function_call_output"
    body = Body(items, partial(_encode, question, media), media, llm._refused, go_on=question.go_on)
    if conn_options is DEFAULT_API_CONNECT_OPTIONS or conn_options == DEFAULT_API_CONNECT_OPTIONS:
        conn_options = llm._conn_options
    return stream(
        llm,
        chat_ctx=chat_ctx,
        tools=tools or [],
        conn_options=conn_options,
        build=partial(_build, question, body, conn_options.connect_timeout),
        decoder=partial(question.decoder, allow_empty=after_tool),
        decode_error=question.decode_error,
        transport=llm._transport,
        drop_state=body.drop_state,
        go_on=body.go_on if question.may_pause else None,
        changes=question.changes,
    )


def _encode(question: Question, media: Media, items: Sequence[ChatItem]) -> bytes:
    """The body of the request, from the conversation.

    Raises:
        ConfigurationError: the conversation or an option holds something that cannot be sent.
    """
    try:
        found: dict[str, dict[str, Any]] = {}
        rules, served = question.dialect.rules, question.served
        if media.any:
            items, found = detach(
                items,
                question.part,
                hears=question.takes_audio,
                files=question.files,
                state=State() if rules is None else rules.state,
            )
        if media.state:
            items = question.own_state(items)
        changes: list[Change] = []
        if rules is not None:
            items, changes = repair(
                items,
                question.dialect if served is None else served.dialect,
                state=question.state,
                prefill=question.prefill,
                signatures=question.signatures,
            )
        if changes:
            logger.info(
                "the conversation was mended before it was sent: %s",
                ", ".join(sorted({change.kind for change in changes})),
            )
        messages, data = question.convert(items)
        if found:
            question.attach(messages, found)
        body = question.compose(messages, data, question.specs, question.choice, question.options)
        if served is not None:
            asked, option = question.asked or (), question.extras.reasoning
            if question.asked is None and (option is not None or served.reasoning is not None):
                asked = served.reason(body, option)
            changes = [*asked, *changes, *served.fit(body)]
        elif question.extras.reasoning is not None:
            told = (
                f"reasoning={question.extras.reasoning!r}: this model does not support the option"
            )
            logger.warning("%s: %s", question.provider, told)
            changes = [Change("reasoning", "", told), *changes]
        question.changes[:] = changes
        return jsontext.encode(body)
    except ConfigurationError:
        raise
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"the request cannot be made: {error}") from error


async def _build(question: Question, body: Body, connect_timeout: float | None) -> Request:
    sent = body.ready
    if sent is None:
        sent = await body.get()
    return await question.request(sent, connect_timeout)
