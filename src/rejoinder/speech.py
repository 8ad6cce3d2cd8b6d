"""Text of any model for any speech engine, in speakable pieces; and heard text from played sound.

`speakable` takes a stream of text. It returns the first clause early, so that the voice begins
soon, and then whole sentences, so that it sounds natural. Markdown, code and emoji are not spoken.
`Speech.heard` returns the text that was heard when playback stopped.
"""

from __future__ import annotations

import importlib
import re
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from types import TracebackType
from typing import Any, Final, Literal, Protocol, Self, TypeAlias, runtime_checkable

import msgspec

from rejoinder._core.chunks import ChatChunk
from rejoinder._core.collecting import is_restart
from rejoinder._core.speech.cutter import Cut, Cutter, Segment
from rejoinder._core.speech.plain import Plain
from rejoinder._core.speech.playback import SoundMap
from rejoinder._options import COUNT, MILLISECONDS, MOMENT, Rule, checked
from rejoinder._sections import explained
from rejoinder.errors import ConfigurationError
from rejoinder.media import AudioFrame
from rejoinder.turn import Restarted, Text, ToolPaused, ToolStarted

__all__ = [
    "Piece",
    "Speech",
    "TextTransform",
    "addresses_as_hosts",
    "numbers_as_words",
    "speakable",
    "without_emoji",
]

TextTransform: TypeAlias = Callable[[str], str]
"""Changes the text of a piece before it is spoken."""

_SPACES: Final = re.compile(r"[ \t]{2,}")
_WIDE_SPACE: Final = re.compile(r"[^\S\x00-\x7f]")
"""``sentencex`` ends with a panic of Rust at one of these between an initial and a full stop."""
_LINE: Final = re.compile(r"[ \t]*\n\s*")
_WORD_END: Final = re.compile(
    r".*(?:\s|[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af。！？、，])",
    re.DOTALL,
)
_MAX_WORD: Final = 200
# Emoji and their joiners. Digits, # and * are emoji only with a keycap; only the keycap is removed.
_EMOJI_SET: Final = (
    r"(?:[\U0001f000-\U0001faff\u2600-\u27bf\u2b00-\u2bff\u231a\u231b\u2328\u23cf\u23e9-\u23f3\u23f8-\u23fa"
    r"\u25aa\u25ab\u25b6\u25c0\u25fb-\u25fe\u2934\u2935\u3030\u303d\u3297\u3299]"
    r"[\ufe0f\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f\u20e3]*\u200d?|\ufe0f?\u20e3)"
)
_EMOJI: Final = re.compile(_EMOJI_SET)
_SPACED_EMOJI: Final = re.compile(rf" {_EMOJI_SET}+(?=[\s.,!?;:)]|\Z)")
_HOST: Final = re.compile(
    r"\b(?:https?://(?:[^\s/@]*@)?|www\.)([^\s/?#,;)\]]+)([^\s)\]>\"']*)", re.IGNORECASE
)
_NUMBER: Final = re.compile(
    r"(?<![\w.,:/$€£¥₹-])([-+\u2212]?)(\d{1,3}(?:[,\u202f\u00a0'’.]\d{3})+(?!\d)|\d+)([.,]\d+)?(st|nd|rd|th)?(\s?%)?(?![\w/:]|[.,-]\d|\s?[$€£¥₹])"
)
_LONGEST_NUMBER: Final = 9
"""Digits above which a number without separators is read digit by digit: a telephone number, an id."""


class Piece(msgspec.Struct, frozen=True):
    """A piece of a message, for a speech engine.

    Attributes:
        number: 0 for the first piece of the stream.
        text: the text to speak.
        source: the part of the model's text that it stands for. The sources of all pieces together,
            and `Speech.rest`, are that text.
        restart: the model began its answer again: stop speaking the earlier pieces.
    """

    number: int
    text: str
    source: str
    restart: bool = False


@runtime_checkable
class _Closeable(Protocol):
    async def aclose(self) -> None: ...


