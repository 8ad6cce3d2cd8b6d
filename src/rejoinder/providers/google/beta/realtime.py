"""The same names as `rejoinder.providers.google.realtime`."""

from __future__ import annotations

from rejoinder.providers.google.realtime import RealtimeModel, RealtimeSession

__all__ = ["RealtimeModel", "RealtimeSession"]
