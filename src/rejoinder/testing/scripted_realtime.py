"""A realtime model that plays the script of a test.

::

    model = ScriptedRealtimeModel("Hello there.", ServerReply(calls=[ServerCall("weather")]))
    session = model.session()
    ...
    model.assert_used_up()

There is no network; the session is the real one, with its deadlines on the loop's clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from rejoinder._options import AMOUNT, SECONDS, Rule, checked
from rejoinder.providers.openai.realtime import RealtimeModel
from rejoinder.testing.realtime_connection import RealtimeConnection, ServerReply
from rejoinder.testing.realtime_faults import RealtimeFault
from rejoinder.testing.realtime_service import RealtimeService
from rejoinder.testing.scripted import ScriptExhaustedError
from rejoinder.types import DEFAULT_API_CONNECT_OPTIONS, APIConnectOptions

__all__ = ["ScriptedRealtimeModel", "ScriptedRequest", "SpokenStep"]

SpokenStep: TypeAlias = str | ServerReply | RealtimeFault
"""One step of the script: speak a text word by word, send a reply with calls or another end, or fail
like a real service."""


@dataclass(frozen=True, slots=True)
class ScriptedRequest:
    """A request for a reply.

    Attributes:
        connection: number of the connection, 1 for the first one.
        instructions: those of the reply, else those of the session.
        tools: names of the tools that were offered.
        history: the conversation at that moment: role or type of each item, and its text.
    """

    connection: int
    instructions: str
    tools: tuple[str, ...]
    history: tuple[tuple[str, str], ...]


class _Service(RealtimeService):
    def __init__(self) -> None:
        super().__init__()
        self.requests: list[ScriptedRequest] = []
        self.too_many = 0

    def asked(self, connection: RealtimeConnection, response: dict[str, Any]) -> None:
        session = connection.session
        tools = response.get("tools", session.get("tools")) or ()
        self.requests.append(
            ScriptedRequest(
                connection=connection.number,
                instructions=response.get("instructions") or session.get("instructions") or "",
                tools=tuple(tool["name"] for tool in tools),
                history=tuple(_told(connection.contents[item]) for item in connection.items),
            )
        )

    def next_reply(self) -> ServerReply:
        if not any(isinstance(step, ServerReply) for step in self._script):
            self.too_many += 1
            return ServerReply(
                status="failed",
                details={
                    "type": "failed",
                    "error": {
                        "type": "script_exhausted",
                        "code": "script_exhausted",
                        "message": "the script of the ScriptedRealtimeModel has no further reply",
                    },
                },
            )
        return super().next_reply()


_STEPS: Final = Rule(
    "texts, ServerReply or RealtimeFault",
    lambda value: isinstance(value, str | ServerReply | RealtimeFault),
)


class ScriptedRealtimeModel(RealtimeModel):
    """A `RealtimeModel` without a provider. Sessions, deadlines, metrics and events are the real ones.

    Args:
        steps: one step for each request for a reply. A connection fault applies to the next
            connection.
        modalities: ``["text"]`` for text only.
        reply_timeout, silence_timeout, max_session_duration, conn_options: as of
            `rejoinder.providers.openai.realtime.RealtimeModel`.

    Attributes:
        service: plays the service: its `connections` let a user speak and show what was sent.
    """

    @checked(reply_timeout=SECONDS, silence_timeout=SECONDS, max_session_duration=AMOUNT.optional)
    def __init__(
        self,
        *steps: SpokenStep,
        modalities: Sequence[Literal["text", "audio"]] = ("text", "audio"),
        reply_timeout: float = 10.0,
        silence_timeout: float = 20.0,
        max_session_duration: float | None = None,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
    ) -> None:
        self.service = _Service()
        self._memory = self.service.transport()
        super().__init__(
            modalities=modalities,
            base_url="http://scripted.invalid",
            api_key="none",
            reply_timeout=reply_timeout,
            silence_timeout=silence_timeout,
            max_session_duration=max_session_duration,
            conn_options=conn_options,
            dialect="ga",
            transport=self._memory,
        )
        self.then(*steps)

    @property
    def model(self) -> str:
        return "scripted"

    @property
    def provider(self) -> str:
        return "testing"

    @property
    def requests(self) -> list[ScriptedRequest]:
        """The requests so far."""
        return list(self.service.requests)

    def then(self, *steps: SpokenStep) -> None:
        """Append steps to the script."""
        for number, step in enumerate(steps):
            _STEPS.check(f"steps[{number}]", step)
            if isinstance(step, RealtimeFault):  # first: it is a string too
                self.service.fault(step)
            elif isinstance(step, ServerReply):
                self.service.reply(step)
            else:
                self.service.say(step)

    def assert_used_up(self) -> None:
        """Check that the script was played to its end, and that no more replies were requested.

        Raises:
            AssertionError: steps are left.
            ScriptExhaustedError: more replies were requested than the script has.
        """
        if self.service.too_many:
            raise ScriptExhaustedError(
                f"{self.service.too_many} more replies were asked for than the script has"
            )
        assert not self.service.unused, f"{self.service.unused} steps of the script are left"

    async def aclose(self) -> None:
        """Close the sessions, and end the service."""
        await super().aclose()
        await self.service.aclose()
        await self._memory.aclose()


def _told(item: dict[str, Any]) -> tuple[str, str]:
    """The role or type of an item, and its text."""
    match item.get("type"):
        case "message":
            parts: list[dict[str, Any]] = item.get("content") or []
            text = "".join(part.get("text") or part.get("transcript") or "" for part in parts)
            return str(item.get("role")), text
        case "function_call":
            return "function_call", f"{item.get('name')}({item.get('arguments')})"
        case "function_call_output":
            return "function_call_output", str(item.get("output"))
        case kind:
            return str(kind), ""
