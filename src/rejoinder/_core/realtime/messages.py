"""The vocabulary between a realtime session and a service: commands out, events in.

A `RealtimeProtocol` turns commands into frames and frames into events; it is all that an engine
knows of a vendor. Everything here is a value. Times are seconds of the event loop's clock, sound is
16-bit PCM.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

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
    "SessionEnding",
    "SessionReady",
    "SettingsApplied",
    "SoundPaused",
    "SpeechStarted",
    "SpeechStopped",
    "StartActivity",
    "TextDelta",
    "ToolCalled",
    "Traits",
    "Transcript",
    "TruncateItem",
    "UpdateSession",
    "Usage",
    "UsageReported",
]

Frame: TypeAlias = str | bytes

ReplyStatus: TypeAlias = Literal[
    "completed", "interrupted", "cancelled", "incomplete", "failed", "superseded"
]
"""How a reply ended. ``interrupted``: this side stopped it. ``cancelled``: the service did, usually
because the user began to speak. ``incomplete``: a token limit or a content filter cut it.
``superseded``: a swap of sessions or an interrupt came before it began."""


# -- commands ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class UpdateSession:
    """Change instructions, tools or options. Fields that are ``None`` stay as they are."""

    ref: str
    instructions: str | None = None
    tools: Sequence[Mapping[str, Any]] | None = None
    options: Mapping[str, Any] | None = None
    resume: str | None = None
    """At the beginning: continue from this handle; see `Resumable`."""
    history: bool = False
    """At the beginning: a history will follow."""


@dataclass(frozen=True, slots=True)
class GiveHistory:
    """The conversation so far, or what of it is newer than the handle that was resumed."""

    ref: str
    items: Sequence[ChatItem]


@dataclass(frozen=True, slots=True)
class CreateItem:
    """Put an item behind `previous_id`; ``None`` is the head of the conversation."""

    ref: str
    item: ChatItem
    previous_id: str | None


@dataclass(frozen=True, slots=True)
class DeleteItem:
    ref: str
    item_id: str


@dataclass(frozen=True, slots=True)
class TruncateItem:
    """Cut an assistant message to the first `audio_ms` milliseconds of its sound."""

    ref: str
    item_id: str
    audio_ms: int


@dataclass(frozen=True, slots=True)
class AppendAudio:
    """Sound of the user, in the rate and channels of the protocol."""

    data: bytes | bytearray | memoryview
    _encoded: list[str] = field(default_factory=list[str], init=False, repr=False, compare=False)

    @property
    def base64(self) -> str:
        """The sound in base64. Encoded once, however many connections it is sent over; `data` is
        empty from then on."""
        if not self._encoded:
            self._encoded.append(base64.b64encode(self.data).decode("ascii"))
            object.__setattr__(self, "data", b"")  # held in one form
        return self._encoded[0]


@dataclass(frozen=True, slots=True)
class CommitAudio:
    ref: str


@dataclass(frozen=True, slots=True)
class ClearAudio:
    ref: str


@dataclass(frozen=True, slots=True)
class StartActivity:
    """The user begins a turn, where this side decides about turns."""

    ref: str


@dataclass(frozen=True, slots=True)
class SoundPaused:
    """No sound comes from the user for now, not even silence."""

    ref: str


@dataclass(frozen=True, slots=True)
class SendImage:
    """A picture from the user's video, as a ``data:`` URL."""

    ref: str
    url: str


@dataclass(frozen=True, slots=True)
class CreateReply:
    """Ask for a reply. `instructions` are added to those of the session.

    `context`: items that the connection has not been told, because it takes none at other times.
    """

    ref: str
    instructions: str | None = None
    tool_choice: Any = None
    tools: Sequence[Mapping[str, Any]] | None = None
    context: Sequence[ChatItem] = ()


@dataclass(frozen=True, slots=True)
class CancelReply:
    ref: str
    reply_id: str


@dataclass(frozen=True, slots=True)
class AbandonCall:
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


