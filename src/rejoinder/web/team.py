"""The models of the page, with the policy and the faults that are switched on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, cast, get_args

from rejoinder import _watch
from rejoinder._core.budget import OnCut
from rejoinder.errors import APIError
from rejoinder.llm.fallback_adapter import FallbackAdapter, Hedge, TurnBudget
from rejoinder.llm.llm import LLM
from rejoinder.metrics import LLMMetrics
from rejoinder.transport.http import HttpTransport
from rejoinder.web.wire import FAULTS, FaultSwitch, MemoryRecorder

__all__ = ["Choice", "PolicyChoice", "SettingError", "Team"]

_LONGEST: Final = 600.0


class SettingError(ValueError):
    """A setting cannot be used. The text is one sentence."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A model that the page can use.

    Attributes:
        name: its name on the command line.
        make: makes it from a transport, or from ``None`` for a model on this machine.
        local: it runs on this machine and sends nothing.
        load: a function that loads a local model.
    """

    name: str
    make: Callable[[HttpTransport | None], LLM[Any]]
    local: bool = False
    load: Callable[[LLM[Any]], Awaitable[None]] | None = None


@dataclass(frozen=True, slots=True)
class PolicyChoice:
    """The policy of the fallback; used with two or more models.

    Attributes:
        attempt_timeout: seconds each model has for its first output.
        hedge: seconds of silence after which a second model is asked too; ``None``: never.
        on_cut: how to continue after a reply that breaks off.
        first_token_by: seconds the whole turn has for its first output; ``None``: no limit.
    """

    attempt_timeout: float = 10.0
    hedge: float | None = None
    on_cut: OnCut = "resume"
    first_token_by: float | None = None

    @classmethod
    def read(cls, data: Any) -> PolicyChoice:
        """The policy in parsed JSON; missing settings have their defaults.

        Raises:
            SettingError: a setting is unknown or has a wrong value.
        """
        if not isinstance(data, dict):
            raise SettingError(f"policy: expected an object, got {type(data).__name__}")
        given = cast("dict[str, Any]", data)
        unknown = given.keys() - {"attempt_timeout", "hedge", "on_cut", "first_token_by"}
        if unknown:
            raise SettingError(f"policy: unknown settings: {', '.join(sorted(unknown))}")
        policy = cls(**given)
        _seconds("attempt_timeout", policy.attempt_timeout)
        for name in ("hedge", "first_token_by"):
            if given.get(name) is not None:
                _seconds(name, given[name])
        if policy.on_cut not in get_args(OnCut):
            raise SettingError(
                f"on_cut: expected {', '.join(get_args(OnCut))}, got {policy.on_cut!r}"
            )
        return policy

    def adapter(self, models: list[LLM[Any]]) -> FallbackAdapter:
        """`models` under this policy."""
        return FallbackAdapter(
            models,
            attempt_timeout=self.attempt_timeout,
            hedge=None if self.hedge is None else Hedge(delay=self.hedge, max_share=1.0),
            budget=TurnBudget(first_token_by=self.first_token_by),
            on_cut=self.on_cut,
        )


def _seconds(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LONGEST:
        raise SettingError(f"{name}: expected seconds from 0 to {_LONGEST:g}, got {value!r}")


class _Member:
    """One model, and the switch between it and its server."""

    def __init__(self, choice: Choice, transport: Callable[[], HttpTransport]) -> None:
        self.choice = choice
        self.switch = FaultSwitch(transport(), always=choice.local)
        self.recorder = MemoryRecorder(self.switch)
        self.llm = choice.make(None if choice.local else self.recorder)
        self.llm.on("metrics_collected", _note_metrics)
        self._stand_in: LLM[Any] | None = None

    @property
    def current(self) -> LLM[Any]:
        """The model. While a fault is on, a stand-in replaces a model on this machine, because that one
        sends nothing that could fail."""
        if not self.choice.local or self.switch.fault is None:
            return self.llm
        if self._stand_in is None:
            from rejoinder.providers import openai

            self._stand_in = openai.LLM(
                model=self.llm.model,
                api_key="none",
                base_url="http://127.0.0.1/v1",
                transport=self.recorder,
            )
            self._stand_in.on("metrics_collected", _note_metrics)
        return self._stand_in

    async def aclose(self) -> None:
        await self.llm.aclose()
        if self._stand_in is not None:
            await self._stand_in.aclose()
        await self.recorder.aclose()


def _note_metrics(metrics: LLMMetrics) -> None:
    _watch.note("metrics", metrics=metrics)


class Team:
    """The models of the page as one `llm`.

    Args:
        choices: the models, in order of preference.
        transport: makes the transport of one model.
    """

    def __init__(
        self, choices: Sequence[Choice], *, transport: Callable[[], HttpTransport] | None = None
    ) -> None:
        self._members = [_Member(choice, transport or _aiohttp) for choice in choices]
        self._policy = PolicyChoice()
        self._loading: dict[int, asyncio.Task[None]] = {}
        self._made: tuple[list[LLM[Any]], LLM[Any]] | None = None

    @property
    def names(self) -> list[str]:
        """The names of the models."""
        return [member.choice.name for member in self._members]

    @property
    def asked_as(self) -> list[str]:
        """The names of the models in a timeline."""
        return [member.llm.model for member in self._members]

    @property
    def policy(self) -> PolicyChoice:
        """The policy in force."""
        return self._policy

    @property
    def llm(self) -> LLM[Any]:
        """The LLM for the next turn."""
        models = [member.current for member in self._members]
        if len(models) == 1:
            return models[0]
        if self._made is None or self._made[0] != models:
            self._made = (models, self._policy.adapter(models))
        return self._made[1]

    async def load(self) -> None:
        """Load the models that run on this machine, once. Wait only for the first one: a run uses the
        others only if the first one fails or cannot be loaded.

        Raises:
            APIError: the only model is not available.
        """
        for number, member in enumerate(self._members):
            load = member.choice.load
            if load is None or member.current is not member.llm:
                continue
            task = self._loading.get(number)
            if task is None or (task.done() and _failed(task)):
                task = self._loading[number] = asyncio.ensure_future(load(member.llm))
                task.add_done_callback(_failed)  # asyncio logs an error that is never read
            if number > 0:
                continue
            try:
                await asyncio.shield(task)
            except APIError:
                if len(self._members) == 1:
                    raise

    def facts(self) -> dict[str, Any]:
        """The settings, for the page."""
        return {
            "models": [
                {
                    "name": member.choice.name,
                    "local": member.choice.local,
                    "fault": member.switch.fault,
                    "once": member.switch.once,
                }
                for member in self._members
            ],
            "policy": asdict(self._policy),
            "faults": FAULTS,
        }

    def change(self, data: Mapping[str, Any]) -> None:
        """Apply changed settings: all of them, or none.

        Raises:
            SettingError: one cannot be used.
        """
        unknown = data.keys() - {"policy", "faults"}
        if unknown:
            raise SettingError(f"unknown settings: {', '.join(sorted(unknown))}")
        policy = self._policy
        if "policy" in data:
            policy = PolicyChoice.read(data["policy"])
        faults: Any = data.get("faults", [])
        if not isinstance(faults, list):
            raise SettingError(f"faults: expected an array, got {type(faults).__name__}")
        switched = [self._fault(entry) for entry in cast("list[Any]", faults)]
        if policy != self._policy:
            self._policy, self._made = replace(policy), None
        for member, kind, once in switched:
            member.switch.switch(kind, once=once)

    def _fault(self, entry: Any) -> tuple[_Member, Any, bool]:
        fields = cast("dict[str, Any]", entry) if isinstance(entry, dict) else {}
        number = fields.get("model")
        if not isinstance(number, int) or not 0 <= number < len(self._members):
            raise SettingError(
                'faults: expected objects such as {"model": 0, "fault": "stall", "once": true}, '
                f"with a model from 0 to {len(self._members) - 1}"
            )
        kind, once = fields.get("fault"), bool(fields.get("once"))
        if kind is not None and kind not in FAULTS:
            raise SettingError(f"fault: expected {', '.join(FAULTS)} or null, got {kind!r}")
        return self._members[number], kind, once

    async def aclose(self) -> None:
        """Close everything."""
        for task in self._loading.values():
            task.cancel()
        for member in self._members:
            await member.aclose()


def _failed(task: asyncio.Task[None]) -> bool:
    return task.cancelled() or task.exception() is not None


def _aiohttp() -> HttpTransport:
    from rejoinder.transport._aiohttp import AiohttpTransport

    return AiohttpTransport()
