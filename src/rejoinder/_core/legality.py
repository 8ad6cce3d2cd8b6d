"""What each provider demands of a history, as data, and a quick look whether one meets it.

Law: pure; the rules of all providers stand in one table, so that they can be compared. The quick
look is made before every request and must cost less than the conversion that follows; it may call
a legal history doubtful, never an illegal one legal. What to do about it is not known here.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, cast

import msgspec

from rejoinder._core.groups import refuse_item
from rejoinder._core.images import data_of, serialize_image
from rejoinder._core.items import ChatItem, ChatMessage, FunctionCall, ImageContent
from rejoinder.media import picture_fault

__all__ = [
    "PROVIDERS",
    "STATEFUL",
    "STATE_PARTS",
    "Rules",
    "Verdict",
    "image_fault",
    "is_object",
    "is_sendable",
    "is_signed",
    "is_too_deep",
    "look",
    "rules_of",
    "sound_value",
    "tool_names_of",
]

_object = msgspec.json.Decoder(dict[str, Any]).decode


@dataclass(frozen=True)
class Rules:
    """What one provider demands of a history in its format."""

    call_id: re.Pattern[str]
    new_call_id: Callable[[str], str]
    name: re.Pattern[str]
    blocks: bool
    """Each text of a message is a block of its own, and none may be blank."""
    first_user: str = ""
    """What the user says first where nobody of the user's side does; empty: not demanded."""
    calls_first: bool = True
    """A history may begin with calls."""
    last_user: str = ""
    """The same for the end."""
    lone_user: str = ""
    """The same for a history in which nothing is left."""
    folds_instructions: bool = False
    """The first system message goes elsewhere, later instructions are the user's."""
    one_instruction: bool = False
    """There is one text of instructions, and no place among the messages for another."""
    developer: bool = True
    """The role ``developer`` is known."""
    reply_after_tools: bool = False
    """After an output comes the assistant; instructions only before and after the user."""
    assistant_images: bool = False
    image_schemes: tuple[str, ...] = ("https://", "http://")
    """How the address of an image elsewhere begins; none: only the image itself is accepted."""
    image_types: frozenset[str] = frozenset({"image/gif", "image/jpeg", "image/png", "image/webp"})
    output_names: bool = False
    blank_outputs: bool = True
    blank_errors: bool = True
    state: str = ""
    """The key of `extra` whose content the format sends."""
    signatures: bool = False
    """The first call of each step of the last turn needs a thought signature."""


_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_GOOGLE_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_.-]{0,63}")
_NINE = re.compile(r"[a-zA-Z0-9]{9}")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _nine(seed: str) -> str:
    return _digest(seed)[:9]


def _call(seed: str) -> str:
    return "call_" + _digest(seed)[:24]


_COMPLETIONS = Rules(
    call_id=re.compile(r"[^\s\x00-\x1f\ud800-\udfff]{1,40}"),
    new_call_id=_call,
    name=_NAME,
    blocks=False,
    lone_user="(empty)",
    state="openai",
)
_BLOCKS = Rules(
    call_id=re.compile(r"[a-zA-Z0-9_-]{1,64}"),
    new_call_id=_call,
    name=_NAME,
    blocks=True,
    first_user="(empty)",
    last_user=".",
    lone_user="(empty)",
    folds_instructions=True,
    blank_errors=False,
)
_MISTRAL = Rules(
    call_id=_NINE,
    new_call_id=_nine,
    name=_NAME,
    blocks=False,
    calls_first=False,
    last_user=".",
    lone_user=".",
    developer=False,
    reply_after_tools=True,
    state="mistralai",
)
_RULES = {
    "anthropic": replace(_BLOCKS, state="anthropic"),
    "aws": replace(_BLOCKS, image_schemes=(), blank_outputs=False, state="aws"),
    "google": replace(
        _BLOCKS,
        call_id=re.compile(r"[^\s\x00-\x1f\ud800-\udfff]{1,64}"),
        name=_GOOGLE_NAME,
        first_user=".",
        lone_user=".",
        assistant_images=True,
        image_schemes=("https://", "http://", "gs://"),
        image_types=frozenset(
            {"image/heic", "image/heif", "image/jpeg", "image/png", "image/webp"}
        ),
        output_names=True,
        blank_errors=True,
        state="google",
    ),
    "mistralai": _MISTRAL,
    "mistralai.conversations": replace(_MISTRAL, reply_after_tools=False, one_instruction=True),
    "openai": _COMPLETIONS,
    "openai.responses": replace(
        _COMPLETIONS, call_id=re.compile(r"[^\s\x00-\x1f\ud800-\udfff]{1,64}")
    ),
}

