"""The backend model of a Live session: its calls, and the results they get. Pure.

The backend runs the tasks that the speech model delegates (``delegation="responses"``). Its events are
those of the Responses API, each in an envelope. A call is passed on when its response is complete, so a
failed response calls nothing. The backend continues when all calls have their results; it would refuse
a part of a batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rejoinder._core import jsontext
from rejoinder._core.chunks import CompletionUsage
from rejoinder._core.items import FunctionCall, FunctionCallOutput
from rejoinder._core.realtime import messages as m
from rejoinder.errors import APIError
from rejoinder.metrics import RealtimeModelMetrics
from rejoinder.providers.openai.realtime_errors import api_error
from rejoinder.providers.openai.usage import usage_from_responses

__all__ = ["LiveBackend"]

_REMEMBERED: Final = 1024
_ENDS: Final = frozenset({"response.completed", "response.failed", "response.incomplete"})


class LiveBackend:
    """Reads the events of the backend, and keeps its open calls.

    Attributes:
        open_calls: ids of the calls without a result.
        names: names of the tools by the id of their call.
    """

    def __init__(self) -> None:
        self._calls: dict[str, list[FunctionCall]] = {}
        self.open_calls: dict[str, None] = {}
        self.names: dict[str, str] = {}

    @property
    def idle(self) -> bool:
        """Whether no response runs and no call is open."""
        return not self._calls and not self.open_calls

    def read(self, envelope: Mapping[str, Any]) -> tuple[list[FunctionCall], list[m.Event]]:
        """The calls to pass on, and further events."""
        event = jsontext.as_mapping(envelope.get("event")) or {}
        kind = event.get("type")
        key = jsontext.as_text(envelope.get("delegation_id"))
        if kind == "response.created":
            self._calls.setdefault(key, [])
        elif kind == "response.output_item.done":
            call = _call(jsontext.as_mapping(event.get("item")) or {})
            if call is not None and call.call_id not in self.names:
                self.names[call.call_id] = call.name
                if len(self.names) > _REMEMBERED:
                    del self.names[next(iter(self.names))]
                self._calls.setdefault(key, []).append(call)
        elif kind in _ENDS:
            return self._ended(key, str(kind), jsontext.as_mapping(event.get("response")) or {})
        elif kind == "error":
            self._calls.pop(key, None)
            error, fatal, code = api_error(event, "the backend model failed")
            return [], [m.ServiceFailed(error, fatal=fatal, code=code)]
        return [], []

    def _ended(
        self, key: str, kind: str, response: Mapping[str, Any]
    ) -> tuple[list[FunctionCall], list[m.Event]]:
        calls = self._calls.pop(key, [])
        events: list[m.Event] = []
        usage = usage_from_responses(response.get("usage"))
        if usage is not None:
            events.append(m.UsageReported("", _usage(usage)))
        if kind == "response.completed":
            self.open_calls.update(dict.fromkeys(call.call_id for call in calls))
            return calls, events
        if kind == "response.failed":
            error, fatal, code = api_error(response.get("error"), "the backend model failed")
            events.append(m.ServiceFailed(error, fatal=fatal, code=code))
        else:
            details = jsontext.as_mapping(response.get("incomplete_details")) or {}
            reason = jsontext.as_text(details.get("reason")) or "no reason given"
            error = APIError(f"the backend model gave no complete answer: {reason}", body=response)
            events.append(m.ServiceFailed(error))
        return [], events

    def answer(self, output: FunctionCallOutput) -> list[dict[str, Any]]:
        """The commands for the result of an open call."""
        self.open_calls.pop(output.call_id, None)
        item = {
            "type": "function_call_output", "call_id": output.call_id, "output": output.output,
        }  # fmt: skip
        commands: list[dict[str, Any]] = [{"type": "response.item.create", "item": item}]
        if not self.open_calls:
            commands.append({"type": "response.create"})
        return commands


def _call(item: Mapping[str, Any]) -> FunctionCall | None:
    name, call_id = jsontext.as_text(item.get("name")), jsontext.as_text(item.get("call_id"))
    if item.get("type") != "function_call" or not name or not call_id:
        return None
    arguments = jsontext.as_text(item.get("arguments")) or "{}"
    item_id = jsontext.as_text(item.get("id")) or f"item_{call_id}"
    return FunctionCall(id=item_id, call_id=call_id, name=name, arguments=arguments)


def _usage(usage: CompletionUsage) -> m.Usage:
    metrics = RealtimeModelMetrics
    return m.Usage(
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        total_tokens=usage.total_tokens,
        input_details=metrics.InputTokenDetails(
            text_tokens=usage.prompt_tokens, cached_tokens=usage.prompt_cached_tokens
        ),
        output_details=metrics.OutputTokenDetails(text_tokens=usage.completion_tokens),
    )
