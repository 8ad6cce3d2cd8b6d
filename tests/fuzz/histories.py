"""Random histories, as bad as they come, with a token in each text that can be followed.

Everything is drawn from a `random.Random`, so that thousands are made in a second; hypothesis
gives the seeds and shrinks them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from rejoinder.llm.chat_context import (
    AgentConfigUpdate,
    AgentHandoff,
    AudioContent,
    ChatContent,
    ChatItem,
    ChatMessage,
    FunctionCall,
    FunctionCallOutput,
    ImageContent,
)
from rejoinder.media import AudioFrame

PNG = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGNgYGAAAAAE"
    "AAH2FzhVAAAAAElFTkSuQmCC"
)
GIF = "data:image/gif;base64,R0lGODlhAQABAAAAACw="
IMAGES = [
    PNG,
    GIF,
    "https://example.com/a.png",
    "gs://bucket/a.png",
    "not an address",
    PNG.replace("image/png", "image/jpeg"),
    PNG.replace("image/png", "image/jpg"),
    f"{PNG[:60]}!{PNG[60:]}",
    "data:image/png;base64,A",
    "data:image/png",
    "data:image/png;base64,",
    "data:image/tiff;base64,iVBORw0KGgo=",
    "data:text/plain;base64,aGVsbG8=",
    "https://example.com/\ud83d.png",
]
BLANKS = ["", " ", "\n\t", "\u00a0", "\u2003"]
BETWEEN = ["", "", "", "é🌍", "\ud83d", "\x00\x07", '"\\', "\n", "<instructions>", "[1]", "x" * 40]
IDS = ["g", "g/1", "g/2", "h", "h/fnc_0", "", "/", "/x", "item", "k/a/b"]
CALL_IDS = [
    "c1",
    "c2",
    "call_abcdefghijklmnopqrstuvwx",
    "abcdefgh1",
    "",
    "a b",
    "with.dot:colon",
    "x" * 80,
    "é",
    "\ud800",
    "toolu_01ABC",
]
NAMES = ["get_weather", "lookup", "", "bad name!", "9lives", "n" * 100, "ünï", "a.b:c"]
RS_1 = {"type": "reasoning", "id": "rs_1", "summary": []}
RS_2 = {"type": "reasoning", "id": "rs_2", "summary": [], "encrypted_content": "SIG_oai"}
STATES: list[dict[str, Any]] = [
    {"anthropic": {"thinking": [{"type": "thinking", "thinking": "hm", "signature": "SIG_ant"}]}},
    {"anthropic": {"thinking": [{"type": "redacted_thinking", "data": "SIG_ant"}]}},
    {"anthropic": {"thinking": [{"type": "thinking", "thinking": "no signature"}]}},
    {"anthropic": {"thinking": [{"type": "thinking", "thinking": "", "signature": "SIG_ant"}, 7]}},
    {"anthropic": {"thinking": "SIG_ant"}},
    {"anthropic": "SIG_ant"},
    {"google": {"thought_signature": "c2lnbmF0dXJl"}},
    {"google": {"thought_signature": "not base64!"}},
    {"google": {"thought_signature": 5}},
    {"google": None},
    {"openai": {"reasoning_items": [RS_1]}},
    {"openai": {"reasoning_items": [RS_1], "item_id": "fc_1", "message_id": "msg_1"}},
    {"openai": {"reasoning_items": [RS_2], "item_id": "fc_2", "message_id": "msg_2"}},
    {"openai": {"item_id": "fc_3"}},
    {"openai": {"reasoning_items": [RS_2, None]}},
    {"openai": {"reasoning_items": [{"type": "reasoning", "id": "rs_3"}]}},
    {"openai": {"phase": "final_answer"}},
    {"aws": {"reasoning": [{"reasoningText": {"text": "hm", "signature": "SIG_aws"}}]}},
    {"aws": {"reasoning": [{"reasoningContent": {"redactedContent": "U0lHX2F3cw=="}}]}},
    {"aws": {"reasoning": [{"reasoningText": {"text": "hm"}}, "x", {"redactedContent": "!"}]}},
    {"xai": {"SIG_xai": 1}, "livekit": {"SIG_lk": 2}, "google": {"thought_signature": "U0lH"}},
    {"is_summary": True},
]


@dataclass
class History:
    """Items, and the tokens that each request made of them must hold exactly once."""

    items: list[ChatItem] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)


def random_history(seed: int, *, longest: int = 14) -> History:
    """The history of this seed."""
    return _Maker(random.Random(seed)).make(longest)


class _Maker:
    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.history = History()
        self.clock = 100.0

    def make(self, longest: int) -> History:
        rng = self.rng
        self.tidy = rng.random() < 0.3  # mostly well-formed, so that single faults are met too
        for _ in range(rng.randrange(longest + 1)):
            self.clock += rng.choice([0, 0, 1, -5])
            kind = rng.choices(
                ["message", "call", "step", "output", "handoff", "config"], [8, 3, 4, 3, 1, 1]
            )[0]
            getattr(self, kind)()
        return self.history

    def add(self, item: ChatItem) -> None:
        self.history.items.append(item)

    def common(self) -> dict[str, Any]:
        fields: dict[str, Any] = {"created_at": self.clock}
        if self.rng.random() < (0.05 if self.tidy else 0.4):
            fields["id"] = self.rng.choice(IDS)
        return fields

    def token(self) -> str:
        token = f"TOKEN{len(self.history.tokens)}."
        self.history.tokens.append(token)
        return token

    def text(self) -> str:
        rng = self.rng
        if rng.random() < 0.15:
            return rng.choice(BLANKS)
        if self.tidy and rng.random() < 0.8:
            return self.token()
        text = rng.choice(BETWEEN) + self.token() + rng.choice(BETWEEN)
        return text + "y" * 60_000 if rng.random() < 0.01 else text

    def extra(self) -> dict[str, Any]:
        extra: dict[str, Any] = {}
        if self.rng.random() < 0.25:
            for _ in range(self.rng.randrange(1, 3)):
                extra |= self.rng.choice(STATES)
        return extra

    def message(self) -> None:
        rng = self.rng
        content: list[ChatContent] = []
        for _ in range(rng.choice([0, 1, 1, 1, 1, 2, 3])):
            chosen = rng.random()
            if chosen < 0.85:
                content.append(self.text())
            elif chosen < 0.97:
                content.append(ImageContent(image=rng.choice(IMAGES)))
            else:
                content.append(
                    AudioContent(frame=[AudioFrame(b"\0\0", 24000, 1, 1)], transcript="said")
                )
        role = rng.choices(["user", "assistant", "system", "developer"], [5, 5, 2, 1])[0]
        self.add(ChatMessage(role=role, content=content, extra=self.extra(), **self.common()))

    def arguments(self) -> str:
        rng = self.rng
        if rng.random() < 0.5:
            return f'{{"q": "{self.token()}"}}'
        return rng.choice(
            [
                lambda: "",
                lambda: "  ",
                lambda: "null",
                lambda: "{}",
                lambda: f'["{self.token()}"]',
                lambda: f'"{self.token()}"',
                lambda: f'{{"q": "{self.token()}"',
                lambda: f'"{{\\"q\\": \\"{self.token()}\\"}}"',
                lambda: f'{{"q": "\\ud83d{self.token()}"}}',
                lambda: f'{{"q": "\ud83d{self.token()}"}}',
                lambda: f'{{"q": NaN, "r": "{self.token()}"}}',
                lambda: f'{{"q": {"1" * 400}, "r": "{self.token()}"}}',
                lambda: f'{{"q": {"9" * 20}, "r": "{self.token()}"}}',
                lambda: f'{{"q": 1e999, "r": "{self.token()}"}}',
                lambda: "[" * 3000 + "]" * 3000,
                lambda: '{"a":' * 3000 + "1" + "}" * 3000,
                lambda: '{"a":' * 900 + f'"{self.token()}"' + "}" * 900,
                lambda: "12",
                lambda: f"{self.token()}",
            ]
        )()

    def call(self, **fields: Any) -> None:
        rng = self.rng
        if "arguments" not in fields:
            fields["arguments"] = self.arguments()
        defaults: dict[str, Any] = self.common() | {
            "call_id": rng.choice(CALL_IDS),
            "name": "get_weather" if rng.random() < 0.6 else rng.choice(NAMES),
            "extra": self.extra(),
        }
        if rng.random() < 0.2:
            defaults["group_id"] = rng.choice(["", "g", "h", "group"])
        self.add(FunctionCall(**(defaults | fields)))

    def output(self, **fields: Any) -> None:
        rng = self.rng
        if rng.random() < 0.05:
            text = f'[{{"type": "text", "text": "{self.token()}"}}]'
        else:
            text = self.text()
        defaults: dict[str, Any] = self.common() | {
            "call_id": rng.choice(CALL_IDS),
            "name": rng.choice(["get_weather", "", "lookup"]),
            "output": text,
            "is_error": rng.random() < 0.3,
        }
        self.add(FunctionCallOutput(**(defaults | fields)))

    def step(self) -> None:
        """Calls with their outputs, perhaps shuffled, perhaps with something between."""
        rng = self.rng
        fresh = rng.random() < 0.7
        ids = [
            f"call_{rng.randrange(10**9)}" if fresh else rng.choice(CALL_IDS)
            for _ in range(rng.choice([1, 1, 2, 3]))
        ]
        group = rng.choice([None, None, "together"])
        for at, call_id in enumerate(ids):
            fields: dict[str, Any] = {"call_id": call_id}
            if group:
                fields["group_id"] = f"{group}{self.clock}{len(self.history.items) - at}"
            if self.tidy:
                fields |= {"name": "get_weather", "arguments": f'{{"q": "{self.token()}"}}'}
            self.call(**fields)
        if rng.random() < 0.15:
            self.message()
        if rng.random() < 0.3:
            rng.shuffle(ids)
        for call_id in ids:
            if rng.random() < (0.97 if self.tidy else 0.85):
                self.output(call_id=call_id)
            if rng.random() < 0.05:
                self.message()

    def handoff(self) -> None:
        self.add(AgentHandoff(new_agent_id="b"))

    def config(self) -> None:
        self.add(AgentConfigUpdate(instructions="never sent"))
