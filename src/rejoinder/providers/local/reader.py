"""Finds tool calls in the text of small models.

Pure. Small models know the content of a call but not how to mark it: they write bare JSON, JSON in a
code fence, doubled braces, and a dozen names for the same two keys. `CallReader` reads their text as
it arrives and returns text and calls. It holds back a possible beginning of a call until it can
decide, and each decision is independent of how the text was cut. Time is linear and memory bounded:
beyond `_LIMIT` characters, nothing counts as a call. Other JSON, for which the user may have asked,
stays text.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from rejoinder._core import jsontext
from rejoinder._core.mending import repair_json
from rejoinder.providers.local.tools import Call, ToolSpec, fitting

__all__ = ["CallReader"]

_LIMIT: Final = 1 << 14
"""Maximum number of characters held back."""
_MAX_DEPTH: Final = 32


class CallReader:
    """The text of a model in, text and calls out.

    A call of a declared tool with fitting arguments is accepted anywhere. A lookalike (an unknown
    tool, arguments that do not fit, unreadable JSON) is dropped if it stands alone; inside something
    larger (code, other JSON) it stays text.

    Args:
        specs: the declared tools.
        single: return one call at most.
        answered: calls that must not be repeated; repeats are dropped.
        refuse: no call is allowed; all are dropped.
        lookalikes: drop lookalikes. False if the answer itself is JSON of the caller's schema, which
            may look like a call.

    Attributes:
        dropped: whether something that was meant as a call was dropped.
        misfit: the declared tool that was called with arguments that do not fit, if any.
        called: number of calls returned so far.
        said: whether any text was returned.
    """

    def __init__(
        self,
        specs: Sequence[ToolSpec],
        *,
        single: bool = False,
        answered: Collection[Call] = (),
        refuse: bool = False,
        lookalikes: bool = True,
    ) -> None:
        self._specs = {spec.name: spec for spec in specs}
        self._keys = _CALL_KEYS.union(self._specs, *map(_parameters, specs))
        self._single = single
        self._refuse = refuse
        self._lookalikes = lookalikes
        self._answered = {_canonical(call) for call in answered}
        self._held = ""
        self._scan: _Scan | None = None
        self._close = ""  # the mark that ends what we are in
        self._fence = ""  # what opened was dropped with a call, and so will be what closes
        self._shown = ""  # the last of the text, to see what a bracket stands in
        self._blank: list[str] = []  # white space that is dropped if nothing follows it
        self._listing = False  # a call was dropped; a comma now only separates it from the next one
        self._seen: set[Call] = set()
        self.dropped = False
        self.misfit: str | None = None
        self.called = 0
        self.said = False

    @property
    def full(self) -> bool:
        """Whether no further call will be returned."""
        return self._single and self.called > 0

    def feed(self, text: str) -> list[str | Call]:
        """The text and calls that `text` completes."""
        self._held += text
        return self._drain(final=False)

    def close(self) -> list[str | Call]:
        """No more text follows. Returns what was held back, as text or calls."""
        out = self._drain(final=True)
        self._blank.clear()
        return out

    def take(self, name: str, arguments: str) -> list[Call]:
        """Judge a call that the engine itself recognized like one in the text."""
        return self._accepted(self._weigh([(name, arguments.strip() or {})], 0, alone=True))

    def _drain(self, *, final: bool) -> list[str | Call]:
        out: list[str | Call] = []
        text: list[str] = []
        while self._held:
            if not self._close:
                start = _START.search(self._held)
                text.append(self._pass(start.start() if start else len(self._held)))
                if start is None:
                    break
            verdict = self._judge_marked(final) if self._close else self._judge(final)
            if verdict is None:
                break
            self._scan = None
            if verdict.calls is None:
                text.append(self._pass(verdict.length))
                continue
            self._say(text, out)
            self._blank.clear()
            self._shown = ""
            self._listing = self._listing or verdict.dropped
            self._held = self._held[verdict.length :]
            out += self._accepted(verdict)
        self._say(text, out)
        return out

    def _accepted(self, verdict: _Verdict) -> list[Call]:
        """The calls to return."""
        out: list[Call] = []
        self.dropped = self.dropped or verdict.dropped
        self.misfit = self.misfit or verdict.misfit
        for call in verdict.calls or ():
            if call in self._seen or self.full:
                continue  # small models like to repeat themselves
            if self._refuse or call in self._answered:
                self.dropped = True
                continue
            self._seen.add(call)
            self.called += 1
            out.append(call)
        return out

    def _pass(self, length: int) -> str:
        text, self._held = self._held[:length], self._held[length:]
        self._shown = (self._shown + text)[-_TAIL:]
        return text

    def _say(self, text: list[str], out: list[str | Call]) -> None:
        joined = "".join(text)
        text.clear()
        if self.said and not self._listing and not joined.strip():
            self._blank.append(joined)
            return
        joined = "".join(self._blank) + joined
        self._blank.clear()
        if self.called:
            return  # the text after a call is a result that the model invents
        if self._listing:
            joined = _COMMAS.sub("", joined)
            self._listing = not joined.strip()
        kept = joined.rstrip()
        if not self.said:
            kept = kept.lstrip("\n")
            joined = joined.lstrip("\n")
        self._blank.append(joined[len(kept) :])
        if kept:
            self.said = True
            out.append(kept)

    # -- judging what is held: None waits for more, a verdict without calls is text ---------------

    def _judge(self, final: bool) -> _Verdict | None:
        held = self._held
        if held[0] == "`":
            return self._judge_fence(final)
        if held[0] == "<":
            return self._judge_mark(final)
        return self._judge_json(0, final, alone=_PART.search(self._shown) is None)

    def _judge_fence(self, final: bool) -> _Verdict | None:
        held = self._held
        if self._fence and held.startswith(self._fence):
            length, self._fence = len(self._fence), ""
            return _Verdict(length, ())
        ticks = _TICKS.match(held)
        text = _Verdict(ticks.end() if ticks else 0)
        if text.length > _LONGEST_FENCE:
            return text
        opening = _FENCE.match(held)
        if opening is None or opening.end() == len(held):
            return None if not final and _FENCE_BEGUN.fullmatch(held) else text
        body = opening.end()
        inside: _Verdict | None = text
        if held[body] in "{[":
            inside = self._judge_json(body, final, alone=True, stop=opening.group(1) or "")
        elif _MARK.match(held, body):
            inside = _Verdict(body, ())
        elif not final and _begins_mark(held[body:]):
            return None
        if inside is None:
            return None
        if inside.calls is None:
            return text
        self._fence = held[: text.length]
        return inside

    def _judge_mark(self, final: bool) -> _Verdict | None:
        held = self._held
        mark = _MARK.match(held)
        if mark is None:
            return None if not final and _begins_mark(held) else _Verdict(1)
        body, close = mark.end(), _MARKS[mark.group(1)]
        if not close:
            return _Verdict(mark.end(1), ())
        if body == len(held):
            return _Verdict(body, (), dropped=True) if final else None
        if held[body] in "{[":
            self._close = close
            return _Verdict(body, ())
        end = held.find(close, body, _LIMIT)
        if end >= 0:
            return _Verdict(end, (), dropped=True)
        # It is never closed: the text is about the mark.
        return None if not final and len(held) < _LIMIT else _Verdict(1)

    def _judge_marked(self, final: bool) -> _Verdict | None:
        """Judge text between call marks, which can only be a call."""
        held = self._held
        blank = len(held) - len(held.lstrip())
        if blank:
            return _Verdict(blank, ())
        if held[0] in "{[":
            return self._judge_json(0, final, alone=True, stop=self._close, marked=True)
        if not final and len(held) < len(self._close) and self._close.startswith(held):
            return None
        self._close = ""
        return _Verdict(0, ())

    def _judge_json(
        self, start: int, final: bool, *, alone: bool, stop: str = "", marked: bool = False
    ) -> _Verdict | None:
        """Judge a value that opens with a bracket at `start` and ends at `stop`, if not before."""
        held = self._held
        if self._scan is None:
            begins = marked or self._may_begin(start)
            if not begins:
                return None if begins is None and not final else _Verdict(start + 1)
            self._scan = _Scan(start, stop)
        scan = self._scan
        scan.go_on(held, None if marked else self._keys)
        if scan.foreign:
            return _Verdict(start + 1)
        end = len(held) if scan.end is None and final else scan.end
        long = (len(held) if end is None else end) - start > _LIMIT
        if end is None and not long:
            return None
        # The end mark may occur inside a text of the arguments, or after a text that never ends.
        broken = long or not scan.whole or _read(held[start:end]) is _UNREADABLE
        if broken and scan.quoted_stop is not None:
            end = scan.quoted_stop
            long = end + len(stop) - start > _LIMIT
        if long or end is None:
            return _Verdict(start + 1)
        meant = _meant_by(held[start:end], self._specs)
        if meant is None:
            return _Verdict(end, (), dropped=True) if marked else _Verdict(start + 1)
        return self._weigh(meant, end, alone=alone and (marked or self._lookalikes))

    def _may_begin(self, start: int) -> bool | None:
        """Whether the first key is one that calls begin with; ``None`` if that cannot be seen yet."""
        first = _FIRST_KEY.match(self._held, start)
        if first is None:
            return False
        key, quote, colon = first.groups()
        if colon:
            return key in self._keys
        if first.end() < len(self._held):
            return False
        near = (key in self._keys) if quote else any(k.startswith(key) for k in self._keys)
        return None if near else False

    def _weigh(self, meant: Sequence[tuple[str, Any]], end: int, *, alone: bool) -> _Verdict:
        """Accept those of the intended calls that are allowed."""
        calls: list[Call] = []
        dropped = False
        misfit: str | None = None
        for name, arguments in meant:
            spec = self._specs.get(name)
            fit = None if spec is None else fitting(spec, arguments)
            if fit is None:
                dropped = True
                misfit = misfit or (spec.name if spec else None)
            else:
                calls.append(Call(name, jsontext.encode(fit).decode()))
        if not calls and not alone:
            return _Verdict(1)
        return _Verdict(end, tuple(calls), dropped, misfit)


def _canonical(call: Call) -> Call:
    try:
        return Call(call.name, jsontext.encode(jsontext.decode(call.arguments)).decode())
    except ValueError:
        return call


@dataclass(frozen=True, slots=True)
class _Verdict:
    length: int
    """Number of characters that the verdict covers."""
    calls: tuple[Call, ...] | None = None
    """``None``: they are text."""
    dropped: bool = False
    misfit: str | None = None


class _Scan:
    """Scans one JSON value, or something similar, in a growing text. Reads each character once.

    Args:
        start: where it begins.
        stop: a text that ends it; empty if nothing does.

    Attributes:
        end: where it ends, once the end was seen.
        whole: whether it was closed.
        quoted_stop: where `stop` first occurs inside a string.
        foreign: it has a key that calls do not have, or is nested too deeply for a call.
    """

    __slots__ = (
        "_at", "_depth", "_in_text", "_key_from", "_level", "_stop", "_tokens", "end", "foreign",
        "quoted_stop", "whole",
    )  # fmt: skip

    def __init__(self, start: int, stop: str = "") -> None:
        self._at = start
        self._stop = stop
        self._tokens = _tokens_with(stop) if stop else _JSON_TOKEN
        self.whole = False
        self.quoted_stop: int | None = None
        self._depth = self._level = 0
        self._in_text = False
        self._key_from: int | None = None
        self.end: int | None = None
        self.foreign = False

    def go_on(self, text: str, keys: Container[str] | None) -> None:
        """Scan the text that arrived since the last call. `keys`: keys that calls have; ``None`` to
        accept any."""
        for token in self._tokens.finditer(text, self._at):
            mark = token.group()
            self._at = token.end()
            if mark == self._stop:
                if not self._in_text:
                    self.end = token.start()
                elif self.quoted_stop is None:
                    self.quoted_stop = token.start()
            elif self._in_text:
                self._in_text = mark != '"'
            elif mark == '"':
                self._in_text = True
            elif mark in "{[":
                self._depth += 1
                self._key_from = self._at
                self.foreign = self._depth > _MAX_DEPTH
            elif mark in "}]":
                self._depth -= 1
                if self._depth == 0:
                    self.end, self.whole = self._at, True
            elif mark == "," and self._depth == self._level:
                self._key_from = self._at
            elif mark == ":" and self._key_from is not None:
                self._level = self._level or self._depth  # that of the first key
                if self._depth == self._level:
                    key = text[self._key_from : token.start()].strip(_QUOTES)
                    self.foreign = keys is not None and key not in keys
                    self._key_from = None
            if self.foreign or self.end is not None:
                return
        # A backslash at the end may escape what comes next, and `stop` may have begun.
        rest = text[max(self._at, len(text) - len(self._stop) - 1) :]
        begun = 1 if rest.endswith("\\") else 0
        for size in range(min(len(rest), len(self._stop) - 1), 0, -1):
            if rest.endswith(self._stop[:size]):
                begun = size
                break
        self._at = len(text) - begun


_TAIL: Final = 32
"""Number of characters before a bracket that are examined."""
_START: Final = re.compile(r"[<`{\[]")
_COMMAS: Final = re.compile(r"\A(?:\s*,)+")
_LONGEST_FENCE: Final = 64
_TICKS: Final = re.compile(rf"`{{1,{_LONGEST_FENCE + 1}}}")
_FENCE: Final = re.compile(r"(`{3,})[^\n`]{0,32}\n\s{0,64}|(?<!`)`{1,2}(?=[{\[])")
_FENCE_BEGUN: Final = re.compile(r"`{1,2}|`{3,}[^\n`]{0,32}(?:\n\s{0,64})?")
_MARKS: Final = {
    **{f"<{name}>": f"</{name}>" for name in ("tool_call", "function_call", "tools", "tool_calls")},
    **{f"</{name}>": "" for name in ("tool_call", "function_call", "tools", "tool_calls")},
    "<|tool_call|>": "",
    "<|python_tag|>": "",
}
"""Marks that begin a call, and the mark that ends each."""
_MARK: Final = re.compile(rf"({'|'.join(map(re.escape, _MARKS))})\s*")
_PART: Final = re.compile(r"""(?:["']\s*:|["'\]})\d]\s*,|[\[({=])\s*\Z""")
"""Endings of a text to which the next bracket still belongs."""
_CALL_KEYS: Final = frozenset({
    "name", "arguments", "parameters", "args", "input", "function", "tool", "tool_name",
    "function_name", "function_call", "tool_call", "tool_calls", "action", "action_input", "type",
    "id", "thought", "reason", "reasoning",
})  # fmt: skip
_NAME_KEYS: Final = ("name", "function", "tool", "tool_name", "function_name", "action")
_ARGUMENT_KEYS: Final = ("arguments", "parameters", "args", "input", "action_input")
_INNER_KEYS: Final = ("function", "function_call", "tool_call")
_FIRST_KEY: Final = re.compile(r"""[\[{][\[{\s]{0,32}["']?([\w.-]{0,64})(["']?)\s{0,8}(:?)""")
_NAMED: Final = re.compile(
    rf"""[\[{{\s]*["']?(?:{"|".join(_NAME_KEYS)})["']?\s*:\s*["']([\w.-]+)["']"""
)
_QUOTES: Final = " \t\r\n\"'"
_JSON_TOKEN: Final = re.compile(r'\\.|["{}\[\]:,]', re.DOTALL)
_UNREADABLE: Final = object()


@functools.cache
def _tokens_with(stop: str) -> re.Pattern[str]:
    return re.compile(f"{re.escape(stop)}|{_JSON_TOKEN.pattern}", re.DOTALL)


def _begins_mark(text: str) -> bool:
    return any(mark.startswith(text) for mark in _MARKS)


def _meant_by(written: str, specs: Mapping[str, ToolSpec]) -> list[tuple[str, Any]] | None:
    """The calls in the text `written`, declared or not; ``None`` if it is not a call."""
    value = _read(written)
    if value is not _UNREADABLE:
        return _meant(value, specs)
    named = _NAMED.match(written)
    return [(named.group(1), _UNREADABLE)] if named else None


def _read(text: str) -> Any:
    """The JSON value of `text`, mended if necessary."""
    candidates = [text]
    if text.startswith("{{"):
        candidates.append(text[1:-1] if text.endswith("}}") else text[1:])
    for candidate in candidates:
        try:
            return jsontext.decode(candidate)
        except ValueError:
            pass
    for candidate in candidates:
        value = repair_json(candidate)
        if isinstance(value, (dict, list)):
            return cast("Any", value)
    return _UNREADABLE


def _meant(value: Any, specs: Mapping[str, ToolSpec]) -> list[tuple[str, Any]] | None:
    """The calls in a JSON value, declared or not; ``None`` if it is not a call."""
    if isinstance(value, list):
        found: list[tuple[str, Any]] = []
        for item in cast("list[Any]", value):
            inner = _meant(item, specs)
            if inner is None:
                return None
            found += inner
        return found or None
    if not isinstance(value, dict):
        return None
    data = cast("dict[str, Any]", value)
    many: Any = data.get("tool_calls")
    if isinstance(many, list):
        return _meant(cast("Any", many), specs)
    for key in _INNER_KEYS:
        if isinstance(data.get(key), dict):
            return _meant(data[key], specs)
    if data and all(key in specs and isinstance(item, dict) for key, item in data.items()):
        return list(data.items())
    named = next((key for key in _NAME_KEYS if isinstance(data.get(key), str)), None)
    if named is None:
        return None
    name = data[named].strip()
    given = next((key for key in _ARGUMENT_KEYS if key in data), None)
    flat = _parameters(specs[name]) if given is None and name in specs else ()
    if any(key not in _CALL_KEYS and key not in flat for key in data):
        return None
    if given is not None:
        return [(name, {} if data[given] is None else data[given])]
    if name not in specs:
        return None  # {"name": "Ada"} is data
    return [(name, {key: item for key, item in data.items() if key in flat and key != named})]


def _parameters(spec: ToolSpec) -> Collection[str]:
    found: object = spec.parameters.get("properties")
    return cast("dict[str, Any]", found).keys() if isinstance(found, dict) else ()
