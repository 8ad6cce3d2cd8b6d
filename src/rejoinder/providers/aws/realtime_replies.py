"""Turns the events of Nova Sonic into turns of the user and replies of the model. Pure.

The service sends blocks of content: a transcript of the user (USER, FINAL), a call (TOOL), the
planned text of the next sentence (ASSISTANT, SPECULATIVE), its sound (AUDIO), and the text really
spoken (ASSISTANT, FINAL). A reply is a chain of plans and sounds. It ends with a sound whose end
carries END_TURN, or with an interruption; the spoken text may arrive later. A call outside such a
chain is a reply of its own, because the model continues by itself when it has the result.

::

    user     -- --text, interruption--> SPEAKING --block of the model--> over (one final transcript)
    reply    -- --plan, sound, call--> RUNNING --END_TURN, the end of a lone call--> ENDED
             RUNNING --interruption--> ENDED (cancelled)
             ENDED   --what was spoken--> the message is corrected
"""

from __future__ import annotations

import re
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

import msgspec

from rejoinder._core.items import ChatMessage, FunctionCall
from rejoinder._core.realtime import messages as m
from rejoinder.metrics import RealtimeModelMetrics
from rejoinder.providers.aws.realtime_format import whole_arguments

__all__ = ["Turns"]

_CONTROL: Final = re.compile(r'\s*\{\s*"interrupted"\s*:\s*(true|false)\s*\}\s*')
"""Text meant for programs, not for speech."""
_REMEMBERED: Final = 256
_TYPED: Final = 16


@dataclass(slots=True)
class _User:
    item_id: str
    text: str = ""
    told: bool = False
    """Its transcript was reported, but may still change."""


@dataclass(slots=True)
class _Reply:
    reply_id: str
    item_id: str | None = None
    planned: list[str] = field(default_factory=list[str])
    spoken: list[str] = field(default_factory=list[str])
    plans: int = 0
    truths: int = 0
    """Number of plans whose spoken text was reported."""
    in_chain: bool = False
    """More sentences will follow."""
    ended: bool = False
    interrupted: bool = False
    usage: m.Usage | None = None
    billed: bool = False
    """All its tokens were reported, including those after its end."""


@dataclass(frozen=True, slots=True)
class _Block:
    kind: str
    role: str
    stage: str
    reply: _Reply | None