@dataclass(frozen=True, slots=True)
class SessionReady:
    """The service accepted the session and its settings; items and sound may follow."""


@dataclass(frozen=True, slots=True)
class SettingsApplied:
    """The service carried out the change `ref`."""

    ref: str


@dataclass(frozen=True, slots=True)
class SessionEnding:
    """The service will end the session in `seconds`."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Resumable:
    """Another connection can continue the session from `handle`, as it is now. The last one counts,
    also where the service could not continue from what came after it."""

    handle: str


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """The service hears the user. `item_id` names the user's message, where it is known yet."""

    item_id: str | None = None


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    item_id: str | None = None


@dataclass(frozen=True, slots=True)
class AudioCommitted:
    """The sound so far became the user's message `item_id`."""

    item_id: str
    previous_id: str | None


@dataclass(frozen=True, slots=True)
class Transcript:
    """What the user said. `text` is the whole text so far, also where the service sends pieces.

    `failed`: the service could not transcribe it; `text` is what there was of it.
    """

    item_id: str
    text: str
    final: bool
    failed: bool = False
    confidence: float | None = None
    usage: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class ItemAdded:
    """`item` stands in the service's conversation behind `previous_id`."""

    item: ChatItem
    previous_id: str | None
    at_tail: bool = False
    """The service did not tell where; it is the newest."""


@dataclass(frozen=True, slots=True)
class ItemDeleted:
    item_id: str


@dataclass(frozen=True, slots=True)
class ReplyStarted:
    """`ref` is that of the `CreateReply` that asked for it, ``None`` if the service began by itself."""

    reply_id: str
    ref: str | None = None


@dataclass(frozen=True, slots=True)
class MessageStarted:
    reply_id: str
    item_id: str


@dataclass(frozen=True, slots=True)
class ModalityKnown:
    """Whether the message has sound, or text alone."""

    reply_id: str
    item_id: str
    audio: bool


@dataclass(frozen=True, slots=True)
class TextDelta:
    """Text of a message, or the transcript of its sound."""

    reply_id: str
    item_id: str
    text: str
    start_time: float | None = None
    """Seconds from the beginning of the message's sound, where the service tells."""


@dataclass(frozen=True, slots=True)
class AudioDelta:
    reply_id: str
    item_id: str
    data: bytes


@dataclass(frozen=True, slots=True)
class MessageEnded:
    """No more parts of this message will come. `text` is the whole text, where the service repeats it."""

    reply_id: str
    item_id: str
    text: str | None = None


@dataclass(frozen=True, slots=True)
class MessageHeard:
    """What the service spoke of a message, where it tells. May come after the end of the reply;
    counts more than what was sent, and than what this side believes to have played."""

    item_id: str
    text: str
    interrupted: bool


@dataclass(frozen=True, slots=True)
class ToolCalled:
    """The model asks for a tool to run; the call is whole."""

    reply_id: str
    call: FunctionCall


@dataclass(frozen=True, slots=True)
class CallsCancelled:
    """The service no longer wants answers to these calls."""

    call_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one reply, by kind."""

    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    input_details: RealtimeModelMetrics.InputTokenDetails = field(
        default_factory=RealtimeModelMetrics.InputTokenDetails
    )
    output_details: RealtimeModelMetrics.OutputTokenDetails = field(
        default_factory=RealtimeModelMetrics.OutputTokenDetails
    )


@dataclass(frozen=True, slots=True)
class UsageReported:
    """Tokens apart from the end of a reply; with an empty id those of listening. Several add up."""

    reply_id: str
    usage: Usage


@dataclass(frozen=True, slots=True)
class ReplyEnded:
    """A reply is over. `ref` as in `ReplyStarted`, for services that end what they never began."""

    reply_id: str
    status: ReplyStatus
    ref: str | None = None
    reason: str | None = None
    """The service's own word, for example ``turn_detected`` or ``content_filter``."""
    error: APIError | None = None
    usage: Usage | None = None
    fatal: bool = False
    """The error ends the session too."""
    usage_follows: bool = False
    """Its tokens are told later, by `UsageReported`."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The service refused the command `ref`.

    `busy`: it refused a reply because another one is running. `harmless`: what the command wanted
    holds already, or was too late; nothing is wrong.
    """

    ref: str
    error: APIError
    code: str | None = None
    busy: bool = False
    harmless: bool = False