PROVIDERS = tuple(sorted(_RULES))
"""The names that `repair` knows: those of the built-in formats."""

STATEFUL = frozenset({"anthropic", "aws", "google", "livekit", "mistralai", "openai", "xai"})
"""Keys of `extra` that hold the state of a provider; other keys are the caller's own."""


def tool_names_of(provider: str) -> re.Pattern[str]:
    """The names that a tool may have there. `repair` gives its calls another one otherwise."""
    return _RULES[provider].name


def rules_of(provider: str, prefill: bool, signatures: bool) -> Rules:
    rules = _RULES.get(provider)
    if rules is None:
        raise ValueError(
            f"repair knows no provider {provider!r}: expected one of {', '.join(PROVIDERS)}"
        )
    if prefill and rules.last_user:
        rules = replace(rules, last_user="")
    if signatures and provider == "google":
        rules = replace(rules, signatures=True)
    return rules


# ---------------------------------------------------------------------------------------------
# The quick pass: true only when nothing needs to be done. It may be wrong in the other direction.


Verdict: TypeAlias = Literal["legal", "ids", "doubtful"]
"""``ids``: all that is wrong is that calls have ids of another provider's form."""


def look(items: Sequence[ChatItem], rules: Rules, keep: frozenset[str], provider: str) -> Verdict:
    """Whether a history can be sent as it is. Gives up at the first thing it is not sure of.

    Raises:
        TypeError: an element is not an item of a chat context.
    """
    blocks = rules.blocks
    signatures = rules.signatures
    call_id_ok = rules.call_id.fullmatch
    name_ok = rules.name.fullmatch
    names: set[str] = set()
    ids: set[str] = set()
    keys: set[str] = set()
    seen: set[str] = set()
    pending: dict[str, str] = {}
    key: str | None = None  # of the assistant turn that is being read
    stateful = False  # its first call carries state
    unsigned = False  # since the user spoke, a step came without a signature
    instructed = False
    foreign = False  # a call has an id that this provider would not take
    first = last = ""
    for item in items:
        match item.type:
            case "message":
                if pending:
                    return "doubtful"
                content = item.content
                text = content[0] if len(content) == 1 else None
                if isinstance(text, str):
                    if not text or text.isspace() or not (text.isascii() or is_sendable(text)):
                        return "doubtful"
                elif not _is_sound(item, rules):
                    return "doubtful"
                if item.extra and not _is_sound_state(
                    item.extra, keep, provider, seen, "message_id"
                ):
                    return "doubtful"
                role: str = item.role
                if role == "assistant":
                    key = item.id
                    if "/" in key:
                        key = key.split("/", 1)[0]
                    if key in keys:
                        return "doubtful"
                    keys.add(key)
                    stateful = False
                else:
                    key = None
                    if role == "user":
                        unsigned = False
                    elif role not in ("developer", "system"):
                        return "doubtful"
                    elif rules.folds_instructions:
                        role, instructed = (
                            ("user" if instructed or role == "developer" else ""),
                            True,
                        )
                        unsigned = unsigned and not role
                    elif rules.one_instruction:
                        if instructed:
                            return "doubtful"
                        role, instructed = "", True
                    elif not rules.developer and (
                        role == "developer" or last not in ("", "system", "user")
                    ):
                        return "doubtful"
                    else:
                        role = "system"
                    if rules.reply_after_tools and last == "tool":
                        return "doubtful"
                if role:
                    last = role
                    if not first and role != "system":
                        first = role
            case "function_call":
                call_id = item.call_id
                if call_id in ids:
                    return "doubtful"
                ids.add(call_id)
                foreign = foreign or not call_id_ok(call_id)
                if item.name not in names:
                    if not name_ok(item.name):
                        return "doubtful"
                    names.add(item.name)
                if item.arguments != "{}" and not is_object(item.arguments):
                    return "doubtful"
                own = item.group_id or item.id.split("/", 1)[0]
                if own != key:
                    if own in keys or (stateful and rules.state not in item.extra):
                        return "doubtful"
                    keys.add(own)
                    key = own
                    stateful = False
                    unsigned = unsigned or (signatures and not is_signed(item))
                elif signatures and last == "assistant" and not pending:
                    unsigned = unsigned or not is_signed(item)
                if item.extra:
                    if not _is_sound_state(item.extra, keep, provider, seen, "item_id"):
                        return "doubtful"
                    stateful = stateful or (blocks and not pending and rules.state in item.extra)
                pending[call_id] = item.name
                if not first:
                    if not last and not rules.calls_first:
                        return "doubtful"
                    first = "assistant"
            case "function_call_output":
                name = pending.pop(item.call_id, None)
                if name is None or (rules.output_names and item.name != name):
                    return "doubtful"
                text = item.output
                if not (text.isascii() or is_sendable(text)):
                    return "doubtful"
                if (not text or text.isspace()) and not (
                    rules.blank_outputs and (rules.blank_errors or not item.is_error)
                ):
                    return "doubtful"
                stateful = False
                last = "tool"
            case "agent_handoff" | "agent_config_update":
                pass
            case _:
                refuse_item(item, getattr(item, "type", None))
    if pending or unsigned or not last:
        return "doubtful"
    if rules.first_user and first != "user":
        return "doubtful"
    if last not in ("user", "tool") and (rules.last_user or (last == "assistant" and blocks)):
        return "doubtful"
    return "ids" if foreign else "legal"


