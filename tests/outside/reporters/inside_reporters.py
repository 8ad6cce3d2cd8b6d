"""Run by the interpreter that has the error reporters: fails in many ways, and prints what they show.

The keys come from the environment, so that no frame of this file holds one.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

import sentry_sdk
from rich.console import Console
from rich.traceback import Traceback

from rejoinder.errors import APIError, ConfigurationError
from rejoinder.llm import ChatContext
from rejoinder.providers import anthropic, aws, google, openai
from rejoinder.testing import Answer, Fault, FaultServer
from rejoinder.types import APIConnectOptions

OPTIONS = APIConnectOptions(max_retry=1, retry_interval=0.01, timeout=0.2)
FAULTS = (
    Fault.CLOSE_BEFORE_HEADERS,
    Fault.RESET_BEFORE_HEADERS,
    Fault.NOT_HTTP,
    Fault.STATUS_401,
    Fault.STALL_BEFORE_HEADERS,
    Fault.RESET_MID_STREAM,
    Fault.JSON_ERROR_200,
)


def models(url: str) -> list[Any]:
    return [
        openai.LLM(model="m", base_url=f"{url}/v1"),
        openai.LLM(model="m", base_url=f"{url}/v1", api="responses"),
        anthropic.LLM(model="m", base_url=url),
        google.LLM(model="m", base_url=url),
        aws.LLM(model="m", region="eu-west-1", base_url=url),
    ]


async def fail(llm: Any, *, cancelled: bool) -> None:
    context = ChatContext.empty()
    context.add_message(role="user", content="Hello")
    async with asyncio.timeout(0.05 if cancelled else None):
        await llm.chat(chat_ctx=context, conn_options=OPTIONS).collect()


async def failures() -> list[BaseException]:
    found: list[BaseException] = []
    async with FaultServer() as server:
        addresses = [(server.url, fault) for fault in FAULTS] + [("http://127.0.0.1:9", Fault.NONE)]
        for url, fault in addresses:
            server.always(Answer(fault=fault, message=f"bad key {os.environ['CANARY']}"))
            for llm in models(url):
                try:
                    await fail(llm, cancelled=fault is Fault.STALL_BEFORE_HEADERS)
                except (APIError, TimeoutError) as error:
                    found.append(error)
                await llm.aclose()
    try:
        openai.LLM(model="m", api_key=os.environ["CANARY"], temperature="hot")  # type: ignore[arg-type]
    except ConfigurationError as error:
        found.append(error)
    return found


def main() -> None:
    events: list[Any] = []
    sentry_sdk.init(
        dsn="https://public@127.0.0.1/1",
        before_send=lambda event, hint: events.append(event),
        send_default_pii=True,
    )
    errors = asyncio.run(failures())
    for error in errors:
        sentry_sdk.capture_exception(error)
    console = Console(record=True, file=open(os.devnull, "w"), width=200)  # noqa: SIM115
    for error in errors:
        trace = Traceback.from_exception(
            type(error), error, error.__traceback__, show_locals=True, locals_max_string=None
        )
        console.print(trace)
    json.dump(
        {
            "errors": len(errors),
            "sentry": json.dumps(events, default=repr),
            "rich": console.export_text(),
        },
        sys.stdout,
    )


async def test_refused() -> None:
    """For ``pytest -l``; it has to fail."""
    await fail(models("http://127.0.0.1:9")[0], cancelled=False)


def test_for_pytest() -> None:
    asyncio.run(test_refused())


if __name__ == "__main__":
    main()
