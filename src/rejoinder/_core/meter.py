"""Measures what a reply costs and how long it takes, chunk by chunk.

Pure: `now` is passed in. One meter measures one attempt. It keeps lengths, never texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rejoinder._core.chunks import ChatChunk, CompletionUsage
from rejoinder._core.estimates import estimate_history, text_size, tokens_of
from rejoinder._core.items import ChatItem
from rejoinder.metrics import LLMMetrics, Metadata

__all__ = ["Meter", "Pulse"]


class Pulse(NamedTuple):
    """The progress of a running reply, for its caller.

    Attributes:
        progress_at: loop time of the last output (text, thinking, a tool call or part of one);
            ``None`` before the first.
        paused: reading is paused because the consumer is slow, so no output is owed.
        usage: the tokens the provider has counted so far, if it has.
    """

    progress_at: float | None = None
    paused: bool = False
    usage: CompletionUsage | None = None


class Meter:
    """Measures the chunks of one attempt."""

    __slots__ = (
        "chunks",
        "committed",
        "counted",
        "first_token_at",
        "progress_at",
        "request_id",
        "size",
        "usage",
    )

    def __init__(self) -> None:
        self.chunks = 0
        self.size = 0
        """Bytes of text, thinking and calls."""
        self.request_id = ""
        self.usage: CompletionUsage | None = None
        """The latest count of the provider, which comes once at the end or repeatedly."""
        self.counted = 0
        """The `size` when `usage` arrived."""
        self.committed = False
        """Text or a tool call has been passed on and cannot be taken back."""
        self.first_token_at: float | None = None
        self.progress_at: float | None = None
        """Time of the last text, tool call or thinking."""

    def feed(self, chunk: ChatChunk, now: float) -> None:
        self.feed_all((chunk,), now)

    def feed_all(self, chunks: Sequence[ChatChunk], now: float) -> None:
        """Measure chunks that have arrived together; there is at least one."""
        self.chunks += len(chunks)
        self.request_id = chunks[-1].id
        size = self.size
        useful = progressed = False
        # Reading a field of a model costs more than using it, so read `__dict__` once.
        for chunk in chunks:
            fields = chunk.__dict__
            if (delta := fields["delta"]) is not None:
                parts = delta.__dict__
                if content := parts["content"]:
                    size += len(content) if content.isascii() else text_size(content)
                    useful = True
                elif thinking := parts["thinking"]:
                    size += text_size(thinking)
                    progressed = True
                if calls := parts["tool_calls"]:
                    useful = True
                    for call in calls:
                        size += text_size(call.name) + text_size(call.arguments)
            if (usage := fields["usage"]) is not None:
                self.usage = usage
                self.counted = size
        self.size = size
        if useful or progressed:
            self.progress_at = now
            if useful and not self.committed:
                self.committed = True
                self.first_token_at = now

    @property
    def billable(self) -> bool:
        """Whether the provider has begun to answer or to count tokens."""
        return self.chunks > 0 or self.usage is not None

    def _settle(self, prompt: Sequence[ChatItem], *, cut: bool) -> tuple[CompletionUsage, bool]:
        """The tokens of the attempt, and whether they are estimated, as for output that the provider
        had not counted yet when the reply was cut."""
        usage = self.usage
        estimated = cut and (usage is None or self.size > self.counted)
        if usage is None:
            read = estimate_history(prompt) if cut else 0
            usage = CompletionUsage(completion_tokens=0, prompt_tokens=read, total_tokens=read)
        if estimated:
            said = max(usage.completion_tokens, tokens_of(self.size))
            more = said - usage.completion_tokens
            usage = usage.model_copy(
                update={"completion_tokens": said, "total_tokens": usage.total_tokens + more}
            )
        return usage, estimated

    def report(
        self,
        *,
        label: str,
        metadata: Metadata,
        timestamp: float,
        started_at: float,
        now: float,
        cancelled: bool,
        failed: bool,
        prompt: Sequence[ChatItem],
    ) -> LLMMetrics:
        """The metrics of the attempt."""
        from rejoinder._core.prices import price_usage

        usage, estimated = self._settle(prompt, cut=cancelled or failed)
        duration = max(0.0, now - started_at)
        return LLMMetrics(
            label=label,
            request_id=self.request_id,
            timestamp=timestamp,
            duration=duration,
            ttft=-1.0 if self.first_token_at is None else self.first_token_at - started_at,
            cancelled=cancelled,
            completion_tokens=usage.completion_tokens,
            prompt_tokens=usage.prompt_tokens,
            prompt_cached_tokens=usage.prompt_cached_tokens,
            total_tokens=usage.total_tokens,
            tokens_per_second=usage.completion_tokens / duration if duration > 0 else 0.0,
            metadata=metadata,
            cache_creation_tokens=usage.cache_creation_tokens,
            cache_read_tokens=usage.cache_read_tokens,
            reasoning_tokens=usage.reasoning_tokens,
            estimated=estimated,
            cost=price_usage(
                usage,
                provider=metadata.model_provider,
                model=metadata.model_name,
                at=timestamp,
            ),
        )

    def cost(
        self, names: Mapping[str, str], at: float, prompt: Sequence[ChatItem], *, cut: bool
    ) -> float | None:
        """The cost of the attempt, as in its metrics.

        Args:
            names: the names of the model and its provider, as in `Metadata`.
            at: seconds since the epoch.
        """
        from rejoinder._core.prices import price_usage

        usage, _ = self._settle(prompt, cut=cut)
        provider, model = names.get("model_provider"), names.get("model_name")
        return price_usage(usage, provider=provider, model=model, at=at)
