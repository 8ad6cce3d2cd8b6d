"""The vocabulary between a realtime session and a service: commands out, events in.

A `RealtimeProtocol` turns commands into frames and frames into events. It is the only
vendor-specific part that the session engine sees. Everything here is a value. Times are seconds of
the event loop's clock; sound is 16-bit PCM.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

import msgspec

from rejoinder._core.items import ChatItem, FunctionCall
from rejoinder.errors import APIError
from rejoinder.metrics import RealtimeModelMetrics

__all__ = [
    "AbandonCall",
    "AppendAudio",
    "AudioCommitted",
    "AudioDelta",
    "CallsCancelled",
    "CancelReply",
    "ClearAudio",
    "Command",
    "CommitAudio",
    "CreateItem",
    "CreateReply",
    "Delegated",
    "DeleteItem",
    "Event",
    "Frame",
    "GiveHistory",
    "ItemAdded",
    "ItemDeleted",
    "MessageEnded",
    "MessageHeard",
    "MessageStarted",
    "ModalityKnown",
    "RealtimeProtocol",
    "Refused",
    "ReplyEnded",
    "ReplyStarted",
    "ReplyStatus",
    "Resumable",
    "SendImage",
    "ServiceFailed",
    "SessionEnded",
    "SessionEnding",
    "SessionReady",
    "SettingsApplied",
    "SoundMade",
    "SoundPaused",
    "SpeechStarted",
    "SpeechStopped",
    "StartActivity",
    "TextAppended",
    "TextDelta",
    "ToolCalled",
    "Traits",
    "Transcript",
    "TruncateItem",
    "UpdateSession",
    "Usage",
    "UsageReported",
    "Working",
]

Frame: TypeAlias = str | bytes

ReplyStatus: TypeAlias = Literal[
    "completed", "interrupted", "cancelled", "incomplete", "failed", "superseded"
]
"""How a reply ended. ``interrupted``: the client stopped it. ``cancelled``: the service stopped it,
usually because the user began to speak. ``incomplete``: a token limit or a content filter cut it.
``superseded``: a swap or an interrupt came before it began."""


# -- commands ------------------------------------------------------------------------------------


class UpdateSession(msgspec.Struct, frozen=True):
    """Change instructions, tools or options. Fields that are ``None`` stay as they are."""

    ref: str
    instructions: str | None = None
    tools: Sequence[Mapping[str, Any]] | None = None
    options: Mapping[str, Any] | None = None
    resume: str | None = None
    """At the beginning: continue from this handle; see `Resumable`."""
    history: bool = False
    """At the beginning: a history will follow."""
    items: Sequence[ChatItem] = ()
    """At the beginning: the history, for services that accept it only there; see
    `Traits.history_in_setup`."""


class GiveHistory(msgspec.Struct, frozen=True):
    """The conversation so far, or only the items newer than the resumed handle."""

    ref: str
    items: Sequence[ChatItem]


@dataclass(slots=True)
class AppendAudio:
    """Sound of the user, in the rate and channels of the protocol."""

    data: bytes | bytearray | memoryview
    _encoded: str | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def base64(self) -> str:
        """The sound in base64. It is encoded once and reused for every connection; `data` is empty
        afterwards."""
        if self._encoded is None:
            self._encoded = base64.b64encode(self.data).decode("ascii")
            self.data = b""  # keep only one form in memory
        return self._encoded


class CreateItem(msgspec.Struct, frozen=True):
    """Put an item behind `previous_id`; ``None`` is the head of the conversation.

    `sound`: a message of the user that has no transcript. Services that accept only text ignore it.
    """

    ref: str
    item: ChatItem
    previous_id: str | None
    sound: Sequence[AppendAudio] = ()


class DeleteItem(msgspec.Struct, frozen=True):
    ref: str
    item_id: str


class TruncateItem(msgspec.Struct, frozen=True):
    """Cut an assistant message to the first `audio_ms` milliseconds of its sound."""

    ref: str
    item_id: str
    audio_ms: int


class CommitAudio(msgspec.Struct, frozen=True):
    ref: str


class ClearAudio(msgspec.Struct, frozen=True):
    ref: str


class StartActivity(msgspec.Struct, frozen=True):
    """The user begins a turn. Used when the client decides about turns."""

    ref: str


class SoundPaused(msgspec.Struct, frozen=True):
    """No sound comes from the user for now, not even silence."""

    ref: str


class SendImage(msgspec.Struct, frozen=True):
    """A picture from the user's video, as a ``data:`` URL."""

    ref: str
    url: str


class CreateReply(msgspec.Struct, frozen=True):
    """Ask for a reply. `instructions` are added to those of the session.

    `context`: items not sent yet, because this connection accepts them only with a request.
    """

    ref: str
    instructions: str | None = None
    tool_choice: Any = None
    tools: Sequence[Mapping[str, Any]] | None = None
    context: Sequence[ChatItem] = ()


class CancelReply(msgspec.Struct, frozen=True):
    ref: str
    reply_id: str


class AbandonCall(msgspec.Struct, frozen=True):
    """Answer a call without its result, so that the service does not wait for it. The result may
    still follow, as an item."""

    ref: str
    call: FunctionCall
    why: str


