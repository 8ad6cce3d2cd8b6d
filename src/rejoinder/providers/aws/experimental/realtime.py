"""`rejoinder.providers.aws.realtime` under the name that it has in LiveKit Agents 1.2.17."""

from __future__ import annotations

from rejoinder.providers.aws.realtime import RealtimeModel, RealtimeSession

__all__ = ["RealtimeModel", "RealtimeSession"]
