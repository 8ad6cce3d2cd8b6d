"""The page in a real browser when something goes wrong, or somebody wishes it ill."""

from __future__ import annotations

import socket
import threading
from collections.abc import Generator, Iterator
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect
from sites import answered, ask, browser, opened, running, two_models

from rejoinder import function_tool, prices
from rejoinder.llm import FunctionToolCall
from rejoinder.store import Record
from rejoinder.testing import Answer, Call, Fault, ScriptedLLM
from rejoinder.web.memory import MemoryStore
from web.laboratory import Page as Served
from web.laboratory import serving

STUCK = Answer(text=["One ", "two ", "three"], fault=Fault.STALL_MID_STREAM, after=2)
PAID = [
    Answer(calls=[Call("pay", '{"amount": 5}')]),
    Answer(calls=[Call("pay", '{"amount": 6}')]),
    Answer(text="Paid."),
]
paid: list[int] = []


@function_tool
async def pay(amount: int) -> str:
    """Pay."""
    paid.append(amount)
    return "done"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser("--host-resolver-rules=MAP evil.example 127.0.0.1") as found:
        yield found


@contextmanager
def one_model(llm: Any, **options: Any) -> Generator[Served]:
    @asynccontextmanager
    async def site() -> Any:
        async with serving([llm], **options) as page:
            yield page

    with running(site) as found:
        yield found


def texts(page: Page) -> list[str]:
    return page.locator(".message .text").all_text_contents()


def test_the_page_asks_once_before_and_once_after_it_is_drawn(chromium: Browser) -> None:
    with two_models(Answer(text="x"), Answer(text="x")) as (served, _):
        context = chromium.new_context()
        # What waits for other processes of the browser is not touched before the page is ready.
        context.add_init_script("""
          window.early = [];
          const storage = Storage.prototype, replace = history.replaceState;
          for (const name of ['getItem', 'setItem']) {
            const real = storage[name];
            storage[name] = function (...all) {
              if (!document.body?.dataset.ready) window.early.push(name);
              return real.apply(this, all);
            };
          }
          const real = window.fetch;
          window.fetch = (...all) => {
            if (!document.body?.dataset.ready) window.early.push('fetch');
            return real(...all);
          };
        """)
        page = context.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(served.address.url)
        page.wait_for_selector("body[data-loaded]")
        origin = f"http://127.0.0.1:{served.address.port}"
        paths = [
            url.removeprefix(origin).partition("?")[0] for url in asked if url.startswith("http")
        ]
        assert [path.partition("#")[0] for path in paths] == ["/", "/api/overview"]
        assert page.evaluate("window.early") == []
        context.close()


def test_a_tool_runs_when_it_was_allowed(chromium: Browser) -> None:
    paid.clear()
    with (
        two_models(PAID, Answer(text="x"), tools=[pay], approve=True) as (served, _),
        opened(chromium, served.address.url) as page,
    ):
        ask(page, "Pay 5, then 6")
        group = page.get_by_role("group", name="Run pay?")
        expect(group).to_be_visible()
        expect(page.locator("#status")).to_contain_text("allow or refuse")
        assert paid == []
        page.reload()  # the question is still there
        expect(group).to_be_visible()
        group.get_by_role("button", name="Allow", exact=True).focus()
        page.keyboard.press("Enter")
        expect(page.locator(".tool summary").first).to_have_text("pay: done")
        assert paid == [5]
        page.get_by_role("button", name="Refuse").click()
        expect(page.locator(".message.assistant .text").last).to_have_text("Paid.")
        expect(page.locator(".tool pre").last).to_contain_text("the user refused it")
        expect(page.locator(".approval")).to_have_count(0)
    assert paid == [5]


def test_what_a_turn_cost(chromium: Browser) -> None:
    prices.set_prices({"gpt-large": prices.Price(input=1000.0, output=1000.0)})
    try:
        with (
            two_models(Answer(text="Hello"), Answer(text="x")) as (served, _),
            opened(chromium, served.address.url) as page,
        ):
            ask(page, "Hi")
            answered(page)
            expect(page.locator("#numbers")).to_contain_text("$0.0")
            expect(page.locator("#numbers")).to_contain_text("from the cache")
    finally:
        prices.set_prices({})
    with (
        two_models(Answer(text="Hello"), Answer(text="x")) as (served, _),
        opened(chromium, served.address.url) as page,
    ):
        ask(page, "Hi")
        answered(page)
        expect(page.locator("#numbers")).to_contain_text("the price is not known")


