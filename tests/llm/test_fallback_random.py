"""Any course of things: models that stall, die, refuse, think, send nothing or everything, at random
moments, under every policy. What is promised holds for all of them."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from llm.fallback_models import ROLE, THINKING, USAGE, Model, Stream, call, listen, question, text
from rejoinder.errors import (
    APIConnectionError,
    APIError,
    APIStatusError,
    EmptyResponseError,
    RefusalError,
)
from rejoinder.llm import LLMStream
from rejoinder.llm.fallback_adapter import BreakerOptions, FallbackAdapter, Hedge, TurnBudget
from rejoinder.types import APIConnectOptions

WHOLE = "".join(f"w{number} " for number in range(12)).strip()
ERRORS: list[type[Exception]] = [APIConnectionError, ValueError, TimeoutError]


class Knowing(Model):
    """Knows the whole reply, goes on after what it is shown, and has its bad moments."""

    def __init__(self, name: str, dice: random.Random, *, calls: bool) -> None:
        super().__init__(name, [], prefill=True)
        self.dice = dice
        self.pays = calls

    def chat(self, **given: Any) -> LLMStream:
        context = given["chat_ctx"]
        last = context.items[-1]
        probe = last.text_content == "Say: ok"
        said = last.text_content if last.role == "assistant" else ""
        assert probe or WHOLE.startswith(said)
        self.asked.append(context)
        options = given["conn_options"]
        if self.dice.random() < 0.2:
            options = APIConnectOptions(timeout=0)  # some do not listen
        return Stream(
            self,
            self.steps("ok" if probe else WHOLE[len(said) :]),
            chat_ctx=context,
            tools=[],
            conn_options=options,
        )

    def steps(self, rest: str) -> list[Any]:
        dice = self.dice
        steps: list[Any] = []
        for noise in (ROLE, USAGE, THINKING, text(""), 0.01, 0.5, 1.2):
            if dice.random() < 0.25:
                steps.append(noise)
        while rest:
            size = dice.randint(1, 9)
            steps.append(rest[:size])
            rest = rest[size:]
            if dice.random() < 0.2:
                steps.append(dice.choice([0, 0.02, 0.6]))
        if self.pays:
            steps.append(call("pay"))
        steps.append(USAGE)
        if dice.random() < 0.5:
            at = dice.randrange(len(steps) + 1)
            end = dice.choice([1e6, "error", "error", "status", "refusal", "empty"])
            error: Any = end
            if end == "error":
                error = dice.choice(ERRORS)("broken")
            elif end == "status":
                error = APIStatusError("status", status_code=dice.choice([400, 429, 500, 529]))
            elif end == "refusal":
                error = RefusalError("no")
            elif end == "empty":
                at, error = 0, EmptyResponseError("nothing")
            steps[at:] = [error]
        return steps


@pytest.mark.looptime
@pytest.mark.parametrize("seed", range(8))
async def test_any_course_of_things(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.get_running_loop()
    for number in range(60):
        dice = random.Random(f"{seed} {number}")
        calls = dice.random() < 0.3
        models: list[Any] = [
            Knowing(name, dice, calls=calls) for name in "ABCD"[: dice.randint(1, 4)]
        ]
        policy: Any = dice.choice(["stop", "restart", "resume"])
        done_by = dice.choice([None, None, 3.0])
        hedge = dice.choice([None, Hedge(delay=0.3, max_share=1.0)])
        adapter = FallbackAdapter(
            models,
            attempt_timeout=1.0,
            max_retry_per_llm=dice.choice([0, 0, 1]),
            budget=TurnBudget(done_by=done_by, first_token_by=dice.choice([None, 2.5])),
            hedge=hedge,
            on_cut=policy,
            breaker=BreakerOptions(cooldown=0.1, probe_timeout=1.0),
        )
        events, metrics = listen(adapter)
        where = f"seed {seed} {number} {policy}"
        for _ in range(3):
            heard, ran, failed = "", 0, False
            cut_short = False
            leaves = dice.random() < 0.1
            start = loop.time()
            try:
                async with asyncio.timeout(100), adapter.chat(chat_ctx=question()) as stream:
                    async for chunk in stream:
                        delta = chunk.delta
                        if delta is None:
                            continue
                        event = (delta.extra or {}).get("rejoinder")
                        if event and event["event"] == "restart":
                            assert event["discard"] == heard, where
                            assert policy == "restart", where
                            heard = ""
                        if event and event["event"] in ("cut_after_tool_call", "nothing_to_add"):
                            assert policy == "resume", where
                            cut_short = True
                        heard += delta.content or ""
                        ran += len(delta.tool_calls)
                        if leaves and dice.random() < 0.2:
                            break
                    else:
                        leaves = False
            except APIError:
                failed = True
            except (ValueError, TimeoutError):  # of a model that had spoken: raised as it is
                failed = True
            assert ran <= 1, where
            assert WHOLE.startswith(heard), where  # nothing twice, nothing out of its place
            if not failed and not leaves and heard:
                assert heard == WHOLE or cut_short, where
                assert ran == int(calls) or cut_short, where
            if done_by is not None:
                assert loop.time() - start <= done_by + 0.05, where
            if dice.random() < 0.5:
                await asyncio.sleep(0.2)
        start = loop.time()
        await adapter.aclose()
        assert loop.time() - start <= 1.0, where
        assert asyncio.all_tasks() == {asyncio.current_task()}, where
        states: dict[str, bool] = {}
        for name, available in events:  # each change is told once
            assert states.get(name, True) is not available, where
            states[name] = available
        assert len(metrics) <= sum(len(model.asked) for model in models) * 2, where
    assert not [r for r in caplog.records if r.name == "asyncio"]
