"""Servers of the page in a thread of their own, and a real browser in front of them."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from rejoinder import function_tool
from rejoinder.testing import Answer, Call, FaultServer
from web.laboratory import Page as Served
from web.laboratory import provider, serving

PROBLEMS = ("error", "warning")


@function_tool
async def weather(city: str) -> str:
    """The weather in a city."""
    await asyncio.sleep(0.3)
    return f"sunny in {city}, 21 degrees"


@contextmanager
def running(site: Callable[[], AbstractAsyncContextManager[Any]]) -> Generator[Any]:
    """What `site` yields, while it runs on the loop of another thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def wait(work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(30)

    manager = site()
    try:
        found = wait(manager.__aenter__())
        try:
            yield found
        finally:
            wait(manager.__aexit__(None, None, None))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


@contextmanager
def two_models(
    first: Sequence[Answer] | Answer,
    second: Sequence[Answer] | Answer,
    *,
    tools: Sequence[Any] | None = None,
    **options: Any,
) -> Generator[tuple[Served, FaultServer]]:
    """A page with two models, each with a server of its own."""

    @asynccontextmanager
    async def site() -> Any:
        async with FaultServer() as one, FaultServer() as two:
            for server, told in ((one, first), (two, second)):
                answers = [told] if isinstance(told, Answer) else list(told)
                server.script(*answers[:-1])
                server.always(answers[-1])
            names = ["gpt-large", "gpt-small"]
            models = [provider(one, names[0]), provider(two, names[1])]
            given = [weather] if tools is None else tools
            async with serving(models, tools=given, names=names, **options) as page:
                yield page, one

    with running(site) as found:
        yield found


@contextmanager
def browser(*arguments: str) -> Generator[Browser]:
    """Chromium, as Debian ships it."""
    path = shutil.which("chromium")
    assert path is not None, "chromium is missing (requirements/debian.txt)"
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(
            executable_path=path,
            args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", *arguments],
        )
        yield running
        running.close()


@contextmanager
def opened(browser: Browser, url: str, **options: Any) -> Generator[Page]:
    """The page, ready. It may complain of nothing, and ask no other host."""
    context = browser.new_context(**options)
    page = context.new_page()
    complaints: list[str] = []
    foreign: list[str] = []
    page.on("console", lambda m: complaints.append(m.text) if m.type in PROBLEMS else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    origin = url.partition("#")[0]
    page.on(
        "request",
        lambda r: None if r.url.startswith((origin, "data:", "blob:")) else foreign.append(r.url),
    )
    page.goto(url)
    page.wait_for_selector("body[data-loaded]")
    yield page
    context.close()
    assert complaints == []
    assert foreign == []


def ask(page: Page, text: str) -> None:
    """Send a message."""
    page.fill("#question", text)
    page.keyboard.press("Enter")


def answered(page: Page) -> None:
    """Wait until the turn is over."""
    page.wait_for_selector("#stop", state="hidden")
    page.wait_for_selector("#numbers dd")


def weather_answers() -> list[Answer]:
    called = Call("weather", '{"city": "Paris"}')
    also = Call("weather", '{"city": "Rome"}')
    return [Answer(calls=[called, also]), Answer(text=["It is sunny ", "in both: ", "21 degrees."])]
