"""Frames of sound and picture: small values of our own, and what is accepted from elsewhere.

A frame of ``livekit.rtc`` or of PyAV is accepted wherever one of ours is, by its shape, without
importing either package.
"""

from __future__ import annotations

import base64
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import core_schema

__all__ = ["AudioFrame", "VideoFrame"]


class AudioFrame:
    """Interleaved signed 16-bit samples."""

    def __init__(
        self,
        data: bytes | bytearray | memoryview,
        sample_rate: int,
        num_channels: int,
        samples_per_channel: int,
    ) -> None:
        self.data = bytes(data)
        self.sample_rate = sample_rate
        self.num_channels = num_channels
        self.samples_per_channel = samples_per_channel

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            lambda value: value,
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda frame: {
                    "data": base64.b64encode(bytes(frame.data)).decode(),
                    "sample_rate": frame.sample_rate,
                    "num_channels": frame.num_channels,
                    "samples_per_channel": frame.samples_per_channel,
                }
            ),
        )


class VideoFrame:
    """One picture; `type` names the layout of `data`, e.g. ``"RGBA"``."""

    def __init__(
        self, width: int, height: int, type: str, data: bytes | bytearray | memoryview
    ) -> None:
        self.width = width
        self.height = height
        self.type = type
        self.data = bytes(data)

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(lambda value: value)
