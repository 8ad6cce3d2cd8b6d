"""Frames: ours, LiveKit's and PyAV's, in and out of the models. The packages are the real ones."""

from __future__ import annotations

import base64
import copy
import json
import pickle
import re
import subprocess
import sys
import types
from array import array
from typing import Any

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st
from livekit import rtc
from pydantic import BaseModel, ValidationError

from rejoinder.llm.chat_context import AudioContent, ChatContext, ChatMessage, ImageContent
from rejoinder.media import (
    AudioFrame,
    VideoBufferType,
    VideoFrame,
    audio_bytes,
    picture_fault,
    same_frame,
    to_audio_frame,
    to_video_frame,
)

SOUND = array("h", [1, -2, 300, -400]).tobytes()
PIXELS = bytes(range(16))


class Holder(BaseModel):
    sound: AudioFrame | None = None
    picture: VideoFrame | None = None


# --- ours ---


def test_audio_frame_offers_what_livekits_offers() -> None:
    ours = AudioFrame(SOUND, 16000, 2, 2)
    theirs = rtc.AudioFrame(SOUND, 16000, 2, 2)
    for name in ("sample_rate", "num_channels", "samples_per_channel", "duration"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert ours.data == theirs.data
    assert ours.data.format == theirs.data.format == "h"
    assert ours.data.tolist() == [1, -2, 300, -400]
    assert "16000" in repr(ours)
    assert AudioFrame.create(8000, 1, 3).data.tolist() == [0, 0, 0]


def test_video_frame_offers_what_livekits_offers() -> None:
    ours = VideoFrame(2, 2, "RGBA", PIXELS)
    theirs = rtc.VideoFrame(2, 2, rtc.VideoBufferType.RGBA, PIXELS)
    assert (ours.width, ours.height, ours.type) == (theirs.width, theirs.height, theirs.type)
    assert bytes(ours.data) == bytes(theirs.data)
    assert ours.type.name == "RGBA"
    assert repr(ours) == "VideoFrame(width=2, height=2, type=RGBA)"


def test_buffer_types_are_livekits() -> None:
    theirs = {name: rtc.VideoBufferType.Value(name) for name in rtc.VideoBufferType.keys()}  # noqa: SIM118
    ours = {member.name: member.value for member in VideoBufferType}
    assert ours.items() <= theirs.items()
    for type in (4, "RGB24", VideoBufferType.RGB24, rtc.VideoBufferType.RGB24):
        assert VideoFrame(1, 1, type, b"abc").type is VideoBufferType.RGB24


@pytest.mark.parametrize("wrong", [-1, "16000", 16000.5, True, None])
def test_numbers_that_are_none(wrong: Any) -> None:
    told = rf"expected a whole number of at least \d, got {re.escape(repr(wrong))}"
    for at, name in enumerate(("sample_rate", "num_channels", "samples_per_channel")):
        numbers = [16000, 2, 2]
        numbers[at] = wrong
        with pytest.raises(ValueError, match=rf"AudioFrame\.{name}: {told}"):
            AudioFrame(SOUND, *numbers)
    for name in ("width", "height"):
        size = {"width": 2, "height": 2, name: wrong}
        with pytest.raises(ValueError, match=rf"VideoFrame\.{name}: {told}"):
            VideoFrame(**size, type="RGBA", data=PIXELS)


def test_nothing_at_all() -> None:
    for numbers in ((0, 1, 1), (1, 0, 1)):
        with pytest.raises(ValueError, match="at least 1, got 0"):
            AudioFrame(b"\0\0", *numbers)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        VideoFrame(0, 1, "RGBA", b"")
    assert AudioFrame(b"", 16000, 1, 0).duration == 0


@pytest.mark.parametrize("wrong", ["text", 8, None])
def test_data_that_is_none(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"AudioFrame\.data: expected bytes, got"):
        AudioFrame(wrong, 16000, 1, 1)
    with pytest.raises(TypeError, match=r"VideoFrame\.data: expected bytes, got"):
        VideoFrame(1, 1, "RGBA", wrong)


def test_what_holds_no_picture() -> None:
    whole = VideoFrame(2, 2, "RGBA", PIXELS)
    assert picture_fault(whole) == ""
    assert picture_fault(rtc.VideoFrame(2, 2, rtc.VideoBufferType.RGBA, PIXELS)) == ""
    for change, told in (
        ({"data": PIXELS[:-1]}, "expected 16 bytes, got 15"),
        ({"width": 0}, "at least 1"),
        ({"type": 99}, "expected one of RGBA"),
        ({"data": None}, "bytes-like"),
    ):
        shape = {"width": 2, "height": 2, "type": 0, "data": PIXELS, **change}
        assert told in picture_fault(types.SimpleNamespace(**shape))


@pytest.mark.parametrize("data", [b"\0" * 6, b"\0" * 9])
def test_wrong_sizes_of_sound_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="8 bytes"):
        AudioFrame(data, 16000, 2, 2)