Command: TypeAlias = (
    UpdateSession
    | GiveHistory
    | CreateItem
    | DeleteItem
    | TruncateItem
    | AppendAudio
    | CommitAudio
    | ClearAudio
    | StartActivity
    | SoundPaused
    | SendImage
    | CreateReply
    | CancelReply
    | AbandonCall
)


# -- events --------------------------------------------------------------------------------------


class SessionReady(msgspec.Struct, frozen=True):
    """The service accepted the session and its settings; items and sound may follow."""

    lasts: float | None = None
    """Seconds after which the service ends the session, if it reports them."""


class SettingsApplied(msgspec.Struct, frozen=True):
    """The service carried out the change `ref`."""

    ref: str


class SessionEnding(msgspec.Struct, frozen=True):
    """The service will end the session in `seconds`."""

    seconds: float


class SessionEnded(msgspec.Struct, frozen=True):
    """The service has ended the session; nothing more comes over this connection."""

    reason: str


class Resumable(msgspec.Struct, frozen=True):
    """Another connection can continue the session from `handle`, as it is now. The last handle
    stays valid, even while the service cannot offer a newer one."""

    handle: str


class SpeechStarted(msgspec.Struct, frozen=True):
    """The service hears the user. `item_id` names the user's message, if it is known already."""

    item_id: str | None = None


class SpeechStopped(msgspec.Struct, frozen=True):
    item_id: str | None = None


class AudioCommitted(msgspec.Struct, frozen=True):
    """The sound so far became the user's message `item_id`."""

    item_id: str
    previous_id: str | None


class Transcript(msgspec.Struct, frozen=True):
    """The user's words. `text` is the whole text so far, even if the service sends pieces.

    `failed`: the service could not transcribe it; `text` is the partial transcript.
    """

    item_id: str
    text: str
    final: bool
    failed: bool = False
    confidence: float | None = None
    usage: Mapping[str, Any] | None = None


class ItemAdded(msgspec.Struct, frozen=True):
    """`item` stands in the service's conversation behind `previous_id`."""

    item: ChatItem
    previous_id: str | None
    at_tail: bool = False
    """The service did not specify a position; the item is the newest."""


class ItemDeleted(msgspec.Struct, frozen=True):
    item_id: str


class ReplyStarted(msgspec.Struct, frozen=True):
    """A reply began. `ref` is that of its `CreateReply`; ``None`` if the service began it."""

    reply_id: str
    ref: str | None = None


class Working(msgspec.Struct, frozen=True):
    """The service works on the last requested reply, but has not begun it."""


class MessageStarted(msgspec.Struct, frozen=True):
    reply_id: str
    item_id: str


class ModalityKnown(msgspec.Struct, frozen=True):
    """Whether the message has sound; otherwise it is text only."""

    reply_id: str
    item_id: str
    audio: bool


class TextDelta(msgspec.Struct, frozen=True):
    """Text of a message, or the transcript of its sound."""

    reply_id: str
    item_id: str
    text: str
    start_time: float | None = None
    """Seconds from the beginning of the message's sound, if the service reports them."""


class AudioDelta(msgspec.Struct, frozen=True):
    reply_id: str
    item_id: str
    data: bytes


class MessageEnded(msgspec.Struct, frozen=True):
    """No more parts of this message follow. `text` is the whole text, if the service repeats it."""

    reply_id: str
    item_id: str
    text: str | None = None


class MessageHeard(msgspec.Struct, frozen=True):
    """The part of a message that the service reports as spoken. It may arrive after the end of the
    reply, and it overrides both the text sent before and the client's estimate of what was
    played."""

    item_id: str
    text: str
    interrupted: bool


class TextAppended(msgspec.Struct, frozen=True):
    """Words of a message whose reply has already ended; their sound was sent before."""

    item_id: str
    text: str


class SoundMade(msgspec.Struct, frozen=True):
    """All sound, including silence, of a model that sends continuously."""

    data: bytes


class Delegated(msgspec.Struct, frozen=True):
    """The model hands a task to the application. `words`: what the user has said in the current
    turn, which is not over yet."""

    delegation_id: str
    words: str


class ToolCalled(msgspec.Struct, frozen=True):
    """The model asks for a tool to run; the call is whole."""

    reply_id: str
    call: FunctionCall
    waits: bool = False
    """The service begins no reply before it has the result."""


class CallsCancelled(msgspec.Struct, frozen=True):
    """The service no longer wants answers to these calls."""

    call_ids: tuple[str, ...]


class Usage(msgspec.Struct, frozen=True):
    """Tokens of one reply, by kind; or seconds of a session, for services that bill those."""

    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    input_details: RealtimeModelMetrics.InputTokenDetails = msgspec.field(
        default_factory=RealtimeModelMetrics.InputTokenDetails
    )
    output_details: RealtimeModelMetrics.OutputTokenDetails = msgspec.field(
        default_factory=RealtimeModelMetrics.OutputTokenDetails
    )
    seconds: float = 0.0


