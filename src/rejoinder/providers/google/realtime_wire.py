"""The protocol of the Live API: commands to frames, frames to events. Pure.

One object serves one connection. `rejoinder.providers.google.realtime_turns` decides which parts
make a reply and what it answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from rejoinder import _stamps
from rejoinder._core import jsontext
from rejoinder._core.items import ChatItem, FunctionCall, FunctionCallOutput
from rejoinder._core.realtime import messages as m
from rejoinder._core.realtime.frames import read_frame
from rejoinder.errors import APIConnectionError, APIStatusError, ConfigurationError
from rejoinder.providers.google.realtime_format import (
    INPUT_RATE,
    function_response,
    instructions_block,
    plain_text,
    setup,
    turns,
)
from rejoinder.providers.google.realtime_rules import LiveRules
from rejoinder.providers.google.realtime_turns import LiveTurns, wire_id
from rejoinder.providers.google.realtime_usage import usage_of

__all__ = ["GeminiLiveProtocol"]

_SETUP_CODES: Final = frozenset({1003, 1007, 1008})
_LOCAL: Final = frozenset({"toolResponseScheduling", "tool_choice"})
"""Settings that are not part of the setup."""


class GeminiLiveProtocol:
    """See `rejoinder._core.realtime.messages.RealtimeProtocol`.

    Args:
        model: returns the full name that the server expects; it is known once a socket is open.
        rules: of the model.
        traits: see `traits_of`.
        vertex: the server is Vertex AI, which accepts no `scheduling`, and an `id` on a result only if
            the call had one.
        new_id: makes an id with a prefix.
    """

    def __init__(
        self,
        model: Callable[[], str],
        rules: LiveRules,
        traits: m.Traits,
        *,
        vertex: bool = False,
        new_id: Callable[[str], str] = _stamps.new_id,
    ) -> None:
        self._model = model
        self._rules = rules
        self._traits = traits
        self._vertex = vertex
        self._turns = LiveTurns(rules, new_id)
        # In this order: content comes before the ends that the same message reports.
        self._readers: Mapping[str, Callable[[dict[str, Any]], list[m.Event]]] = {
            "setupComplete": self._setup_complete,
            "voiceActivity": self._turns.activity,
            "serverContent": self._turns.content,
            "toolCall": self._turns.tool_call,
            "toolCallCancellation": self._turns.cancelled_calls,
            "usageMetadata": self._usage,
            "sessionResumptionUpdate": self._resumption,
            "goAway": self._go_away,
            "error": self._error,
        }
        self._options: Mapping[str, Any] = {}
        self._ready = False
        self._resumed = False
        self._history = False
        self._skipped = 0

    @property
    def traits(self) -> m.Traits:
        return self._traits

    @property
    def skipped(self) -> int:
        return self._skipped + self._turns.skipped

    @property
    def settled(self) -> bool:
        return self._turns.due is None

    def farewell(self) -> Sequence[m.Frame]:
        return ()

    def probe(self) -> Sequence[m.Frame]:
        return ()

    @property
    def _manual(self) -> bool:
        config = jsontext.as_mapping(self._options.get("realtimeInputConfig")) or {}
        detection = jsontext.as_mapping(config.get("automaticActivityDetection")) or {}
        return detection.get("disabled") is True

    def _waits(self) -> bool:
        """Whether the model waits for the results of its calls."""
        behavior = self._options.get("toolBehavior")
        match self._rules.tools:
            case "blocking":
                return True
            case "optional":
                return behavior != "NON_BLOCKING"
            case "non_blocking":
                return behavior == "BLOCKING"
            case "always":
                return False

    # -- commands ----------------------------------------------------------------------------

    def open(self, settings: m.UpdateSession) -> Sequence[m.Frame]:
        self._options = settings.options or {}
        self._resumed = settings.resume is not None
        self._history = settings.history
        self._turns.sounds = "TEXT" not in (self._options.get("responseModalities") or ())
        self._turns.waits = self._waits()
        made = setup(
            self._model(),
            self._rules,
            self._options,
            instructions=settings.instructions,
            tools=settings.tools,
            resume=settings.resume,
            history=settings.history,
        )
        return _frame("setup", made)

    def takes(self, command: m.Command) -> bool:
        match command:
            case m.UpdateSession():
                return self._can_update(command)
            case m.DeleteItem():
                return False
            case m.GiveHistory():
                first = not self._resumed and self._history
                return first or (self._rules.context == "any" and not self._would_cut)
            case m.CreateItem(_, FunctionCallOutput() as output, _):
                return self._is_owed(output.call_id) or not self._would_cut
            case m.AbandonCall(_, call, _):
                return self._resumed or (self._turns.waits and self._is_owed(call.call_id))
            case m.CreateItem():
                return self._rules.context == "any" and not self._would_cut
            case _:
                return True

    def _can_update(self, command: m.UpdateSession) -> bool:
        if command.tools is not None or not set(command.options or ()) <= _LOCAL:
            return False
        if command.instructions is None:
            return True
        # On Vertex AI a turn of the role `system` replaces the instructions. The Developer API has
        # no equivalent.
        return self._vertex and self._rules.context == "any" and not self._would_cut

    def _update(self, command: m.UpdateSession) -> Sequence[m.Frame]:
        self._options = {**self._options, **(command.options or {})}
        if command.instructions is None:
            return ()
        turn = {"role": "system", "parts": [{"text": command.instructions}]}
        return _frame("clientContent", {"turns": [turn], "turnComplete": False})

    @property
    def _would_cut(self) -> bool:
        """Whether a text sent now would cut off a reply."""
        return self._turns.reply is not None and self._rules.cut_off

    def send(self, command: m.Command) -> Sequence[m.Frame]:
        match command:
            case m.AppendAudio():
                encoded = command.base64
                sound = (
                    f'{{"realtimeInput":{{"audio":{{"mimeType":"audio/pcm;rate={INPUT_RATE}",'
                    f'"data":"{encoded}"}}}}}}'
                )
                if self._manual and not self._turns.active:
                    self._turns.active = True
                    return (*_frame("realtimeInput", {"activityStart": {}}), sound)
                return (sound,)
            case m.CommitAudio():
                return self._end_activity()
            case m.StartActivity():
                return self._start_activity()
            case m.SoundPaused():
                return () if self._manual else _frame("realtimeInput", {"audioStreamEnd": True})
            case m.SendImage(_, url):
                kind, _, data = url.removeprefix("data:").partition(";base64,")
                return _frame("realtimeInput", {"video": {"mimeType": kind, "data": data}})
            case m.GiveHistory(_, items):
                return self._give_history(items)
            case m.CreateItem(_, FunctionCallOutput() as output, _):
                return self._answer(output)
            case m.CreateItem(_, item, _):
                found = turns([item], self._rules, calls=self._turns.calls)
                if isinstance(item, FunctionCall):
                    self._turns.know(item)
                if not found:
                    return ()
                self._turns.typed = found[-1]["role"] == "user"
                return _frame("clientContent", {"turns": found, "turnComplete": False})
            case m.CreateReply():
                return self._ask(command)
            case m.CancelReply():
                # A reply cannot be stopped while the service detects speech itself: wait for its
                # end.
                return self._start_activity()
            case m.AbandonCall(_, call, why):
                return self._abandon(call, why)
            case m.UpdateSession():
                return self._update(command)
            case m.DeleteItem() | m.TruncateItem() | m.ClearAudio():
                return ()

    def _give_history(self, items: Sequence[ChatItem]) -> Sequence[m.Frame]:
        for item in items:
            if isinstance(item, FunctionCall):
                self._turns.know(item)
        found = turns(items, self._rules, calls=self._turns.calls)
        first = not self._resumed and self._history
        self._history = False
        if not found and not (first and self._rules.context == "initial"):
            return ()
        self._turns.typed = bool(found) and found[-1]["role"] == "user"
        # After the first history, `turnComplete` ends the history and starts no reply.
        done = first and self._rules.context == "initial"
        return _frame("clientContent", {"turns": found, "turnComplete": done})

    def _ask(self, command: m.CreateReply) -> Sequence[m.Frame]:
        if command.tools is not None or command.tool_choice not in (None, "auto"):
            raise ConfigurationError(
                "generate_reply: the Live API takes no tools and no tool_choice for one reply; set "
                "them for the session"
            )
        self._turns.asked = command.ref
        instructions = command.instructions
        if self._rules.context == "initial":
            return self._ask_in_text(command)
        context = turns(command.context, self._rules, calls=self._turns.calls)
        if self._turns.active:
            frames: list[m.Frame] = []
            if instructions:
                context.append(_user(instructions_block(instructions)))
            if context:
                frames += _frame("clientContent", {"turns": context, "turnComplete": False})
            return (*frames, *self._end_activity())
        if self._speaks_next and not instructions and not context:
            return ()  # the service is about to speak by itself: that is the reply
        if self._rules.trigger == "bare":
            if instructions:
                context.append(_user(instructions_block(instructions)))
        elif instructions or not (self._turns.typed or context):
            if instructions:
                context.append({"role": "model", "parts": [{"text": instructions}]})
            context.append(_user("."))
        self._turns.typed = False
        content: dict[str, Any] = {"turns": context} if context else {}
        return _frame("clientContent", {**content, "turnComplete": True})

    def _ask_in_text(self, command: m.CreateReply) -> Sequence[m.Frame]:
        text = plain_text(command.context, calls=self._turns.calls)
        if self._turns.active and not text and not command.instructions:
            return self._end_activity()
        if self._speaks_next and not text and not command.instructions:
            return ()
        lines = [text] if text else []
        if command.instructions or not text:
            lines.append(instructions_block(command.instructions or "Answer now."))
        return _frame("realtimeInput", {"text": "\n".join(lines)})

    @property
    def _speaks_next(self) -> bool:
        """Whether the service is about to speak by itself, or will when it has the results that it
        waits for."""
        return bool(self._turns.due or (self._turns.waits and self._turns.open_calls))

    def _start_activity(self) -> Sequence[m.Frame]:
        if not self._manual or self._turns.active:
            return ()
        self._turns.active = True
        return _frame("realtimeInput", {"activityStart": {}})

    def _end_activity(self) -> Sequence[m.Frame]:
        if not self._turns.active:
            return ()
        self._turns.active = False
        self._turns.due = "speech"
        return _frame("realtimeInput", {"activityEnd": {}})

    # -- calls -------------------------------------------------------------------------------

    def _is_owed(self, call_id: str) -> bool:
        return call_id in self._turns.open_calls

    def _answer(self, output: FunctionCallOutput) -> Sequence[m.Frame]:
        call = self._turns.calls.get(output.call_id)
        if not self._is_owed(output.call_id):
            # A call of an earlier connection: this one does not wait for its result.
            text = plain_text([output], calls=self._turns.calls)
            self._turns.will_speak(reply=output.reply_required)
            if self._rules.context == "initial":
                return _frame("realtimeInput", {"text": text})
            return _frame(
                "clientContent",
                {"turns": [_user(text)], "turnComplete": output.reply_required},
            )
        self._turns.open_calls.pop(output.call_id, None)
        scheduling: str | None = None
        if not self._turns.waits and not self._vertex and self._rules.scheduling == "taken":
            wanted = self._options.get("toolResponseScheduling")
            scheduling = wanted if output.reply_required else "SILENT"
        made = function_response(
            output,
            name=output.name or (call.name if call is not None else ""),
            call_id=output.call_id if call is None else wire_id(call),
            scheduling=scheduling,
            media=self._rules.result_media,
        )
        self._turns.batch.append(made)
        if self._turns.waits and self._turns.open_calls:
            return ()  # the model waits for all results
        return self._results(output.reply_required or self._turns.waits)

    def _results(self, reply: bool) -> Sequence[m.Frame]:
        made, self._turns.batch = self._turns.batch, []
        self._turns.answered(reply=reply)
        return _frame("toolResponse", {"functionResponses": made})

    def _abandon(self, call: FunctionCall, why: str) -> Sequence[m.Frame]:
        output = FunctionCallOutput(call_id=call.call_id, output=why, is_error=True)
        if self._is_owed(call.call_id):
            return self._answer(output)
        self._turns.know(call)
        silent = not self._turns.waits and not self._vertex and self._rules.scheduling == "taken"
        response = function_response(
            output,
            name=call.name,
            call_id=wire_id(call),
            scheduling="SILENT" if silent else None,
        )
        return _frame("toolResponse", {"functionResponses": [response]})

    # -- events ------------------------------------------------------------------------------

    def receive(self, frame: m.Frame) -> Sequence[m.Event]:
        message = read_frame(frame, pieces=("text",))
        if message is None:
            self._skipped += 1
            return ()
        events: list[m.Event] = []
        for name, read in self._readers.items():
            if name not in message:
                continue
            fields = jsontext.as_mapping(message[name])
            if fields is None:
                self._skipped += 1
                continue
            try:
                events += read(fields)
            except (TypeError, KeyError, AttributeError, ValueError):
                # A field has an unexpected type: drop the part, keep the session.
                self._skipped += 1
        if not _KNOWN & message.keys():
            self._skipped += 1
        return events

    def _usage(self, fields: dict[str, Any]) -> list[m.Event]:
        usage = usage_of(fields)
        return [] if usage is None else [m.UsageReported(self._turns.bill, usage)]

    def _setup_complete(self, _: dict[str, Any]) -> list[m.Event]:
        if self._ready:
            return []
        self._ready = True
        return [m.SessionReady()]

    def _go_away(self, fields: dict[str, Any]) -> list[m.Event]:
        return [m.SessionEnding(_seconds(fields.get("timeLeft")))]

    def _resumption(self, fields: dict[str, Any]) -> list[m.Event]:
        handle = jsontext.as_text(fields.get("newHandle"))
        # While it speaks or a call has no result, the service offers no handle. The previous one stays
        # valid, and newer items are sent as history.
        if fields.get("resumable") is not True or not handle or self._turns.open_calls:
            return []
        return [m.Resumable(handle)]

    def _error(self, fields: dict[str, Any]) -> list[m.Event]:
        status = fields.get("code")
        status = status if isinstance(status, int) else 0
        message = jsontext.as_text(fields.get("message")) or "the service reported an error"
        fatal = status in (400, 401, 403, 404)
        error = APIStatusError(message, status_code=status or -1, body=fields, retryable=not fatal)
        return [m.ServiceFailed(error, fatal=fatal)]

    # -- the end -----------------------------------------------------------------------------

    def closed(self, code: int | None, reason: str) -> m.ServiceFailed | None:
        told = reason or "no reason given"
        if code is None or (self._resumed and not self._turns.bill):
            return None  # another connection may succeed without the handle
        if not self._ready:
            if code not in _SETUP_CODES and code < 3000:
                return None
            text = (
                f"the service closed the session before it began, with code {code}: {told}; check "
                f"`model` ({self._model()!r}), the API key, `api_version` and the options"
            )
        elif code == 1007 or (code == 1008 and "not found" not in reason):
            text = (
                f"the service closed the session with code {code}: {told}; {self._model()!r} did not accept "
                "something it was sent, or the conversation is too long "
                "(see `context_window_compression`)"
            )
        else:
            return None
        return m.ServiceFailed(APIConnectionError(text, retryable=False), fatal=True)


_KNOWN: Final = frozenset(
    {
        "setupComplete",
        "voiceActivity",
        "serverContent",
        "toolCall",
        "toolCallCancellation",
        "sessionResumptionUpdate",
        "goAway",
        "error",
        "usageMetadata",
        "voiceActivityDetectionSignal",
    }
)


def _frame(name: str, value: Mapping[str, Any]) -> tuple[str]:
    return (jsontext.encode({name: value}).decode(),)


def _user(text: str) -> dict[str, Any]:
    return {"role": "user", "parts": [{"text": text}]}


def _seconds(value: object) -> float:
    """A duration: ``"50s"``, ``"1.5s"``."""
    if isinstance(value, int | float):
        return float(value)
    try:
        return float(jsontext.as_text(value).removesuffix("s"))
    except ValueError:
        return 0.0