class Speech(AsyncIterator[Piece]):
    """The pieces of a stream; made by `speakable`. Iterate over it in one task, preferably inside
    ``async with``, which closes the stream too.

    An error of the stream is raised after the text before it has been returned.
    """

    def __init__(
        self,
        stream: AsyncIterable[Any],
        *,
        make_cutter: Callable[[], Cutter] | None,
        make_plain: Callable[[], Plain | None],
        transforms: Sequence[TextTransform],
    ) -> None:
        self._stream = stream
        self._items = aiter(stream)
        self._make_cutter = make_cutter
        self._make_plain = make_plain
        self._transforms = tuple(transforms)
        self._cutter = make_cutter() if make_cutter is not None else None
        self._plain = make_plain()
        self._word = _Held()
        self._ready: deque[Piece] = deque()
        self._silent = ""
        self._begun_again = False
        self._pieces: list[Piece] = []
        self._first = 0
        """Number of the first piece since the model last began its answer."""
        self._over = False
        self._error: Exception | None = None
        self._map = SoundMap()
        self._next = self._items.__anext__

    @property
    def rest(self) -> str:
        """The source after the last piece, which holds nothing to speak: a block of code, an emoji,
        white space. Complete when the stream has ended."""
        return self._silent

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Piece:
        ready = self._ready
        while not ready:
            if self._over:
                error, self._error = self._error, None
                if error is not None:
                    raise error
                raise StopAsyncIteration
            try:
                item: object = await self._next()
            except StopAsyncIteration:
                self._over = True
                self._flush()
                continue
            except Exception as error:
                self._over = True
                self._error = error
                self._flush()
                continue
            if type(item) is str:
                self._feed(item)
            else:
                self._take(item)
        return ready.popleft()

    async def aclose(self) -> None:
        """Close the stream, if it can be closed. Unread pieces are dropped."""
        self._over = True
        self._ready.clear()
        for stream in (self._items, self._stream):
            if isinstance(stream, _Closeable):  # generators, LLMStream and Turn
                await stream.aclose()
                return

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    # -- from sound to text ------------------------------------------------------------------------

    @checked()
    def add_audio(self, piece: Piece, sound: AudioFrame | float) -> None:
        """Report sound of a piece, for `heard`. Call it for each frame that the engine makes.

        Args:
            piece: a piece of this stream.
            sound: a frame, or milliseconds.
        """
        ms = sound.duration * 1000 if isinstance(sound, AudioFrame) else sound
        MILLISECONDS.check("sound", ms)
        self._sounds().add_sound(self._number(piece), ms)

    @checked()
    def add_words(self, piece: Piece, words: Sequence[tuple[str, float]]) -> None:
        """Report the times of words of a piece, if the engine provides them. `words`: each with the
        seconds from the beginning of the piece's sound."""
        self._sounds().add_words(self._number(piece), [(word, at * 1000) for word, at in words])

    @checked()
    def end_audio(self, piece: Piece) -> None:
        """Mark a piece as complete. Sound of a later piece does the same."""
        self._sounds().end(self._number(piece))

    @checked(ms=MOMENT)
    def heard(self, ms: float) -> str:
        """The part of the model's text that was heard when `ms` milliseconds of this message had
        been played.

        Uses the word times from `add_words`, else the played share of each piece's sound. Words are
        never split. After a restart, time and text start from the beginning.
        """
        return self._sounds().heard(ms)

    def _sounds(self) -> SoundMap:
        sounds = self._map
        for piece in self._pieces[len(sounds) :]:
            sounds.add_piece(piece.text, piece.source)
        return sounds

    def _number(self, piece: Piece) -> int:
        """Its number in the map; pieces from before a restart no longer have one."""
        number = piece.number - self._first
        if not 0 <= number < len(self._pieces) or self._pieces[number] is not piece:
            raise ConfigurationError(
                f"piece: expected a piece of this stream since its last restart, got {piece!r}"
            )
        return number

    # -- from text to pieces -----------------------------------------------------------------------

    def _take(self, item: object) -> None:
        match item:
            case ChatChunk():
                delta = item.delta
                if delta is None:
                    return
                if delta.extra and is_restart(delta):
                    self._restart()
                elif delta.content:
                    self._feed(delta.content)
                if delta.tool_calls:
                    self._flush()
            case Text():
                self._feed(item.text)
            case Restarted():
                self._restart()
            case ToolStarted() | ToolPaused():
                self._flush()
            case str():
                self._feed(str(item))
            case _:
                return  # thinking, usage and the like are not spoken

    def _feed(self, text: str) -> None:
        if not text:
            return
        cutter = self._cutter
        if cutter is not None:
            for cut in cutter.feed(text):
                self._hand_out(cut)
        else:
            plain = self._plain
            spoken = text if plain is None else "".join([run for run, _ in plain.feed(text)])
            self._word.add(text, spoken)
            self._hand_out(self._word.take(whole_words=bool(self._transforms)))

    def _flush(self) -> None:
        """Return the available pieces: silence or the end follows."""
        if self._cutter is not None and self._make_cutter is not None:
            cuts, rest = self._cutter.flush()
            for cut in cuts:
                self._hand_out(cut)
            self._silent += rest
            self._cutter = self._make_cutter()
        else:
            if self._plain is not None:
                rest = self._plain.feed("", final=True)
                self._word.add("", "".join([run for run, _ in rest]))
            self._hand_out(self._word.take(whole_words=False))
            self._plain = self._make_plain()

    def _restart(self) -> None:
        self._ready.clear()
        self._silent = ""
        self._begun_again = self._begun_again or bool(self._pieces)
        self._first += len(self._pieces)
        self._pieces = []
        self._map = SoundMap()
        self._word = _Held()
        self._plain = self._make_plain()
        if self._make_cutter is not None:
            self._cutter = self._make_cutter()

    def _hand_out(self, cut: Cut) -> None:
        if cut is _NOTHING:
            return
        text = cut.spoken
        cutter = self._cutter
        if cutter is not None:
            text = _one_line(text.strip())
        for transform in self._transforms:
            text = transform(text)
        if cutter is not None:
            text = text.strip()
            if "  " in text or "\t" in text:
                text = _SPACES.sub(" ", text)
        source = self._silent + cut.source
        if not text or (cutter is not None and not any(map(str.isalnum, text))):
            self._silent = source
            return
        self._silent = ""
        piece = Piece(self._first + len(self._pieces), text, source, self._begun_again)
        self._begun_again = False
        self._pieces.append(piece)
        self._ready.append(piece)