class Turns:
    """The state of one stream.

    Args:
        name: prefix of generated ids, for objects to which the service assigns none.

    Attributes:
        tail: id of the last item of the conversation.
        asked: the request for a reply that was sent last, until a reply begins.
        typed: texts that were sent and that the service may echo.
        open_calls: ids of calls that this stream made and that have no result.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._count = 0
        self._blocks: dict[str, _Block] = {}
        self._user: _User | None = None
        self._reply: _Reply | None = None
        self._last: _Reply | None = None
        self._totals: m.Usage | None = None
        self._called: OrderedDict[str, None] = OrderedDict()
        self.tail: str | None = None
        self.asked: str | None = None
        self.typed: deque[str] = deque(maxlen=_TYPED)
        self.open_calls: set[str] = set()

    @property
    def settled(self) -> bool:
        """Whether the service has reported the spoken text of all plans."""
        last = self._last
        return last is None or last.interrupted or last.truths >= last.plans

    # -- events ------------------------------------------------------------------------------

    def completion_end(self, fields: dict[str, Any]) -> Sequence[m.Event]:
        """In practice this is the end of the session, so running turns and replies are over."""
        events = self._end_user()
        if self._reply is not None:
            events += self._end_reply(self._reply, interrupted=False)
        return events

    def content_start(self, fields: dict[str, Any]) -> Sequence[m.Event]:
        kind, role = str(fields["type"]), str(fields.get("role", ""))
        stage = _stage(fields.get("additionalModelFields"))
        events: list[m.Event] = []
        reply: _Reply | None = None
        if role == "ASSISTANT" and stage != "FINAL":
            last = self._last
            if kind == "AUDIO" and self._reply is None and last is not None and last.interrupted:
                reply = last  # drop its remaining sound
            if reply is None:
                events += self._end_user()
                reply, begun = self._running()
                events += begun
                if kind == "TEXT":
                    reply.plans += 1
                    reply.in_chain = True
        elif role == "ASSISTANT":
            # Outstanding reports come first.
            reply = self._reply if self.settled else self._last
            reply = reply or self._last
        self._blocks[str(fields["contentId"])] = _Block(kind, role, stage, reply)
        if len(self._blocks) > _REMEMBERED:
            del self._blocks[next(iter(self._blocks))]
        return events

    def text_output(self, fields: dict[str, Any]) -> Sequence[m.Event]:
        text: object = fields["content"]
        if not isinstance(text, str):
            raise TypeError("expected content as a string")
        if control := _CONTROL.fullmatch(text):
            return self._interrupted() if control[1] == "true" else ()
        block = self._blocks.get(str(fields.get("contentId", "")))
        role = block.role if block is not None else str(fields.get("role", ""))
        if not text.strip():
            return ()
        if role == "USER":
            return self._heard(text)
        if role != "ASSISTANT":
            return ()
        if block is not None and block.stage == "FINAL":
            if block.reply is not None:
                block.reply.spoken.append(text)
            return ()
        reply = block.reply if block is not None else self._reply
        if reply is None or reply.ended:
            return ()
        events = self._message(reply)
        # Sentences arrive without the space between them.
        joint = " " if reply.planned and not reply.planned[-1][-1:].isspace() else ""
        reply.planned.append(text)
        return [*events, m.TextDelta(reply.reply_id, reply.item_id or "", joint + text)]

    def audio_output(self, fields: dict[str, Any], data: bytes) -> Sequence[m.Event]:
        """Sound of the model; `data` is what ``content`` holds."""
        block = self._blocks.get(str(fields.get("contentId", "")))
        reply = block.reply if block is not None else self._reply
        if reply is None or reply.ended or not data:
            return ()
        return [*self._message(reply), m.AudioDelta(reply.reply_id, reply.item_id or "", data)]

    def tool_use(self, fields: dict[str, Any]) -> Sequence[m.Event]:
        call_id, name = fields["toolUseId"], fields["toolName"]
        if not isinstance(call_id, str) or not isinstance(name, str) or not name:
            raise TypeError("a call without an id or a name")
        if call_id in self._called:
            return ()  # reported twice
        self._called[call_id] = None
        if len(self._called) > _REMEMBERED:
            self._called.popitem(last=False)
        events = self._end_user()
        reply, begun = self._running()
        call = FunctionCall(
            id=self._new_id("call"),
            call_id=call_id,
            name=name,
            arguments=whole_arguments(fields.get("content")),
        )
        self.open_calls.add(call_id)
        return [*events, *begun, *self._added(call), m.ToolCalled(reply.reply_id, call)]

    def content_end(self, fields: dict[str, Any]) -> Sequence[m.Event]:
        block = self._blocks.pop(str(fields.get("contentId", "")), None)
        stop = str(fields.get("stopReason", ""))
        if block is None or block.role == "USER":
            return ()
        reply = self._reply if block.kind == "TOOL" else block.reply
        events: list[m.Event] = []
        if block.stage == "FINAL" and reply is not None:
            reply.truths += 1
            if reply.ended:
                events += self._told_truth(reply)
        if stop == "INTERRUPTED":
            return [*events, *self._interrupted()]
        if reply is None or reply.ended:
            return events
        if block.kind == "TOOL":
            return [] if reply.in_chain else self._end_reply(reply, interrupted=False)
        if stop == "END_TURN" and (block.kind == "AUDIO" or block.stage == "FINAL"):
            return self._end_reply(reply, interrupted=False)
        return ()

    def usage(self, fields: dict[str, Any]) -> Sequence[m.Event]:
        """Tokens since the last time: the totals count the whole session."""
        usage = self._delta(fields)
        if not usage.total_tokens:
            return ()
        if self._reply is not None:
            self._reply.usage = _sum(self._reply.usage, usage)
            return ()
        last = self._last
        if last is None or last.billed:
            return (m.UsageReported("", usage),)  # tokens of listening
        last.billed = True
        return (m.UsageReported(last.reply_id, _sum(last.usage, usage)),)

    # -- inside ------------------------------------------------------------------------------

    def _heard(self, text: str) -> list[m.Event]:
        if text in self.typed:
            self.typed.remove(text)  # typed text is not a transcript
            return []
        events = self._begin_user()
        user = self._user
        assert user is not None  # noqa: S101  begun above
        user.text = f"{user.text} {text.strip()}".strip()
        user.told = True
        return [*events, m.Transcript(user.item_id, user.text, final=False)]

    def _begin_user(self) -> list[m.Event]:
        if self._user is not None:
            return []
        self._user = _User(self._new_id("user"))
        return [m.SpeechStarted(self._user.item_id)]

    def _end_user(self) -> list[m.Event]:
        user, self._user = self._user, None
        if user is None:
            return []
        events: list[m.Event] = [m.SpeechStopped(user.item_id)]
        if user.told:
            events.append(m.AudioCommitted(user.item_id, self.tail))
            events.append(m.Transcript(user.item_id, user.text, final=True))
            self.tail = user.item_id
        return events

    def _running(self) -> tuple[_Reply, list[m.Event]]:
        """The running reply; a new one if none runs."""
        if self._reply is not None:
            return self._reply, []
        self._reply = _Reply(self._new_id("reply"))
        ref, self.asked = self.asked, None
        return self._reply, [m.ReplyStarted(self._reply.reply_id, ref)]

    def _message(self, reply: _Reply) -> list[m.Event]:
        """The message of `reply`; a new one if it has none."""
        if reply.item_id is not None:
            return []
        reply.item_id = self._new_id("item")
        message = ChatMessage(id=reply.item_id, role="assistant", content=[])
        return [*self._added(message), m.MessageStarted(reply.reply_id, reply.item_id)]

    def _added(self, item: ChatMessage | FunctionCall) -> list[m.Event]:
        event = m.ItemAdded(item, self.tail, at_tail=self.tail is None)
        self.tail = item.id
        return [event]

    def _end_reply(self, reply: _Reply, *, interrupted: bool) -> list[m.Event]:
        reply.ended = True
        reply.in_chain = False
        reply.interrupted = interrupted
        self._reply, self._last = None, reply
        events: list[m.Event] = []
        if reply.item_id is not None:
            events.append(m.MessageEnded(reply.reply_id, reply.item_id))
        events.append(
            m.ReplyEnded(
                reply.reply_id,
                "cancelled" if interrupted else "completed",
                reason="interrupted" if interrupted else None,
                usage=reply.usage,
                usage_follows=True,
            )
        )
        return events + self._told_truth(reply)

    def _told_truth(self, reply: _Reply) -> list[m.Event]:
        """The spoken text, if it is known and differs from the plan."""
        if reply.item_id is None or not reply.spoken:
            return []
        spoken = " ".join(text.strip() for text in reply.spoken)
        if not reply.interrupted and reply.truths < reply.plans:
            return []  # the rest is being spoken
        return [m.MessageHeard(reply.item_id, spoken, reply.interrupted)]

    def _interrupted(self) -> list[m.Event]:
        """The user interrupted the model, during a reply or during its remaining playback."""
        reply = self._reply
        if reply is not None:
            return [*self._end_reply(reply, interrupted=True), *self._begin_user()]
        last = self._last
        if last is None or last.interrupted:
            return []
        last.interrupted = True
        return [*self._begin_user(), *self._told_truth(last)]

    def _delta(self, fields: dict[str, Any]) -> m.Usage:
        details = _mapping(fields.get("details"))
        if "delta" in details:
            return _usage(_mapping(details["delta"]))
        total = _usage(_mapping(details.get("total")))
        before, self._totals = self._totals or m.Usage(), total
        given, made = total.input_details, total.output_details
        return _made(
            given.audio_tokens - before.input_details.audio_tokens,
            given.text_tokens - before.input_details.text_tokens,
            made.audio_tokens - before.output_details.audio_tokens,
            made.text_tokens - before.output_details.text_tokens,
        )

    def _new_id(self, kind: str) -> str:
        self._count += 1
        return f"{self._name}_{kind}{self._count}"


def _stage(raw: object) -> str:
    if not isinstance(raw, str):
        return ""
    try:
        found: object = msgspec.json.decode(raw)
    except msgspec.DecodeError:
        return ""
    stage = _mapping(found).get("generationStage")
    return stage if isinstance(stage, str) else ""


def _mapping(value: object) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _count(fields: dict[str, Any], name: str) -> int:
    value = fields.get(name)
    return value if isinstance(value, int) and value > 0 else 0


def _usage(fields: dict[str, Any]) -> m.Usage:
    given, made = _mapping(fields.get("input")), _mapping(fields.get("output"))
    return _made(
        _count(given, "speechTokens"),
        _count(given, "textTokens"),
        _count(made, "speechTokens"),
        _count(made, "textTokens"),
    )


def _made(sound_in: int, text_in: int, sound_out: int, text_out: int) -> m.Usage:
    metrics = RealtimeModelMetrics
    return m.Usage(
        input_tokens=sound_in + text_in,
        output_tokens=sound_out + text_out,
        total_tokens=sound_in + text_in + sound_out + text_out,
        input_details=metrics.InputTokenDetails(audio_tokens=sound_in, text_tokens=text_in),
        output_details=metrics.OutputTokenDetails(audio_tokens=sound_out, text_tokens=text_out),
    )


def _sum(one: m.Usage | None, other: m.Usage) -> m.Usage:
    if one is None:
        return other
    return _made(
        one.input_details.audio_tokens + other.input_details.audio_tokens,
        one.input_details.text_tokens + other.input_details.text_tokens,
        one.output_details.audio_tokens + other.output_details.audio_tokens,
        one.output_details.text_tokens + other.output_details.text_tokens,
    )