def _is_sound(message: ChatMessage, rules: Rules) -> bool:
    """Whether there is something to send, and all of it can be sent by who says it."""
    something = False
    if isinstance(cast("object", message.content), str):
        return False
    for part in message.content:
        if isinstance(part, str):
            if not part or part.isspace():
                if rules.blocks and part:
                    return False
            elif not (part.isascii() or is_sendable(part)):
                return False
            else:
                something = True
        elif part.type == "image_content":
            if message.role != "user" and not (
                message.role == "assistant" and rules.assistant_images
            ):
                return False
            if any(image_fault(part, rules)):
                return False
            something = True
    return something


def is_sendable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


# Gemini reads arguments into a structure that may not be nested deeper than this, and a writer of
# JSON must not run out of stack.
_DEEPEST = 64


def is_object(arguments: str) -> bool:
    """Whether the text is a JSON object that every provider reads."""
    try:
        value = _object(arguments)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return False
    return len(arguments) <= 2 * _DEEPEST or not is_too_deep(arguments, value)


def is_too_deep(text: str, value: object) -> bool:
    """Whether `value`, as read from `text`, is nested deeper than providers read."""
    if text.count("{") + text.count("[") <= _DEEPEST:
        return False
    level: list[Any] = [value]
    for _ in range(_DEEPEST):
        level = [
            inner
            for held in level
            for inner in (
                cast("dict[str, Any]", held).values()
                if isinstance(held, dict)
                else cast("list[Any]", held)
            )
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return False
    return True


def is_signed(call: FunctionCall) -> bool:
    state = call.extra.get("google")
    return isinstance(state, dict) and _is_base64(
        cast("dict[str, Any]", state).get("thought_signature")
    )


# ---------------------------------------------------------------------------------------------
# Opaque state


def _is_sound_state(
    extra: dict[str, Any], keep: frozenset[str], provider: str, seen: set[str], name: str
) -> bool:
    for key, value in extra.items():
        if key in STATEFUL and (
            value is None
            or key not in keep
            or sound_value(key, value, provider, seen, name) is not value
        ):
            return False
    return True


def sound_value(
    key: str, value: Any, provider: str, seen: set[str], name: str
) -> dict[str, Any] | None:
    """`value` itself when all of it may be sent, what is left of it otherwise, ``None`` for none.

    Args:
        key: the key of `extra` that holds it.
        value: the state.
        provider: the format.
        seen: the ids that were sent before and may not be sent again; those of this state are
            added.
        name: under which key an item of this kind keeps the id that its provider gave it; empty
            for an item of which nothing but the state is sent.
    """
    if not isinstance(value, dict):
        return None
    state = cast("dict[str, Any]", value)
    part, is_whole = STATE_PARTS.get((key, provider), ("", _is_base64))
    if part not in state:
        return state
    held = state[part]
    rest = {name: kept for name, kept in state.items() if name != part}
    if part == "thought_signature":
        return state if is_whole(held) else rest or None
    if isinstance(held, list):
        entries = cast("list[Any]", held)
        whole = [entry for entry in entries if is_whole(entry)]
        if part == "reasoning_items" and not _leads_on(whole, state.get(name), seen):
            whole = [
                {name: value for name, value in entry.items() if name != "id"}
                for entry in whole
                if entry.get("encrypted_content")
            ]
            rest.pop(name, None)
        elif len(whole) == len(entries):
            return state
        if whole:
            rest[part] = whole
    return rest or None


def _leads_on(entries: list[dict[str, Any]], led_to: Any, seen: set[str]) -> bool:
    """Whether reasoning may be sent under its id: only before the very item that it led to, under
    that item's own id, and neither may come twice. Otherwise what it holds encrypted may be."""
    ids = [entry["id"] for entry in entries if "id" in entry]
    if not isinstance(led_to, str) or not led_to:
        return not ids
    if not seen.isdisjoint([*ids, led_to]):
        return False
    seen.update(ids)
    seen.add(led_to)
    return True


def _is_thinking(block: Any) -> bool:
    if not isinstance(block, dict):
        return False
    held = cast("dict[str, Any]", block)
    if held.get("type") == "redacted_thinking":
        return _is_text(held.get("data"))
    return (
        held.get("type") == "thinking"
        and isinstance(held.get("thinking"), str)
        and _is_text(held.get("signature"))
    )


def _is_reasoning_item(entry: Any) -> bool:
    if not isinstance(entry, dict):
        return False
    held = cast("dict[str, Any]", entry)
    return (
        held.get("type") == "reasoning"
        and isinstance(held.get("summary"), list)
        and _is_text(held.get("id", held.get("encrypted_content")))
    )


def _is_reasoning_block(entry: Any) -> bool:
    if not isinstance(entry, dict):
        return False
    held = cast("dict[str, Any]", entry)
    held = held.get("reasoningContent", held)
    if not isinstance(held, dict):
        return False
    block = cast("dict[str, Any]", held)
    if "redactedContent" in block:
        return _is_base64(block["redactedContent"])
    text = block.get("reasoningText")
    return (
        isinstance(text, dict)
        and isinstance(cast("dict[str, Any]", text).get("text"), str)
        and _is_text(cast("dict[str, Any]", text).get("signature"))
    )


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value) and not value.isspace()