_NOTHING: Final = Cut("", "")


class _Held:
    """Text for engines that cut it themselves: passed on as it arrives, or word by word."""

    __slots__ = ("_source", "_spoken")

    def __init__(self) -> None:
        self._spoken = ""
        self._source = ""

    def add(self, source: str, spoken: str) -> None:
        self._source += source
        self._spoken += spoken

    def take(self, *, whole_words: bool) -> Cut:
        """The complete text. Unspoken source is added to the next text, so the source may be
        ahead."""
        end = len(self._spoken)
        if whole_words and end <= _MAX_WORD:
            found = _WORD_END.match(self._spoken)
            end = found.end() if found is not None else 0
        if not end and self._spoken:
            return _NOTHING
        cut = Cut(self._spoken[:end], self._source)
        self._spoken, self._source = self._spoken[end:], ""
        return cut


def _one_line(text: str) -> str:
    """The lines of a list as one text, joined by commas unless they end in punctuation."""
    if "\n" not in text:
        return text
    joined = ""
    for line in _LINE.split(text):
        if joined:
            joined += " " if not joined[-1].isalnum() else ", "
        joined += line
    return joined


# -- transforms ------------------------------------------------------------------------------------


@checked()
def without_emoji(text: str) -> str:
    """The text without emoji and their joiners and modifiers."""
    if text.isascii():
        return text
    return _EMOJI.sub("", _SPACED_EMOJI.sub("", text))


@checked()
def addresses_as_hosts(text: str) -> str:
    """Web addresses as their hosts: ``example.com`` for ``https://www.example.com/a?b=c``."""
    if "://" not in text and "www." not in text.lower():
        return text

    def host(found: re.Match[str]) -> str:
        whole = found[1] + found[2]
        kept = whole.rstrip(".,;:!?")
        name = found[1].rstrip(".,;:!?").removeprefix("www.")
        return name + whole[len(kept) :]

    return _HOST.sub(host, text)


@checked()
def numbers_as_words(language: str = "en") -> TextTransform:
    """A transform that spells out numbers: ``12`` becomes "twelve", ``3.5 %`` "three point five
    percent" (in English), ``21st`` "twenty-first".

    Numbers of more than nine digits, or with a zero before them, are read digit by digit. Dates,
    times, prices, versions and words with letters stay unchanged. The words are those of
    Unicode's CLDR; they are read from a file, so make the transform before the event loop is busy.

    Raises:
        ConfigurationError: the language is unknown, or ``unicode-rbnf`` is not installed.
    """
    module = _extra("unicode_rbnf", "numbers_as_words")
    name = language.replace("-", "_")
    try:
        engine = module.RbnfEngine.for_language(name)
    except ValueError:
        known = ", ".join(module.RbnfEngine.get_supported_languages())
        raise ConfigurationError(f"language: expected one of {known}; got {language!r}") from None
    decimal_point, english = _decimal_point(name), name.split("_")[0] == "en"
    ordinal = module.FormatPurpose.ORDINAL

    def words(found: re.Match[str]) -> str:
        sign, digits, fraction, suffix, percent = found.groups()
        if (suffix and not english) or (fraction and fraction[0] != decimal_point):
            return found[0]
        if any(mark == decimal_point for mark in digits if not mark.isdigit()):
            return found[0]
        plain = re.sub(r"\D", "", digits)
        if plain == digits and (
            len(plain) > _LONGEST_NUMBER or (plain[0] == "0" and len(plain) > 1)
        ):
            spelled = " ".join(engine.format_number(digit).text for digit in plain)
            return sign + spelled + (fraction or "") + (suffix or "") + (percent or "")
        number = (
            ("-" if sign in ("-", "\u2212") else "") + plain + (fraction or "").replace(",", ".")
        )
        if suffix:
            return str(engine.format_number(number, ordinal).text) + (percent or "")
        spelled = str(engine.format_number(number).text)
        return spelled + (" percent" if percent and english else percent or "")

    return lambda text: _NUMBER.sub(words, text)