@pytest.mark.parametrize(
    ("type", "size"),
    [
        *(("RGBA", 60), ("RGB24", 45), ("I420", 27), ("NV12", 27)),
        *(("I420A", 42), ("I422", 33), ("I444", 45), ("I010", 54)),
    ],
)
def test_sizes_of_pictures(type: str, size: int) -> None:
    """For 5 x 3 pixels, chroma rounded up."""
    assert VideoFrame(5, 3, type, bytes(size)).type.name == type
    with pytest.raises(ValueError, match=f"{size} bytes for 5x3 {type}"):
        VideoFrame(5, 3, type, bytes(size - 1))


def test_unknown_layouts_are_refused() -> None:
    for type in ("CMYK", 99):
        with pytest.raises(ValueError, match="RGBA"):
            VideoFrame(1, 1, type, bytes(9))


@pytest.mark.parametrize(
    "frame", [AudioFrame(SOUND, 16000, 2, 2), VideoFrame(2, 2, "BGRA", PIXELS)]
)
def test_values(frame: Any) -> None:
    for same in (copy.copy(frame), copy.deepcopy(frame), pickle.loads(pickle.dumps(frame))):
        assert same == frame
        assert hash(same) == hash(frame)
    assert frame != object()
    with pytest.raises(TypeError):
        frame.data[0] = 1


# --- in the models ---


@pytest.mark.parametrize(
    "value",
    [
        AudioFrame(SOUND, 16000, 2, 2),
        rtc.AudioFrame(SOUND, 16000, 2, 2),
        (rtc.AudioFrame(SOUND, 16000, 2, 2),),
        {
            "data": base64.b64encode(SOUND).decode(),
            "sample_rate": 16000,
            "num_channels": 2,
            "samples_per_channel": 2,
        },
        {"data": SOUND, "sample_rate": 16000, "num_channels": 2, "samples_per_channel": 2},
    ],
)
def test_sound_is_accepted(value: Any) -> None:
    holder = Holder(sound=value)
    dumped = {
        "data": base64.b64encode(SOUND).decode(),
        "sample_rate": 16000,
        "num_channels": 2,
        "samples_per_channel": 2,
    }
    assert holder.model_dump()["sound"] == dumped
    assert json.loads(holder.model_dump_json())["sound"] == dumped
    assert Holder.model_validate_json(holder.model_dump_json()).sound == AudioFrame(
        SOUND, 16000, 2, 2
    )