_BASE64 = re.compile(r"(?:[A-Za-z0-9+/_-]{4})*(?:[A-Za-z0-9+/_-]{2}==|[A-Za-z0-9+/_-]{3}=)?")


def _is_base64(value: Any) -> bool:
    if isinstance(value, bytes):
        return bool(value)
    return isinstance(value, str) and bool(value) and _BASE64.fullmatch(value) is not None


STATE_PARTS: dict[tuple[str, str], tuple[str, Callable[[Any], bool]]] = {
    ("anthropic", "anthropic"): ("thinking", _is_thinking),
    ("aws", "aws"): ("reasoning", _is_reasoning_block),
    ("google", "google"): ("thought_signature", _is_base64),
    ("openai", "openai.responses"): ("reasoning_items", _is_reasoning_item),
}


# ---------------------------------------------------------------------------------------------
# Images


def image_fault(image: ImageContent, rules: Rules) -> tuple[str, str]:
    """Why `image` cannot be sent, empty when it can; and the type that it has, if it says another.

    Providers refuse an image whose bytes are not what its type says.
    """
    source = image.image
    if not isinstance(source, str):
        # A frame is encoded later, in a thread.
        return ("its frame holds no picture" if picture_fault(source) else ""), ""
    if source.startswith("data:"):
        try:
            data, shown, whole = data_of(image)
        except ValueError:
            return "it cannot be read", ""
        if not data:
            return "it holds no bytes", ""
        if not whole:
            return "its base64 is damaged", ""
        try:
            said = serialize_image(image).mime_type or ""
        except ValueError:
            said = ""
        if not (shown or said):
            return "it cannot be read", ""
        mime_type = shown or said
        if mime_type not in rules.image_types:
            return f"type {mime_type} is not accepted", ""
        return "", "" if mime_type == said else mime_type
    if not source.startswith(rules.image_schemes) or not is_sendable(source):
        return "its address is none that is accepted", ""
    return "", ""