def test_a_reload_keeps_what_was_said(chromium: Browser) -> None:
    with (
        two_models([STUCK, Answer(text="Four")], STUCK) as (served, _),
        opened(chromium, served.address.url) as page,
    ):
        ask(page, "Count")
        expect(page.locator(".message.assistant .text")).to_have_text("One two ")
        page.reload()
        page.wait_for_selector("body[data-loaded]")
        expect(page.locator(".message .text")).to_have_text(["Count", "One two "])
        expect(page.locator(".message.assistant .note")).to_have_text("stopped here")
        ask(page, "Go on")
        answered(page)
        assert texts(page) == ["Count", "One two ", "Go on", "Four"]


def test_a_server_that_was_started_again(chromium: Browser) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = chromium.new_context()
    page = context.new_page()
    problem = page.locator("#problem")
    with two_models([STUCK], STUCK, port=port) as (served, _):
        page.goto(served.address.url)
        page.wait_for_selector("body[data-loaded]")
        ask(page, "Count")
        expect(page.locator(".message.assistant .text")).to_have_text("One two ")
    expect(problem).to_contain_text("Start it again with rejoinder web", timeout=15_000)
    expect(page.locator("#stop")).to_be_hidden()
    ask(page, "Are you there?")
    expect(problem).to_contain_text("Start it again with rejoinder web")
    with two_models(Answer(text="Here"), STUCK, port=port) as (served, server):
        ask(page, "And now?")  # another token
        expect(problem).to_contain_text("open the address that `rejoinder web` has printed")
        page.goto(served.address.url)  # as the address bar does: only what is behind the # changes
        expect(problem).to_have_text("")
        page.locator(".message.user").last.get_by_role("button", name="Edit").click()
        page.fill("#question", "And now?")
        page.keyboard.press("Enter")
        expect(page.locator(".message.assistant .text").last).to_have_text("Here")
        sent = server.requests[-1].json()["messages"]
        assert [each["content"] for each in sent][:2] == ["Count", "One two "]
    context.close()


def test_two_tabs(chromium: Browser) -> None:
    answers = [Answer(text="One"), STUCK, Answer(text="Three")]
    with (
        two_models(answers, STUCK) as (served, _),
        opened(chromium, served.address.url) as first,
    ):
        ask(first, "A")
        answered(first)
        with opened(chromium, served.address.url) as second:
            second.locator("#conversations button").first.click()
            expect(second.locator(".message .text")).to_have_text(["A", "One"])
            ask(first, "B")
            expect(first.locator(".message.assistant .text").last).to_have_text("One two ")
            ask(second, "C")
            expect(second.locator("#problem")).to_contain_text("has a run already")
            first.keyboard.press("Escape")
            answered(first)
            ask(second, "D")
            expect(second.locator(".message.assistant .text").last).to_have_text("Three")
            expect(second.locator("#branches button")).to_have_count(2)


