"""The realtime services that play OpenAI, Google and Amazon, under the same names."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from rejoinder.llm import RealtimeModel
from rejoinder.testing import GeminiConnection, RealtimeServer, ServerCall, ServerReply
from rejoinder.testing.sonic_server import SonicReply, SonicServer

VENDORS = ("openai", "google", "aws")
CALL = ServerCall("get_weather", '{"city": "Oslo"}', "call_1")


class Service:
    """One service, and a model that reaches it."""

    def __init__(self, vendor: str, server: Any) -> None:
        self.vendor = vendor
        self.server = server

    def model(self, **options: Any) -> RealtimeModel:
        if self.vendor == "openai":
            from rejoinder.providers.openai import realtime as openai

            return openai.RealtimeModel(base_url=self.server.url, api_key="k", **options)
        if self.vendor == "google":
            from rejoinder.providers.google import realtime as google

            url = self.server.url.removesuffix("/v1")
            return google.RealtimeModel(base_url=url, api_key="k", **options)
        from rejoinder.providers.aws import realtime as aws

        return aws.RealtimeModel(
            base_url=self.server.url, api_key="AKIDEXAMPLE", api_secret="a-secret", **options
        )

    def reply(self, *words: str, ms: int = 100, **options: Any) -> Any:
        if self.vendor == "aws":
            return SonicReply(words, ms=ms, **options)
        return ServerReply(list(words), ms=ms, **options)

    def will_say(self, *words: str, **options: Any) -> None:
        self.server.reply(self.reply(*words, **options))

    @property
    def connection(self) -> Any:
        """The newest connection, as the service sees it."""
        return self.server.connections[-1]

    async def user_says(self, text: str, *answer: str, **options: Any) -> None:
        """The user speaks, and the model answers by itself."""
        await self.connection.speech(text)
        reply = self.reply(*answer, **options)
        if self.vendor == "aws":
            self.connection.later(self.connection.speak(reply))
        else:
            await self.connection.begin_reply(reply)

    @property
    def results(self) -> str:
        """What the service was given as results of tools."""
        connection = self.connection
        if self.vendor == "openai":
            found = [item for item in connection.contents.values() if "output" in item]
        elif self.vendor == "google":
            found = connection.results
        else:
            found = [event for event in connection.events if "toolResult" in event]
        return str(found)

    @property
    def heard_bytes(self) -> int:
        """How much sound the service was given, in bytes."""
        if self.vendor == "aws":
            return len(self.connection.grammar.audio)
        return len(self.connection.audio)


@asynccontextmanager
async def serving(vendor: str) -> AsyncGenerator[Service]:
    server: Any = {
        "openai": RealtimeServer,
        "google": lambda: RealtimeServer(connection=GeminiConnection),
        "aws": SonicServer,
    }[vendor]()
    async with server:
        yield Service(vendor, server)
        assert not getattr(server, "illegal", [])
