"""`check_realtime` passes a model that keeps the contract, and names what another one breaks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from rejoinder.llm.realtime import GenerationCreatedEvent
from rejoinder.providers.openai.realtime import RealtimeModel, RealtimeSession
from rejoinder.testing import RealtimeServer, ScriptedRealtimeModel, check_realtime


def scripted(**options: Any) -> ScriptedRealtimeModel:
    return ScriptedRealtimeModel(*(["Hello there."] * 30), **options)


@pytest.mark.looptime
async def test_the_scripted_model() -> None:
    await check_realtime(scripted)


@pytest.mark.looptime
async def test_text_alone() -> None:
    await check_realtime(lambda: scripted(modalities=["text"]))


@pytest.mark.parametrize("beta", [False, True])
async def test_a_model_over_a_network(beta: bool) -> None:
    async with RealtimeServer(beta=beta) as server:
        await check_realtime(
            lambda: RealtimeModel(
                base_url=server.url, api_key="any", dialect="beta" if beta else "ga"
            )
        )


class Broken(RealtimeSession):
    """A session that breaks one promise."""

    broken = ""
    asked: Sequence[asyncio.Future[GenerationCreatedEvent]] = ()

    def interrupt(self) -> None:
        if self.broken == "interrupt":
            raise RuntimeError("nothing to interrupt")
        super().interrupt()

    def truncate(self, **options: Any) -> None:
        if self.broken == "truncate" and options["audio_end_ms"] < 0:
            raise ValueError("negative")
        super().truncate(**options)

    async def aclose(self) -> None:
        if self.broken == "closing":
            for future in self.asked:
                future.cancel()
        await super().aclose()

    def generate_reply(self, **options: Any) -> asyncio.Future[GenerationCreatedEvent]:
        if self.broken == "twice" and not options:
            super().generate_reply(instructions="Again.")
        future = super().generate_reply(**options)
        self.asked = [*self.asked, future]
        return future

    @property
    def chat_ctx(self) -> Any:
        found = super().chat_ctx
        if self.broken == "history":
            found.items.reverse()
        return found


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("broken", "promise"),
    [
        ("interrupt", "An interrupt is always allowed"),
        ("truncate", "If the model supports truncation, it never raises"),
        ("closing", "`aclose` ends pending futures"),
        ("history", "A given history appears"),
        ("twice", "A reply is announced once"),
    ],
)
async def test_a_broken_promise_is_named(broken: str, promise: str) -> None:
    class Session(Broken):
        pass

    Session.broken = broken

    class Model(ScriptedRealtimeModel):
        def _new_session(self, settings: dict[str, Any]) -> RealtimeSession:
            return Session(self, settings)

    with pytest.raises(AssertionError, match=promise):
        await check_realtime(lambda: Model(*(["Hello there."] * 30)))