@contextmanager
def other_site() -> Generator[str]:
    """A page of somebody else."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>theirs</title>")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_port}/"
        server.shutdown()


def test_another_site_gets_nothing(chromium: Browser) -> None:
    with two_models(Answer(text="x"), Answer(text="x")) as (served, _), other_site() as theirs:
        context = chromium.new_context()
        page = context.new_page()
        port, token = served.address.port, served.address.token
        # A site of somebody else, on another port, that even knows the token.
        page.goto(theirs)
        for path in ("/", "/api/overview", f"/api/conversations/t?{token}"):
            told = page.evaluate(
                """async ([url, token]) => {
                  const headers = token ? { Authorization: `Bearer ${token}` } : {};
                  try { return (await fetch(url, { headers })).status; } catch { return 'refused'; }
                }""",
                [f"http://127.0.0.1:{port}{path}", token],
            )
            assert told == "refused"
        told = page.evaluate(
            """async (url) => {
              try { const a = await fetch(url, { method: 'POST', mode: 'no-cors', body: '{}' }); return a.type; }
              catch { return 'refused'; }
            }""",
            f"http://127.0.0.1:{port}/api/run",
        )
        assert told in ("opaque", "refused")  # it was sent, and answered with 403 or 401
        framed = page.evaluate(
            """async (url) => {
              const frame = document.createElement('iframe');
              frame.src = url;
              document.body.append(frame);
              await new Promise((done) => { frame.onload = done; setTimeout(done, 3000); });
              try { return frame.contentDocument?.body?.textContent ?? 'closed'; } catch { return 'closed'; }
            }""",
            served.address.url,
        )
        assert framed in ("closed", "")
        # A name of theirs that leads to this machine.
        answer = page.goto(f"http://evil.example:{port}/#{token}")
        assert answer is not None
        assert answer.status == 421
        assert page.locator("#question").count() == 0
        context.close()


def test_very_many_conversations(chromium: Browser) -> None:
    class Full(MemoryStore):
        def __init__(self) -> None:
            super().__init__()
            for number in range(3000):
                data = {"type": "message", "role": "user", "content": [f"word{number} " * 2000]}
                id = f"item_{number}"
                item = Record("item", item=id, data={"id": id, **data}, at=float(number))
                self._logs[f"conv_{number}"] = [item]

    with (
        one_model(ScriptedLLM("Hi"), store=Full()) as served,
        opened(chromium, served.address.url) as page,
    ):
        expect(page.locator("#conversations li")).to_have_count(100)
        expect(page.locator("#conversations button").first).to_contain_text("word2999")
        page.fill("#search", "word17")
        expect(page.locator("#conversations li")).to_have_count(100)
        page.fill("#search", "word1733")
        expect(page.locator("#conversations li")).to_have_count(1)
        page.locator("#conversations button").first.click()
        expect(page.locator(".message")).to_have_count(1)


def test_a_message_that_is_very_long(chromium: Browser) -> None:
    big = FunctionToolCall(
        name="echo", arguments='{"a": "' + "<b>x</b>" * 20_000 + '"}', call_id="c"
    )

    @function_tool
    async def echo(a: str) -> str:
        """Say it again."""
        return a

    with (
        one_model(ScriptedLLM([big], "y" * 300_000), tools=[echo]) as served,
        opened(chromium, served.address.url) as page,
    ):
        ask(page, "z" * 200_000)
        answered(page)
        assert [len(text) for text in texts(page) if text] == [200_000, 300_000]
        assert page.locator(".tool b").count() == 0
        page.fill("#question", "q" * 1_000_001)
        page.keyboard.press("Enter")
        expect(page.locator("#problem")).to_contain_text("at most 1000000")


def test_a_screen_reader_finds_its_way(chromium: Browser) -> None:
    with (
        two_models(STUCK, STUCK) as (served, _),
        opened(chromium, served.address.url) as page,
    ):
        for role, name in [
            ("navigation", "Conversations"), ("region", "Messages"),
            ("complementary", "Timeline and settings"), ("textbox", "Your message"),
            ("searchbox", "Search"), ("link", "Skip to the question"), ("button", "Send"),
        ]:  # fmt: skip
            assert page.get_by_role(role, name=name).count() == 1, (role, name)
        ask(page, "Count")
        expect(page.get_by_role("article", name="Model")).to_be_visible()
        expect(page.get_by_role("button", name="Stop")).to_be_visible()
        page.keyboard.press("Escape")
        answered(page)
        picture = page.get_by_role("img")
        expect(picture).to_have_attribute(
            "aria-label", "Timeline. " + page.locator("#why").inner_text()
        )
        expect(page.get_by_role("status")).to_have_text("The model said: One two ")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1280])
def test_words_can_be_read(chromium: Browser, scheme: Any, width: int) -> None:
    """Contrast of all texts that are shown, by the rule of WCAG 2.2 AA."""
    with (
        two_models(Answer(text="Hello"), Answer(text="x")) as (served, _),
        opened(
            chromium, served.address.url, color_scheme=scheme,
            viewport={"width": width, "height": 800}, reduced_motion="reduce",
        ) as page,
    ):  # fmt: skip
        ask(page, "Hi")
        expect(page.locator(".message.assistant .text")).to_have_text("Hello")
        page.wait_for_selector("#stop", state="hidden")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        if width < 1000:
            page.click("#show-panel")
        page.click("#policy-box summary")
        poor = page.evaluate(
            """() => {
              const light = (rgb) => rgb.map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
                .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
              const parse = (text) => { const all = text.match(/[\\d.]+/g).map(Number); return [all.slice(0, 3), all[3] ?? 1]; };
              const found = [];
              for (const e of document.querySelectorAll('body *')) {
                const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
                if (!own || !e.checkVisibility({ visibilityProperty: true }) || e.closest('svg, script, style')) continue;
                const box = e.getBoundingClientRect();
                if (box.width < 2 || box.right < 0) continue;
                let opacity = 1, back = null;
                for (let p = e; p; p = p.parentElement) {
                  const style = getComputedStyle(p);
                  opacity *= Number(style.opacity);
                  const [rgb, alpha] = parse(style.backgroundColor);
                  if (!back && alpha > 0.99) back = rgb;
                }
                back ??= [255, 255, 255];
                if (e.matches(':disabled')) continue;
                const fore = parse(getComputedStyle(e).color)[0].map((v, i) => v * opacity + back[i] * (1 - opacity));
                const [a, b] = [light(fore), light(back)].sort((x, y) => y - x);
                const ratio = (a + 0.05) / (b + 0.05);
                if (ratio < 4.5) found.push(`${e.tagName} ${e.id} ${e.className}: ${e.textContent.trim().slice(0, 30)}: ${ratio.toFixed(2)}`);
              }
              return [...new Set(found)];
            }"""
        )
        assert poor == []
