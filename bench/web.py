"""The page of `rejoinder web` in Chromium, beside a bare page that only appends the text.

Both pages read the same events of the same server, and are opened from a page of another site. A token is on the screen when a frame is drawn
that holds it; its delay counts from the moment the model gave it. Needs Debian's chromium, and runs
in the environment of the browser tests, which it makes::

    python bench/web.py
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from environments import Environment, python
from figures import Rows, add_json_option, write_rows

if importlib.util.find_spec("playwright") is None:
    there = python(Environment("playwright", "outside/playwright"))
    others = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    sys.exit(subprocess.call([there, __file__, *sys.argv[1:]], env=others))

from playwright.sync_api import Page, sync_playwright

from rejoinder import _watch
from rejoinder._core.chunks import ChatChunk, ChoiceDelta
from rejoinder.llm.llm import LLM, LLMStream
from rejoinder.types import DEFAULT_API_CONNECT_OPTIONS
from rejoinder.web.app import make_app
from rejoinder.web.memory import MemoryStore
from rejoinder.web.serve import bind, serve
from rejoinder.web.team import Choice, Team

BARE = b"""<!doctype html><meta charset="utf-8"><title>bare</title><body style="font-family:system-ui">
<h1>bare</h1><textarea placeholder="Your message"></textarea><button>Send</button>
<div id="messages" style="white-space:pre-wrap;overflow:auto;height:90vh"></div>
<script>
const node = document.createTextNode(""); document.querySelector("#messages").append(node);
window.go = async (token) => {
  const body = JSON.stringify({ threadId: "bare" + Math.random(), runId: "r" + Math.random(),
    messages: [{ id: "u", role: "user", content: "go" }] });
  const answer = await fetch("/api/run", { method: "POST", body, headers: { Authorization: "Bearer " + token } });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    const lines = (rest + value).split("\\n");
    rest = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data: ")) continue;
      const event = JSON.parse(line.slice(6));
      if (event.type === "TEXT_MESSAGE_CONTENT") node.appendData(event.delta);
      if (event.type === "RUN_FINISHED") window.over = true;
    }
  }
};
document.body.dataset.ready = "true";
</script>"""

# Notes when the page is ready, and with each frame how many tokens it shows. A token is "tN ".
WATCH = """
window.frames_ = [];
window.over = false;
new MutationObserver((_, self) => {
  if (document.body?.dataset.ready) { window.readyAt = performance.now(); self.disconnect(); }
}).observe(document, { subtree: true, childList: true, attributes: true });
window.follow = () => {
  const walker = () => { // the last text node that is drawn
    const texts = document.querySelectorAll(".message.assistant .text");
    const place = texts.length ? texts[texts.length - 1].lastElementChild : document.querySelector("#messages");
    return place?.lastChild?.data ?? "";
  };
  const frame = () => {
    const found = walker().slice(-40).match(/t(\\d+) $/);
    if (found) {
      // After the frame that this callback belongs to is on the screen.
      const count = Number(found[1]);
      const channel = new MessageChannel();
      channel.port1.onmessage = () => window.frames_.push([count, performance.timeOrigin + performance.now()]);
      channel.port2.postMessage(0);
    }
    if (!window.over) requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
};
"""


class Paced(LLM[Any]):
    """A model that says a token at a time, and runs tools between them."""

    def __init__(self, tokens: int, pause: float, tools: int) -> None:
        super().__init__()
        self.tokens, self.pause, self.tools = tokens, pause, tools
        self.said: list[float] = []

    @property
    def model(self) -> str:
        return "paced"

    @property
    def provider(self) -> str:
        return "bench"

    def chat(self, *, chat_ctx: Any, **_: Any) -> PacedStream:
        return PacedStream(
            self, chat_ctx=chat_ctx, tools=[], conn_options=DEFAULT_API_CONNECT_OPTIONS
        )


class PacedStream(LLMStream):
    async def _run(self) -> None:
        model: Any = self._llm
        model.said = []
        loop = asyncio.get_running_loop()
        begun = loop.time()
        every = max(1, model.tokens // model.tools) if model.tools else 0
        for number in range(model.tokens):
            if every and number % every == 0:
                _watch.note("tool", call=f"c{number}", name="look")
                _watch.note("tool_end", call=f"c{number}", name="look")
            model.said.append(time.time() * 1000)
            text = ("\n" if number and number % 40 == 0 else "") + f"t{number} "
            self._event_ch.send_nowait(ChatChunk(id="x", delta=ChoiceDelta(content=text)))
            await asyncio.sleep(max(0.0, begun + (number + 1) * model.pause - loop.time()))


class Site:
    """The server, on the loop of a thread."""

    def __init__(self, llm: Paced) -> None:
        self.loop = asyncio.new_event_loop()
        self.address = bind("127.0.0.1", 0)
        team = Team([Choice("paced", lambda _: llm, local=True)])
        app = make_app(
            team,
            store=MemoryStore(),
            token=self.address.token,
            hosts=self.address.hosts,
            conn_options=DEFAULT_API_CONNECT_OPTIONS,
        )

        async def with_bare(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http" and scope["path"] == "/bare":
                headers = [(b"content-type", b"text/html")]
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                await send({"type": "http.response.body", "body": BARE})
            else:
                await app(scope, receive, send)

        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        asyncio.run_coroutine_threadsafe(serve(with_bare, self.address), self.loop)


def measure(page: Page, llm: Paced, site: Site, bare: bool) -> dict[str, Any]:
    """One reply on one page."""
    # From a page of another site, as from that of a new tab: the browser starts a process for either.
    page.goto(f"http://localhost:{site.address.port}/bare")
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))

    def spent(name: str) -> float:
        metrics = session.send("Performance.getMetrics")["metrics"]
        return next(m["value"] for m in metrics if m["name"] == name)

    def busy() -> float:
        return spent("TaskDuration")

    url = site.address.url
    page.goto(url.replace("/#", "/bare#") if bare else url)
    page.wait_for_selector("body[data-ready]" if bare else "body[data-loaded]")
    ready = page.evaluate("window.readyAt")
    script, asked = spent("ScriptDuration") * 1000, len(requests)

    page.evaluate("window.follow()")
    if bare:
        page.evaluate("(token) => { window.go(token); }", site.address.token)
    else:
        page.fill("#question", "go")
        page.keyboard.press("Enter")
    marks: list[tuple[float, float]] = []
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        shown = page.evaluate("window.frames_.length ? window.frames_.at(-1)[0] : -1")
        marks.append((shown, busy()))
        if shown >= llm.tokens - 1:
            break
        time.sleep(0.25)
    if not bare:
        page.wait_for_selector("#stop", state="hidden")
    page.evaluate("window.over = true")
    frames = page.evaluate("window.frames_")
    delays: list[float] = []
    at = 0
    for count, moment in frames:
        while at <= count:
            delays.append(moment - llm.said[at])
            at += 1
    return {"ready": ready, "script": script, "asked": asked, "delays": delays, "marks": marks}


def cpu(marks: list[tuple[float, float]], start: float, end: float, tokens: int) -> float:
    """Microseconds of the page's main thread for each token, between two shares of the reply."""
    inside = [mark for mark in marks if start * tokens <= mark[0] <= end * tokens]
    (first, before), (last, after) = inside[0], inside[-1]
    return (after - before) / max(1, last - first) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=10_000)
    parser.add_argument("--pause", type=float, default=0.003, help="seconds between tokens")
    add_json_option(parser)
    options = parser.parse_args()
    path = shutil.which("chromium")
    assert path is not None
    found: dict[str, Any] = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        short = Paced(200, 0.02, 10)
        site = Site(short)
        found = {
            name: {"ready": [], "script": [], "asked": [], "delay": []} for name in ("bare", "page")
        }
        for _ in range(options.rounds):
            for name, bare in (("bare", True), ("page", False)):
                context = browser.new_context()
                context.add_init_script(WATCH)
                result = measure(context.new_page(), short, site, bare)
                context.close()
                for fact in ("ready", "script", "asked"):
                    found[name][fact].append(result[fact])
                found[name]["delay"].append(statistics.median(result["delays"]))
        long = Paced(options.tokens, options.pause, 250)
        site = Site(long)
        for name, bare in (("bare", True), ("page", False)):
            context = browser.new_context()
            context.add_init_script(WATCH)
            result = measure(context.new_page(), long, site, bare)
            context.close()
            delays, marks = result["delays"], result["marks"]
            found[name]["first hundred"] = statistics.median(delays[:100])
            found[name]["last hundred"] = statistics.median(delays[-100:])
            found[name]["cpu first tenth"] = cpu(marks, 0, 0.1, long.tokens)
            found[name]["cpu last tenth"] = cpu(marks, 0.9, 1, long.tokens)
        browser.close()
    told = {
        name: {
            "ready, ms": round(statistics.median(values["ready"]), 1),
            "requests until loaded": max(values["asked"]),
            "script until loaded, ms of CPU": round(statistics.median(values["script"]), 1),
            "token on the screen, ms": round(statistics.median(values["delay"]), 2),
            "first hundred of many, ms": round(values["first hundred"], 2),
            "last hundred, ms": round(values["last hundred"], 2),
            "main thread, us a token, first tenth": round(values["cpu first tenth"]),
            "last tenth": round(values["cpu last tenth"]),
        }
        for name, values in found.items()
    }
    print(json.dumps(told, indent=1))
    rows: Rows = {fact: {side: told[side][fact] for side in told} for fact in told["page"]}
    write_rows(options.json, rows)


if __name__ == "__main__":
    main()
