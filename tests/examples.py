"""How many examples a property test looks at, in proportion to the profile."""

from __future__ import annotations

from hypothesis import settings

__all__ = ["examples"]

_USUAL = 60


def examples(count: int) -> settings:
    """`count` in the usual profile, fewer in `near` and many more in `thorough`, where a fixed
    number would say the same for all."""
    return settings(max_examples=max(1, count * settings.default.max_examples // _USUAL))