@dataclass(frozen=True, slots=True)
class ServiceFailed:
    """The service reports an error that belongs to no command. `fatal`: another session would fail too."""

    error: APIError
    fatal: bool = False
    code: str | None = None


Event: TypeAlias = (
    SessionReady
    | SettingsApplied
    | SessionEnding
    | Resumable
    | SpeechStarted
    | SpeechStopped
    | AudioCommitted
    | Transcript
    | ItemAdded
    | ItemDeleted
    | ReplyStarted
    | MessageStarted
    | ModalityKnown
    | TextDelta
    | AudioDelta
    | MessageEnded
    | MessageHeard
    | ToolCalled
    | CallsCancelled
    | UsageReported
    | ReplyEnded
    | Refused
    | ServiceFailed
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """What holds for every connection to a service, whatever is said over it."""

    input_rate: int
    """Samples a second of the user's sound, one channel."""
    output_rate: int
    """Samples a second of the model's sound, one channel."""
    confirms: bool = True
    """The service announces each item that it was given. Otherwise an item counts as given when it
    was sent."""
    confirms_settings: bool = False
    """The service tells of each change of the session, by `SettingsApplied`. Otherwise a change
    counts as carried out when it was sent."""
    names_replies: bool = True
    """The beginning of a reply names the request that it answers. Otherwise it is taken for the
    answer to the last one."""
    history_at_once: bool = False
    """A new connection is given its history in one `GiveHistory`, not item by item."""
    answers_move: bool = True
    """A call may be answered on a later connection than that on which it was made."""
    tells_speech: bool = True
    """The service tells at once when the user begins to speak. Otherwise the loudness of the sound
    decides what a next connection is given, and when it may take over."""
    paced_silence: bool = False
    """The service wants sound in real time without a pause; silence is sent where there is none."""
    pong: float = 0.0
    """Seconds that a healthy service may take to answer a ping, where it has no other sign of life."""
    standby: float | None = None
    """Seconds that a connection may wait to be used; then it is dead to the service and made anew."""


class RealtimeProtocol(Protocol):
    """One connection to a service, without the connection: frames in and out, no clock of its own.

    A protocol object serves one connection. It keeps the wire's own state (which items the service
    has announced, which frame names are in use); settings come with `open`.
    """

    @property
    def traits(self) -> Traits:
        """The same for each connection of a session."""
        ...

    @property
    def skipped(self) -> int:
        """Frames that were broken or of unknown type."""
        ...

    def open(self, settings: UpdateSession) -> Sequence[Frame]:
        """The first frames of a connection."""
        ...

    def send(self, command: Command) -> Sequence[Frame]:
        """The frames of a command; none where the service has no such thing.

        Raises:
            ConfigurationError: the service cannot take what the command holds.
        """
        ...

    def takes(self, command: Command) -> bool:
        """Whether this connection can carry out `command` now.

        A change of the session, or the removal of an item, that it does not take needs another
        connection. An item that it does not take goes with the next request for a reply.
        """
        ...

    def receive(self, frame: Frame) -> Sequence[Event]:
        """What a frame means. Broken and unknown frames are counted in `skipped`; nothing is raised."""
        ...

    def closed(self, code: int | None, reason: str) -> ServiceFailed | None:
        """What the end of the connection means; ``None`` for one that another connection mends."""
        ...

    def probe(self) -> Sequence[Frame]:
        """Frames that a service which still listens answers at once, and that change nothing; none
        where a ping of the transport has to do."""
        ...

    def farewell(self) -> Sequence[Frame]:
        """The last frames of a connection that this side ends."""
        ...

    @property
    def settled(self) -> bool:
        """Whether nothing is outstanding that a service tells after the end of a reply."""
        ...
