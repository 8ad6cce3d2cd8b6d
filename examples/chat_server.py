"""A chat server: the answer streams into a page word by word.

    pip install '.[local,web]'
    python examples/chat_server.py                              # a small model on this machine
    python examples/chat_server.py --model openai/gpt-4.1       # with OPENAI_API_KEY

Open the address that it prints. Two things are easy to get wrong in a chat server. If the reader leaves,
the model must stop, because it costs money. And two questions in one conversation must not be answered
at the same time.
"""

import argparse
import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from rejoinder import LLM, APIError, ChatContext, create, run_turn
from rejoinder.turn import Restarted, Text

LONGEST = 4000
"""Maximum characters of a question."""

PAGE = """<!doctype html><meta charset="utf-8"><title>Chat</title>
<style>
  :root { color-scheme: light dark; font: 17px/1.5 system-ui }
  body { max-width: 40rem; margin: 2rem auto; padding: 0 1rem }
  p { white-space: pre-wrap } .you { font-weight: 600 } input { width: 100%; font: inherit; padding: .5em }
</style>
<main></main><form><input placeholder="Your question" autofocus></form>
<script>
const chat = crypto.randomUUID(), input = document.querySelector("input");
const add = (text, name) => {
  const p = document.createElement("p");
  p.className = name; p.textContent = text;  // never innerHTML: models repeat what pages tell them
  document.querySelector("main").append(p);
  return p;
};
document.querySelector("form").onsubmit = async (event) => {
  event.preventDefault();
  const question = input.value.trim();
  if (!question) return;
  input.value = ""; add(question, "you");
  const answer = add("…", "");
  const response = await fetch("/chat", {
    method: "POST", headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ chat, question }),
  });
  const lines = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "", text = "";
  for (let part; !(part = await lines.read()).done;) {
    const found = (rest + part.value).split("\\n");
    rest = found.pop();
    for (const event of found.map((line) => JSON.parse(line))) {
      if (event.restart) text = "";
      text += event.text ?? "";
      answer.textContent = event.error ? `${text} [${event.error}]` : text;
    }
  }
};
</script>"""


@dataclass
class Chat:
    """One conversation. `rejoinder.store` keeps them on disk; here they end with the server."""

    chat_ctx: ChatContext = field(default_factory=ChatContext.empty)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


def make_app(llm: LLM) -> Starlette:
    chats: defaultdict[str, Chat] = defaultdict(Chat)

    async def page(request: Request) -> Response:
        return HTMLResponse(PAGE)

    async def ask(request: Request) -> Response:
        try:
            asked = await request.json()
            chat, question = chats[str(asked["chat"])], str(asked["question"])
        except (ValueError, KeyError, TypeError):
            return JSONResponse({"error": "expected chat and question"}, status_code=400)
        if len(question) > LONGEST:
            return JSONResponse({"error": f"at most {LONGEST} characters"}, status_code=413)
        return StreamingResponse(answer(chat, question), media_type="application/x-ndjson")

    async def answer(chat: Chat, question: str) -> AsyncIterator[str]:
        async with chat.lock:
            chat.chat_ctx.add_message(role="user", content=question)
            try:
                # When the reader leaves, Starlette cancels this generator. The `async with` closes
                # the turn then: the request to the model is ended, and the conversation keeps what
                # was said so far.
                async with run_turn(llm, chat.chat_ctx) as turn:
                    async for event in turn:
                        match event:
                            case Text(text):
                                yield line(text=text)
                            case Restarted():  # another model began again: drop what was shown
                                yield line(restart=True)
            except APIError as error:
                # The status line has been sent, so the error must be part of the body. Its text is
                # only for the log, because providers put parts of the request into it.
                print(f"no answer: {error}")
                yield line(error="the model cannot be reached")

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with llm:  # ends running replies and connections when the server stops
            llm.prewarm()  # the first question does not wait for connections
            yield

    return Starlette(
        routes=[Route("/", page), Route("/chat", ask, methods=["POST"])], lifespan=lifespan
    )


def line(**event: object) -> str:
    return json.dumps(event) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="A chat server with a page.")
    parser.add_argument("--model", default="local/qwen", help="provider/model")
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    uvicorn.run(make_app(create(options.model)), host="127.0.0.1", port=options.port)


if __name__ == "__main__":
    main()