@pytest.mark.parametrize(
    "value",
    [
        VideoFrame(2, 2, "RGBA", PIXELS),
        rtc.VideoFrame(2, 2, rtc.VideoBufferType.RGBA, PIXELS),
        (VideoFrame(2, 2, "RGBA", PIXELS), "surplus"),
        {"width": 2, "height": 2, "type": "RGBA", "data": base64.b64encode(PIXELS).decode()},
    ],
)
def test_pictures_are_accepted(value: Any) -> None:
    holder = Holder(picture=value)
    dumped = {
        "width": 2,
        "height": 2,
        "type": "RGBA",
        "data": base64.b64encode(PIXELS).decode(),
    }
    assert holder.model_dump()["picture"] == dumped
    back = Holder.model_validate_json(holder.model_dump_json()).picture
    assert back == VideoFrame(2, 2, "RGBA", PIXELS)
    image = ImageContent(image=value)
    assert ImageContent.model_validate(image.model_dump()) == image


def test_livekits_frames_stay_the_objects_they_are() -> None:
    sound = rtc.AudioFrame(SOUND, 16000, 2, 2)
    picture = rtc.VideoFrame(2, 2, rtc.VideoBufferType.RGBA, PIXELS)
    assert AudioContent(frame=[sound]).frame[0] is sound  # type: ignore[list-item]
    assert ImageContent(image=picture).image is picture  # type: ignore[arg-type]


def test_bytes_that_are_no_picture_are_told() -> None:
    with pytest.raises(ValueError, match="expected the bytes of a JPEG, PNG, GIF or WebP"):
        ImageContent(image=b"bytes")  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [123, object(), ()])
