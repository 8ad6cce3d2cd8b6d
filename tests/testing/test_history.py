"""The checkers refuse what the APIs refuse, and accept what they accepted.

What they must accept is every recorded request that a provider answered with 200; the few
exceptions stand below with their reasons.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.testing.history import (
    PROVIDERS,
    IllegalHistoryError,
    assert_legal,
    check_history,
)

PNG = "iVBORw0KGgo="

# -- what is refused, one fault at a time


def call(call_id: Any = "abcdefgh1", name: Any = "t", arguments: Any = "{}") -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"id": call_id, "type": "function", "function": function}


def calls(*entries: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"role": "assistant", "tool_calls": list(entries), **fields}


def tool(call_id: str = "abcdefgh1") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": "r"}


def user(content: Any = "u") -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: Any = "a") -> dict[str, Any]:
    return {"role": "assistant", "content": content}


def image(url: str) -> list[dict[str, Any]]:
    return [{"type": "image_url", "image_url": {"url": url}}]


COMPLETIONS: list[tuple[str, list[Any]]] = [
    ("at least one", []),
    ("expected an object", ["hello"]),
    ("expected one of", [{"role": "robot", "content": "x"}]),
    ("is not an open call", [user(), tool()]),
    ("is not an open call", [user(), calls(call()), tool(), tool()]),
    ("no outputs for", [user(), calls(call())]),
    ("must come first", [user(), calls(call()), user()]),
    ("must come first", [user(), calls(call("a"), call("b")), tool("a"), user()]),
    ("is used twice", [user(), calls(call(), call()), tool(), tool()]),
    ("expected text like", [user(), calls(call(name="a b")), tool()]),
    ("expected text like", [user(), calls(call("")), tool("")]),
    ("not JSON", [user(), calls(call(arguments="{")), tool()]),
    ("expected a JSON object", [user(), calls(call(arguments="[]")), tool()]),
    ("expected JSON as text", [user(), calls(call(arguments={})), tool()]),
    ("expected at least one call", [user(), calls()]),
    ("missing", [{"role": "user"}]),
    ("missing", [assistant(None), user()]),
    ("neither text nor calls", [assistant(""), user()]),
    ("an empty list", [user([])]),
    ("has no place in a message of system", [{"role": "system", "content": image("https://x")}]),
    ("expected an http or data address", [user(image("x.png"))]),
    ("expected a base64 image", [user(image("data:image/bmp;base64,AAAA"))]),
    ("not base64", [user(image("data:image/png;base64,A"))]),
    ("empty", [user([{"type": "text", "text": ""}])]),
    ("half a surrogate pair", [user("\ud83d")]),
    ("half a surrogate pair", [user([{"type": "text", "text": "a\udc00"}])]),
]
MISTRAL: list[tuple[str, list[Any]]] = [
    ("expected text like", [user(), calls(call("call_1")), tool("call_1")]),
    ("role user after role tool", [user(), calls(call()), tool(), user()]),
    ("role system after role assistant", [assistant(), {"role": "system", "content": "s"}, user()]),
    ("expected one of", [{"role": "developer", "content": "d"}, user()]),
    ("the last role is assistant", [user(), assistant()]),
    ("the last role is system", [{"role": "system", "content": "s"}]),
    ("the first message may not hold calls", [calls(call()), tool(), assistant(), user()]),
    ("empty", [user("")]),
]


def block_call(call_id: str = "c1", name: str = "t", input: Any = None) -> dict[str, Any]:
    return {"type": "tool_use", "id": call_id, "name": name, "input": input or {}}


def result(call_id: str = "c1", content: Any = "r", **fields: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": call_id, "content": content, **fields}


def text(value: str = "x") -> dict[str, Any]:
    return {"type": "text", "text": value}


def thinking(**fields: Any) -> dict[str, Any]:
    return {"type": "thinking", "thinking": "hm", "signature": "s"} | fields


def source(**fields: Any) -> dict[str, Any]:
    return {"type": "image", "source": fields}


ANTHROPIC: list[tuple[str, list[Any]]] = [
    ("at least one", []),
    ("expected user or assistant", [{"role": "system", "content": "s"}]),
    ("the first message must be the user's", [assistant(), user()]),
    ("in a row", [user(), user()]),
    ("the last message must be the user's", [user(), assistant()]),
    ("not blank", [user("")]),
    ("not blank", [user([text(" \n")])]),
    ("an empty list", [user([])]),
    ("is not an open call", [user([result()])]),
    ("no results for", [user(), assistant([block_call()]), user()]),
    ("no results for", [user(), assistant([block_call()])]),
    ("must come first", [user(), assistant([block_call()]), assistant(), user()]),
    (
        "must come before anything else",
        [
            user(),
            assistant([block_call()]),
            user([text(), result()]),
        ],
    ),
    ("is not an open call", [user(), assistant([block_call()]), user([result(), result()])]),
    (
        "is used twice",
        [
            user(),
            assistant([block_call()]),
            user([result()]),
            assistant([block_call()]),
            user([result()]),
        ],
    ),
    ("expected text like", [user(), assistant([block_call("a.b")]), user([result("a.b")])]),
    ("expected text like", [user(), assistant([block_call(name="")]), user([result()])]),
    ("expected an object", [user(), assistant([block_call(input=[1])]), user([result()])]),
    (
        "may not be empty",
        [user(), assistant([block_call()]), user([result(content="", is_error=True)])],
    ),
    (
        "no place in a result",
        [user(), assistant([block_call()]), user([result(content=[{"type": "x"}])])],
    ),
    ("signature: missing", [user(), assistant([thinking(signature=""), text()]), user()]),
    ("data: missing", [user(), assistant([{"type": "redacted_thinking"}, text()]), user()]),
    ("may not be thinking", [user(), assistant([thinking()]), user()]),
    ("no place in a message of the user", [user([thinking(), text()])]),
    (
        "no place in a message of the assistant",
        [
            user(),
            assistant([source(type="url", url="https://x")]),
            user(),
        ],
    ),
    ("media type 'image/bmp'", [user([source(type="base64", media_type="image/bmp", data=PNG)])]),
    ("not base64", [user([source(type="base64", media_type="image/png", data="data:x")])]),
    ("bytes are image/png", [user([source(type="base64", media_type="image/webp", data=PNG)])]),
    ("expected an address", [user([source(type="url", url="x.png")])]),
]


def use(call_id: str = "c1", name: str = "t", input: Any = None) -> dict[str, Any]:
    return {"toolUse": {"toolUseId": call_id, "name": name, "input": input or {}}}


def used(call_id: str = "c1", status: str = "success", value: str = "r") -> dict[str, Any]:
    return {"toolResult": {"toolUseId": call_id, "content": [{"text": value}], "status": status}}


def picture(format: str, data: bytes) -> list[Any]:
    return [{"image": {"format": format, "source": {"bytes": data}}}]


HI = {"text": "hi"}
BEDROCK: list[tuple[str, list[Any]]] = [
    ("the first message must be the user's", [assistant([HI]), user([HI])]),
    ("in a row", [user([HI]), user([HI])]),
    ("the last message must be the user's", [user([HI]), assistant([HI])]),
    ("expected a list", [user("hi")]),
    ("not blank", [user([{"text": " "}])]),
    ("exactly one key", [user([HI | use()])]),
    ("is not an open call", [user([used()])]),
    ("no results for", [user([HI]), assistant([use()]), user([HI])]),
    ("expected text like", [user([HI]), assistant([use("é")]), user([used("é")])]),
    ("expected an object", [user([HI]), assistant([use(input=[1])]), user([used()])]),
    ("expected error or success", [user([HI]), assistant([use()]), user([used(status="ok")])]),
    ("not blank", [user([HI]), assistant([use()]), user([used(value="")])]),
    ("format 'bmp'", [user(picture("bmp", b"x"))]),
    ("no bytes", [user(picture("png", b""))]),
    ("bytes are image/jpeg", [user(picture("png", b"\xff\xd8\xff\xe0"))]),
    ("bytes are image/webp", [user(picture("gif", "UklGRgAAAABXRUJQ"))]),
    (
        "no signature",
        [
            user([HI]),
            assistant([{"reasoningContent": {"reasoningText": {"text": "hm"}}}, HI]),
            user([HI]),
        ],
    ),
]


def parts(role: str, *entries: dict[str, Any]) -> dict[str, Any]:
    return {"role": role, "parts": list(entries)}


def fcall(name: str = "t", **fields: Any) -> dict[str, Any]:
    return {"function_call": {"name": name, "args": {}}} | fields


def fresponse(name: str = "t", response: Any = None) -> dict[str, Any]:
    return {"functionResponse": {"name": name, "response": response or {}}}


U = parts("user", HI)
GOOGLE: list[tuple[str, list[Any]]] = [
    ("at least one", []),
    ("expected user or model", [parts("assistant", HI)]),
    ("at least one", [parts("user")]),
    ("the first content must be the user's", [parts("model", HI), U]),
    ("the last content must be the user's", [U, parts("model", HI)]),
    ("empty text", [parts("user", {"text": ""})]),
    ("exactly one kind of data", [parts("user", HI | fcall())]),
    ("0 calls just before", [parts("user", fresponse())]),
    ("no responses for", [U, parts("model", fcall())]),
    ("must come first", [U, parts("model", fcall()), U]),
    (
        "1 function responses for 2 calls",
        [
            U,
            parts("model", fcall(), fcall()),
            parts("user", fresponse()),
        ],
    ),
    ("for calls of", [U, parts("model", fcall()), parts("user", fresponse("other"))]),
    ("expected text like", [U, parts("model", fcall("")), parts("user", fresponse(""))]),
    (
        "must come after a turn of the user",
        [
            U,
            parts("model", HI),
            parts("model", fcall()),
            parts("user", fresponse()),
        ],
    ),
    ("in a turn of the user", [parts("user", fcall()), parts("user", fresponse())]),
    ("expected an object", [U, parts("model", fcall()), parts("user", fresponse(response="r"))]),
    (
        "type 'image/gif'",
        [parts("user", {"inline_data": {"mime_type": "image/gif", "data": b"x"}})],
    ),
    ("no bytes", [parts("user", {"inlineData": {"mimeType": "image/png", "data": b""}})]),
    ("expected an address", [parts("user", {"fileData": {"fileUri": "x.png"}})]),
    ("not base64", [U, parts("model", HI | {"thoughtSignature": "!"}), U]),
]


def fn(call_id: str = "c1", arguments: str = "{}") -> dict[str, Any]:
    return {"type": "function_call", "call_id": call_id, "name": "t", "arguments": arguments}


def fn_output(call_id: str = "c1") -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": call_id, "output": "r"}


def reasoning(**fields: Any) -> dict[str, Any]:
    return {"type": "reasoning", "id": "rs_1", "summary": []} | fields


RESPONSES: list[tuple[str, list[Any]]] = [
    ("at least one", []),
    ("unknown: 'tool'", [{"role": "tool", "content": "x"}]),
    ("no output for the call", [user(), fn()]),
    ("no call 'c1' before", [user(), fn_output()]),
    ("a second output", [user(), fn(), fn_output(), fn_output()]),
    ("is used twice", [user(), fn(), fn_output(), fn(), fn_output()]),
    ("expected text like", [user(), fn("x" * 65), fn_output("x" * 65)]),
    ("not JSON", [user(), fn(arguments="{"), fn_output()]),
    ("without the item that it produced", [user(), reasoning(), user()]),
    ("without the item that it produced", [user(), reasoning()]),
    ("without the item that it produced", [user(), reasoning(), assistant()]),
    ("must come first", [user(), fn(), assistant(), fn_output()]),
    ("is used twice", [user(), reasoning(), fn(), fn_output(), reasoning(), assistant()]),
    ("summary: missing", [user(), reasoning(summary=None), assistant()]),
    ("neither an id nor", [user(), reasoning(id=None), assistant()]),
    (
        "has no place in a message of assistant",
        [
            assistant([{"type": "input_image", "image_url": "https://x"}]),
        ],
    ),
    ("an empty list", [user([])]),
]


def centry(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": kind} | fields


CIN = centry("message.input", role="user", content="u")
CCALL = centry("function.call", tool_call_id="abcdefgh1", name="t", arguments="{}")
CRESULT = centry("function.result", tool_call_id="abcdefgh1", result="r")
CONVERSATIONS: list[tuple[str, list[Any]]] = [
    ("at least one", []),
    ("unknown: 'message'", [centry("message")]),
    ("expected user, got 'assistant'", [CIN | {"role": "assistant"}]),
    ("is not an open call", [CIN, CRESULT]),
    ("no results for", [CIN, CCALL]),
    ("must come first", [CIN, CCALL, CIN]),
    ("is used twice", [CIN, CCALL, CRESULT, CCALL, CRESULT]),
    (
        "expected an input or a result",
        [CIN, centry("message.output", role="assistant", content="a")],
    ),
    ("empty", [CIN | {"content": ""}]),
]
REFUSED = [
    *(("openai", *fault) for fault in COMPLETIONS),
    *(("mistralai", *fault) for fault in MISTRAL),
    *(("anthropic", *fault) for fault in ANTHROPIC),
    *(("aws", *fault) for fault in BEDROCK),
    *(("google", *fault) for fault in GOOGLE),
    *(("openai.responses", *fault) for fault in RESPONSES),
    *(("mistralai.conversations", *fault) for fault in CONVERSATIONS),
]


@pytest.mark.parametrize(("provider", "reason", "messages"), REFUSED)
def test_refuses(provider: str, reason: str, messages: list[Any]) -> None:
    problems = check_history(provider, messages)
    assert any(reason in problem for problem in problems), problems


ACCEPTED = [
    ("openai", [user(), calls(call("a"), call("b"), content="x"), tool("b"), tool("a"), user()]),
    ("openai", [assistant(), user(image("https://x/a.png"))]),
    ("mistralai", [user(), user(), calls(call()), tool(), assistant(), user()]),
    ("anthropic", [
        user([text(), source(type="base64", media_type="image/png", data=PNG)]),
        assistant([thinking(), text(), block_call("a"), block_call("b")]),
        user([result("b"), result("a", [text()], is_error=True), text()]),
    ]),
    ("aws", [user([HI]), assistant([HI, use()]), user([used(), HI])]),
    ("google", [U, parts("model", HI, fcall()), parts("user", fresponse()), U]),
    ("openai.responses", [user(), reasoning(), fn() | {"id": "fc_1"}, fn_output(), assistant()]),
    ("openai.responses", [user(), {"type": "reasoning", "summary": [], "encrypted_content": "x"}]),
    ("mistralai.conversations", [CIN, CCALL, CRESULT]),
]  # fmt: skip


@pytest.mark.parametrize(("provider", "messages"), ACCEPTED)
def test_accepts(provider: str, messages: list[Any]) -> None:
    assert check_history(provider, messages) == []
    assert_legal(provider, messages)


def test_what_depends_on_the_model() -> None:
    ends = [user(), assistant([text("a")])]
    assert check_history("anthropic", ends, prefill=True) == []
    assert check_history("anthropic", [user(), assistant([text("a ")])], prefill=True)
    loop = [user(), assistant([block_call()]), user([result()])]
    assert check_history("anthropic", loop) == []
    assert "must begin with thinking" in check_history("anthropic", loop, thinking=True)[0]
    loop[1] = assistant([thinking(), block_call()])
    assert check_history("anthropic", loop, thinking=True) == []
    step = [U, parts("model", fcall()), parts("user", fresponse())]
    assert check_history("google", step) == []
    assert "no thought signature" in check_history("google", step, signatures=True)[0]
    step[1] = parts("model", fcall(thoughtSignature="c2ln"))
    assert check_history("google", step, signatures=True) == []


def test_a_body_is_looked_at_as_a_whole() -> None:
    assert check_history("anthropic", {"messages": [user()], "system": [text("s")]}) == []
    assert check_history("anthropic", {"messages": [user()], "system": " "}) == [
        "system[0]: blank text"
    ]
    loop = {"messages": [user(), assistant([block_call()]), user([result()])]}
    assert check_history("anthropic", loop | {"tools": [{}]}) == []
    assert check_history("anthropic", loop) == [
        "tools: missing, though there are calls in the history"
    ]
    assert check_history("google", {"contents": [U], "systemInstruction": {"parts": [text("")]}})
    assert check_history("openai", {"model": "m"}) == ["expected a list of messages, got NoneType"]
    assert check_history("openai.responses", {"input": "hello"}) == []
    answer = {"input": [fn_output()], "previous_response_id": "resp_1"}
    assert check_history("openai.responses", answer) == []


def test_assert_legal_tells_everything() -> None:
    with pytest.raises(IllegalHistoryError, match="openai would refuse") as raised:
        assert_legal("openai", [user(), calls(call(name="a b"))])
    assert len(raised.value.problems) == 2
    assert raised.value.provider == "openai"


def test_unknown_provider() -> None:
    with pytest.raises(ValueError, match="no checker for 'x': expected one of anthropic"):
        check_history("x", [])


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
WORDS = [
    "role", "content", "type", "text", "parts", "user", "assistant", "model", "tool_calls", "id",
    "function", "name", "arguments", "tool", "tool_call_id", "tool_use", "tool_result", "input",
    "toolUse", "toolResult", "functionCall", "functionResponse", "function_call", "call_id",
    "function_call_output", "reasoning", "image_url", "image", "source", "inlineData", "message",
    "message.input", "function.call", "function.result", "thinking", "thoughtSignature", "summary",
]  # fmt: skip
LIKELY = st.recursive(
    st.sampled_from(WORDS) | JSON_VALUES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4)
    ),
    max_leaves=8,
)
LIKELY_MESSAGE = st.dictionaries(st.sampled_from(WORDS), LIKELY, max_size=5)


@given(st.sampled_from(PROVIDERS), st.lists(LIKELY_MESSAGE, max_size=3))
def test_nothing_is_raised_for_any_value(provider: str, messages: Any) -> None:
    check_history(provider, messages, thinking=True, signatures=True)
    check_history(provider, {"messages": messages, "contents": messages, "input": messages})
    check_history(provider, messages, system=messages)


# -- what was accepted

APIS = {
    "chat-completions": "openai",
    "converse": "aws",
    "generate-content": "google",
    "messages": "anthropic",
    "responses": "openai.responses",
}
# Recorded requests that a checker refuses although they were answered, and why it still does.
STRICTER = {
    "expected user or assistant, got 'system'": "needs a beta header",
    "the last message must be the user's": "prefill, on a model that still takes it",
    "in a row": "accepted by Titan alone",
    "expected base64, got {'type': 'Buffer'": "mangled by the recorder",
    "inlineData.data: not base64": "mangled by the recorder",
    "empty text": "harmless to Gemini, but refused by Vertex AI",
    "expected at least one call, or no list": "clones refuse it",
    "content: an empty list": "clones refuse it",
    "neither text nor calls": "clones refuse it",
    "is used twice": "accepted by xAI alone",
    "without the item that it produced": "accepted by DeepSeek alone",
    "an output for None, which is not an open call": "accepted by Z.ai alone",
    "no outputs for ['call_-": "accepted by Z.ai alone",
}


def test_accepts_what_was_accepted(recordings: Path) -> None:
    seen = dict.fromkeys(APIS.values(), 0) | {"mistralai": 0}
    used_reasons: set[str] = set()
    for path in sorted((recordings / "recorded").rglob("*.json")):
        exchange = json.loads(path.read_bytes())
        body = (exchange.get("request") or {}).get("body")
        if exchange["kind"] in ("error", "realtime") or not isinstance(body, dict):
            continue
        provider = "mistralai" if exchange["provider"] == "mistral" else APIS[exchange["api"]]
        seen[provider] += 1
        for problem in check_history(provider, body):
            reason = next((key for key in STRICTER if key in problem), None)
            assert reason is not None, f"{path.name}: {problem}"
            used_reasons.add(reason)
    assert all(count > 30 for count in seen.values()), seen
    assert used_reasons == set(STRICTER), "a reason that no recording needs any more"


def test_refuses_what_was_refused(recordings: Path) -> None:
    """The recorded refusals that are about the history, not the model or the key."""
    refused: dict[str, list[str]] = {}
    for path in sorted((recordings / "recorded").rglob("*.json")):
        exchange = json.loads(path.read_bytes())
        body = (exchange.get("request") or {}).get("body")
        if exchange["kind"] != "error" or not isinstance(body, dict):
            continue
        if exchange["response"]["status"] != 400 or exchange["api"] not in APIS:
            continue
        said = exchange["response"].get("body") or ""
        for sign in (
            "empty array",
            "must have non-empty content",
            "does not match the expected shape",
            "No tool output found",
            "without its required following item",
            "Please use a valid role",
        ):
            if sign in said:
                refused[sign] = check_history(APIS[exchange["api"]], body)
    assert refused
    assert {sign for sign, problems in refused.items() if not problems} == set()


@pytest.mark.parametrize("provider", PROVIDERS)
def test_values_deeper_than_the_stack_are_looked_through(provider: str) -> None:
    deep: Any = "\ud800"
    for _ in range(30_000):
        deep = [deep]
    round_and_round: list[Any] = []
    round_and_round.append(round_and_round)
    found = check_history(provider, [{"role": "user", "content": deep}, round_and_round])
    assert any("half a surrogate pair" in str(problem) for problem in found)
    while deep != "\ud800":  # taken apart by hand: some interpreters free it by recursion
        (deep,) = deep
