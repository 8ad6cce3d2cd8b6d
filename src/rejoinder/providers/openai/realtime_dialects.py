"""Facts about realtime models, and about the servers that speak OpenAI's realtime protocol.

Pure data. A server is a row of `DIALECTS`, a model a row of `MODELS`; no other module compares
names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

__all__ = ["DIALECTS", "MODELS", "Dialect", "Facts", "dialect_of_host", "facts_of"]


class Facts(msgspec.Struct, frozen=True):
    """The options that a model accepts."""

    reasons: bool | None = None
    """Takes ``reasoning`` and ``parallel_tool_calls``; other models answer "Unsupported option for
    this model". ``None``: not known."""
    shut_down: str | None = None
    """Day on which it is switched off."""
    successor: str | None = None
    realtime: bool = True
    """Supports this API."""
    hint: str = ""


_TEXT: Final = Facts(realtime=False, hint="it is a text model; use rejoinder.providers.openai.LLM")

# Sources: OpenAI's model and deprecation pages, read in November 2026. The longest prefix counts.
MODELS: Final[Mapping[str, Facts]] = {
    "gpt-realtime-2.1": Facts(reasons=True),
    "gpt-realtime-2": Facts(reasons=True),
    "gpt-realtime-1.5": Facts(reasons=False),
    "gpt-realtime": Facts(reasons=False, shut_down="2027-01-20", successor="gpt-realtime-2.1"),
    "gpt-realtime-mini": Facts(
        reasons=False, shut_down="2027-01-20", successor="gpt-realtime-2.1-mini"
    ),
    "gpt-audio-mini": Facts(
        reasons=False, shut_down="2027-01-20", successor="gpt-realtime-2.1-mini"
    ),
    "gpt-live": Facts(realtime=False, hint="it speaks the Live API; use openai.live.GPTLiveModel"),
    "gpt-3.5": _TEXT,
    "gpt-4": _TEXT,
    "gpt-4o": _TEXT,
    "gpt-4.1": _TEXT,
    "gpt-5": _TEXT,
    "o1": _TEXT,
    "o3": _TEXT,
    "o4-mini": _TEXT,
    "gpt-transcribe": Facts(realtime=False, hint="it transcribes only"),
}

_NO_FACTS: Final = Facts()


def facts_of(model: str) -> Facts:
    """The facts about `model`. Nothing is refused for an unknown model."""
    found = ""
    for prefix, facts in MODELS.items():
        if not facts.realtime and "realtime" in model:
            continue  # "gpt-4o-realtime-preview" is not a text model
        # A newer version of a realtime model may differ; a text model remains a text model.
        ends = ("", "-", "@", ":") if facts.realtime else ("", "-", "@", ":", ".")
        if (
            model.startswith(prefix)
            and len(prefix) > len(found)
            and model[len(prefix) :][:1] in ends
        ):
            found = prefix
    return MODELS.get(found, _NO_FACTS)


class Dialect(msgspec.Struct, frozen=True):
    """How a server encodes the session, and how it names its events."""

    name: str
    session: Literal["nested", "flat", "xai"] = "nested"
    """``nested``: the general-availability form (``audio.input...``). ``flat``: the beta form.
    ``xai``: nested formats, but voice and turn detection at the top."""
    renamed: Mapping[str, str] = msgspec.field(default_factory=dict[str, str])
    """Names of its events -> names of the general-availability API."""
    assistant_text: str = "output_text"
    """Type of the text of assistant messages."""
    text_and_audio: bool = False
    """Sound is requested as ``["text", "audio"]``."""
    echoes_metadata: bool = True
    """``response.created`` repeats the metadata of ``response.create``."""
    takes_images: bool = True
    probe: bool = True
    """The server answers an empty ``session.update``, which changes nothing."""


_BETA_NAMES: Final = {
    "conversation.item.created": "conversation.item.added",
    "response.text.delta": "response.output_text.delta",
    "response.text.done": "response.output_text.done",
    "response.audio.delta": "response.output_audio.delta",
    "response.audio.done": "response.output_audio.done",
    "response.audio_transcript.delta": "response.output_audio_transcript.delta",
    "response.audio_transcript.done": "response.output_audio_transcript.done",
}

DIALECTS: Final[Mapping[str, Dialect]] = {
    "ga": Dialect("ga"),
    "beta": Dialect(
        "beta",
        session="flat",
        renamed=_BETA_NAMES,
        assistant_text="text",
        text_and_audio=True,
        takes_images=False,
    ),
    # Beta names, and the flat session object (recorded sessions of Azure Voice Live).
    "voice-live": Dialect(
        "voice-live",
        session="flat",
        renamed=_BETA_NAMES,
        assistant_text="text",
        text_and_audio=True,
    ),
    # Usage at the top level of response.done, cumulative transcripts, pings (recorded sessions).
    "xai": Dialect("xai", session="xai"),
}

_HOSTS: Final = (
    ("api.x.ai", "xai"),
    ("voice-live", "voice-live"),
)


def dialect_of_host(url: str) -> str:
    """Name of the dialect that the server at `url` speaks; the general-availability one by default."""
    for part, name in _HOSTS:
        if part in url:
            return name
    return "ga"