def test_anything_else_is_a_type_error(wrong: Any) -> None:
    with pytest.raises(TypeError, match="expected a video frame"):
        ImageContent(image=wrong)
    with pytest.raises(TypeError, match="expected an audio frame"):
        AudioContent(frame=[wrong])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"width": 1}, "missing"),
        ({"width": 1, "height": 1, "type": "RGBA", "data": "!"}, "base64"),
        ({"width": 1, "height": 1, "type": "RGBA", "data": 5}, "base64"),
        ({"width": 1, "height": 1, "type": "X", "data": ""}, "expected one of"),
        ({"width": -1, "height": 1, "type": "RGBA", "data": ""}, "width"),
        ({"width": True, "height": 1, "type": "RGBA", "data": ""}, "width"),
        ({"width": 1, "height": 1, "type": "RGBA", "data": "AAAA"}, "4 bytes"),
    ],
)
def test_bad_mappings_name_what_is_wrong(value: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Holder(picture=value)  # type: ignore[arg-type]


def test_schema() -> None:
    properties = Holder.model_json_schema()["properties"]
    assert "samples_per_channel" in json.dumps(properties["sound"])
    serialized = Holder.model_json_schema(mode="serialization")["properties"]
    assert "height" in json.dumps(serialized["picture"])


def test_a_conversation_with_livekits_frames_survives_everything() -> None:
    sound = rtc.AudioFrame(SOUND, 16000, 2, 2)
    picture = rtc.VideoFrame(2, 2, rtc.VideoBufferType.RGBA, PIXELS)
    content: list[Any] = [AudioContent(frame=[sound]), ImageContent(id="i", image=picture)]  # type: ignore[list-item,arg-type]
    context = ChatContext([ChatMessage(id="m", role="user", content=content)])
    data = json.loads(json.dumps(context.to_dict(exclude_image=False, exclude_audio=False)))
    copies = [
        ChatContext.from_dict(data),
        copy.deepcopy(context),
        pickle.loads(pickle.dumps(context)),
    ]
    for other in copies:
        assert other.is_equivalent(context)
    assert same_frame(sound, AudioFrame(SOUND, 16000, 2, 2))
    assert not same_frame(sound, picture)
    assert not same_frame(sound, AudioFrame(SOUND, 8000, 2, 2))
    assert not same_frame(3, 4)


# --- PyAV ---


def av_audio(form: str, layout: str, planes: list[bytes], count: int) -> av.AudioFrame:
    frame = av.AudioFrame(format=form, layout=layout, samples=count)
    frame.sample_rate = 8000
    for plane, data in zip(frame.planes, planes, strict=True):
        plane.update(data.ljust(plane.buffer_size, b"\x55"))  # padding must not be read
    return frame


@pytest.mark.parametrize(
    ("form", "code", "values"),
    [
        ("s16", "h", [1, -2, 300, -400]),
        ("s32", "i", [65536, -131072, 300 << 16, -400 << 16]),
        ("flt", "f", [1 / 32768, -2 / 32768, 300 / 32768, -400 / 32768]),
        ("dbl", "d", [1 / 32768, -2 / 32768, 300 / 32768, -400 / 32768]),
    ],
)
def test_pyav_sound(form: str, code: str, values: list[Any]) -> None:
    expected = AudioFrame(SOUND, 8000, 2, 2)
    packed = av_audio(form, "stereo", [array(code, values).tobytes()], 2)
    planar = av_audio(
        form + "p",
        "stereo",
        [array(code, values[0::2]).tobytes(), array(code, values[1::2]).tobytes()],
        2,
    )
    for frame in (packed, planar):
        assert to_audio_frame(frame) == expected
        assert AudioContent(frame=[frame]).frame == [expected]  # type: ignore[list-item]
        assert audio_bytes(frame) == SOUND


def test_pyav_sound_is_clipped() -> None:
    loud = array("f", [2.0, -2.0, 1.0, float("nan")]).tobytes()
    frame = to_audio_frame(av_audio("flt", "mono", [loud], 4))
    assert list(frame.data) == [32767, -32768, 32767, 0]  # type: ignore[comparison-overlap]
    quiet = to_audio_frame(av_audio("u8", "mono", [bytes([0, 128, 255])], 3))
    assert list(quiet.data) == [-32768, 0, 32512]  # type: ignore[comparison-overlap]


@given(st.lists(st.integers(-32768, 32767), min_size=1, max_size=40), st.integers(1, 2))
def test_pyav_planar_is_interleaved(samples: list[int], channels: int) -> None:
    count = len(samples) // channels or 1
    values = (samples * 2)[: count * channels]
    planes = [array("h", values[channel::channels]).tobytes() for channel in range(channels)]
    layout = "mono" if channels == 1 else "stereo"
    frame = av_audio("s16p", layout, planes, count)
    assert list(to_audio_frame(frame).data) == values


def test_pyav_pictures_without_padding() -> None:
    frame = av.VideoFrame(3, 2, "rgb24")  # rows of 9 bytes lie padded in memory
    plane = frame.planes[0]
    assert plane.line_size > 9
    rows = [bytes(range(9)), bytes(range(9, 18))]
    plane.update(b"".join(row.ljust(plane.line_size, b"\xee") for row in rows))
    assert to_video_frame(frame) == VideoFrame(3, 2, "RGB24", bytes(range(18)))


@pytest.mark.parametrize(
    ("form", "type"), [("yuv420p", "RGB24"), ("nv12", "RGB24"), ("bgra", "RGBA"), ("gray", "RGB24")]
)
def test_pyav_pictures_of_other_layouts(form: str, type: str) -> None:
    red = av.VideoFrame(4, 4, "rgb24")
    red.planes[0].update((b"\xff\0\0" * 4).ljust(red.planes[0].line_size, b"\0") * 4)
    image = ImageContent(image=red.reformat(format=form)).image  # type: ignore[arg-type]
    assert isinstance(image, VideoFrame)
    assert (image.width, image.height, image.type.name) == (4, 4, type)
    pixel = bytes(image.data)[:3]
    if form == "gray":
        assert max(pixel) - min(pixel) <= 1
    else:
        assert pixel[0] > 245
        assert max(pixel[1:]) < 12


def test_neither_package_is_imported() -> None:
    code = (
        "import sys, rejoinder.media, rejoinder.llm.chat_context\n"
        "assert not {'av', 'livekit', 'PIL', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
