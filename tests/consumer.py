"""A consumer that takes what comes."""

from __future__ import annotations

from rejoinder.llm import LLMStream


async def read(stream: LLMStream) -> tuple[str, BaseException | None]:
    """The text of a reply as far as it came, and what ended it if that was an error."""
    got = ""
    try:
        async with stream:
            async for chunk in stream:
                if chunk.delta is not None and chunk.delta.content:
                    got += chunk.delta.content
    except Exception as error:
        return got, error
    return got, None