class UsageReported(msgspec.Struct, frozen=True):
    """Tokens reported separately from the end of a reply. An empty id means tokens for listening.
    Several reports add up."""

    reply_id: str
    usage: Usage


class ReplyEnded(msgspec.Struct, frozen=True):
    """A reply is over. `ref` as in `ReplyStarted`, for services that end replies they never began."""

    reply_id: str
    status: ReplyStatus
    ref: str | None = None
    reason: str | None = None
    """The service's own reason, for example ``turn_detected`` or ``content_filter``."""
    error: APIError | None = None
    usage: Usage | None = None
    fatal: bool = False
    """The error ends the session too."""
    usage_follows: bool = False
    """Its tokens follow later, in `UsageReported`."""


class Refused(msgspec.Struct, frozen=True):
    """The service refused the command `ref`.

    `busy`: it refused a reply because another one is running. `harmless`: the command was redundant
    or too late; nothing is wrong.
    """

    ref: str
    error: APIError
    code: str | None = None
    busy: bool = False
    harmless: bool = False


class ServiceFailed(msgspec.Struct, frozen=True):
    """The service reports an error that belongs to no command. `fatal`: another session would fail too."""

    error: APIError
    fatal: bool = False
    code: str | None = None


Event: TypeAlias = (
    SessionReady
    | SettingsApplied
    | SessionEnding
    | SessionEnded
    | Resumable
    | SpeechStarted
    | SpeechStopped
    | AudioCommitted
    | Transcript
    | ItemAdded
    | ItemDeleted
    | ReplyStarted
    | Working
    | MessageStarted
    | ModalityKnown
    | TextDelta
    | AudioDelta
    | MessageEnded
    | MessageHeard
    | TextAppended
    | SoundMade
    | Delegated
    | ToolCalled
    | CallsCancelled
    | UsageReported
    | ReplyEnded
    | Refused
    | ServiceFailed
)


class Traits(msgspec.Struct, frozen=True, kw_only=True):
    """Properties that every connection to a service shares."""

    input_rate: int
    """Samples a second of the user's sound, one channel."""
    output_rate: int
    """Samples a second of the model's sound, one channel."""
    confirms: bool = True
    """The service acknowledges each item it receives. Otherwise an item counts as received once it
    is sent."""
    confirms_settings: bool = False
    """The service confirms each change of the session, as `SettingsApplied`. Otherwise a change
    counts as applied once it is sent."""
    names_replies: bool = True
    """The beginning of a reply names the request that it answers. Otherwise the reply is matched to
    the last request."""
    history_at_once: bool = False
    """A new connection is given its history in one `GiveHistory`, not item by item."""
    history_in_setup: bool = False
    """The first frames of a connection hold the history. Items added meanwhile follow in the way of
    `history_at_once`."""
    answers_move: bool = True
    """A call may be answered on a later connection than the one it arrived on."""
    tells_speech: bool = True
    """The service reports at once when the user begins to speak. Otherwise the loudness of the
    sound decides which sound the next connection receives, and when it may take over."""
    paced_silence: bool = False
    """The service requires continuous sound in real time; silence fills the gaps."""
    pong: float = 0.0
    """Seconds that a healthy service may take to answer a ping, if a ping is its only sign of
    life."""
    result_media: frozenset[str] = frozenset()
    """Types of pictures and documents that the model takes as results of tools."""
    standby: float | None = None
    """Seconds that a connection may stay unused. After that the service drops it, and it is
    replaced."""


class RealtimeProtocol(Protocol):
    """The protocol of one connection, without the socket: frames in and out, no clock of its own.

    A protocol object serves one connection. It keeps the wire's own state (which items the service
    has announced, which frame names are in use); settings come with `open`.
    """

    @property
    def traits(self) -> Traits:
        """The service's traits, which are the same for each connection of a session."""
        ...

    @property
    def skipped(self) -> int:
        """Frames that were broken or of unknown type."""
        ...

    def open(self, settings: UpdateSession) -> Sequence[Frame]:
        """The first frames of a connection."""
        ...

    def send(self, command: Command) -> Sequence[Frame]:
        """The frames of a command; empty if the service has no equivalent.

        Raises:
            ConfigurationError: the service cannot accept the content of the command.
        """
        ...

    def takes(self, command: Command) -> bool:
        """Whether this connection can carry out `command` now.

        If it cannot change the session or remove an item, another connection is needed. If it
        cannot add an item now, the item goes with the next request for a reply.
        """
        ...

    def receive(self, frame: Frame) -> Sequence[Event]:
        """Decode a frame into events. Broken and unknown frames are counted in `skipped`. Never
        raises."""
        ...

    def closed(self, code: int | None, reason: str) -> ServiceFailed | None:
        """The event for the end of the connection; ``None`` if a new connection repairs it."""
        ...

    def probe(self) -> Sequence[Frame]:
        """Frames that a live service answers at once and that change nothing; empty if a ping of
        the transport has to suffice."""
        ...

    def farewell(self) -> Sequence[Frame]:
        """The last frames of a connection that the client ends."""
        ...

    @property
    def settled(self) -> bool:
        """Whether all reports that follow the end of a reply have arrived."""
        ...