def _decimal_point(language: str) -> str:
    """The word for the decimal mark in a language, which CLDR's rules do not provide."""
    points = ("en", "zh", "ja", "ko", "th", "he", "hi", "ms", "fil", "ta", "sw", "cy", "ga")
    return "." if language.split("_")[0] in points else ","


# -- the way in ------------------------------------------------------------------------------------


def _extra(module: str, user: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ConfigurationError(
            explained(
                f"{user}: the package {module.replace('_', '-')!r} is missing; "
                "pip install 'rejoinder[speech]'",
                "missing package",
            )
        ) from None


_STREAM: Final = Rule(
    "a stream of text: an LLMStream, a Turn, a text_stream of a realtime reply, or any async iterator "
    "of str",
    lambda value: isinstance(value, AsyncIterable),
)
_TRANSFORMS: Final = Rule(
    "functions from text to text",
    lambda value: isinstance(value, Sequence) and not isinstance(value, str),
    lambda value: all(map(callable, value)),
)
_LONGEST: Final = Rule(
    "an integer of at least 20",
    lambda value: isinstance(value, int) and not isinstance(value, bool),
    lambda value: value >= 20,
)


@checked(
    stream=_STREAM,
    transforms=_TRANSFORMS,
    first_length=COUNT.optional,
    min_length=COUNT,
    max_length=_LONGEST,
)
def speakable(
    stream: AsyncIterable[Any],
    *,
    language: str = "en",
    cut: Literal["sentences", "none"] = "sentences",
    first_length: int | None = 8,
    min_length: int = 16,
    max_length: int = 300,
    strip_markdown: bool = True,
    code: str = "",
    transforms: Sequence[TextTransform] = (without_emoji,),
    segment: Segment | None = None,
) -> Speech:
    """The text of a stream in pieces that a speech engine can speak.

    The end of a piece depends on the text, not on its chunks. Text before a tool call is returned
    when the call arrives. Lengths are in characters; a character of a script without spaces counts
    as three.

    Args:
        stream: an `LLMStream`, a `Turn` of `run_turn`, a ``text_stream`` of a realtime reply, or any
            asynchronous iterator of strings. Thinking is not spoken.
        language: ISO 639 code of the language, for its abbreviations.
        cut: ``"none"`` for engines that cut text themselves: text is passed on as it arrives, or
            word by word if there are transforms.
        first_length: characters after which the first piece may end at a comma; ``None``: it is a
            whole sentence.
        min_length: shorter sentences are spoken with the next one.
        max_length: longer sentences are cut, after a comma if there is one.
        strip_markdown: remove Markdown: marks and blocks of code are not spoken; the words of links
            and the rows of tables are.
        code: text spoken instead of a block of code.
        transforms: further changes, applied to each piece in this order.
        segment: cuts a text into sentences, instead of ``sentencex``.

    Raises:
        ConfigurationError: a wrong option, or ``sentencex`` is not installed.
    """

    def make_plain() -> Plain | None:
        return Plain(code) if strip_markdown else None

    if cut == "none":
        return Speech(stream, make_cutter=None, make_plain=make_plain, transforms=transforms)
    sentences = _sentencex(language) if segment is None else segment

    def make_cutter() -> Cutter:
        return Cutter(
            sentences,
            plain=make_plain(),
            first_length=first_length,
            min_length=min_length,
            max_length=max_length,
        )

    return Speech(stream, make_cutter=make_cutter, make_plain=make_plain, transforms=transforms)


def _sentencex(language: str) -> Segment:
    library = _extra("sentencex", "speakable")

    def sentences(text: str) -> Sequence[str]:
        if not text.isascii():
            text = _WIDE_SPACE.sub(" ", text)
        try:
            return library.segment(language, text)
        except UnicodeEncodeError:  # a lone surrogate, as some models send; keep the lengths
            return library.segment(language, text.encode("utf-8", "replace").decode())

    return sentences
