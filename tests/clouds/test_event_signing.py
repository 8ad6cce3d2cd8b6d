"""Signed frames are those of AWS's own signer."""

from __future__ import annotations

import calendar
import json
import os
import time
from pathlib import Path

import pytest

from rejoinder.clouds.event_signing import EVENTS_HASH, EventSigner, seed_of
from rejoinder.clouds.sigv4 import Credentials, sign
from rejoinder.wire.eventstream import EventStreamDecoder, encode_message

FOLDER = os.environ.get("REJOINDER_RECORDINGS")
VECTORS = (
    Path(FOLDER).parent / "reference/captured_requests/vectors.aws_event_signing.json"
    if FOLDER
    else None
)
INNER = {
    ":message-type": "event",
    ":event-type": "chunk",
    ":content-type": "application/json",
}

# Made by `aws_sdk_signers.AsyncEventSigner` for these inputs: an empty frame behind three others.
SEED = "ab" * 32
CHAIN = [
    "4b97061fdda86814e1ca86afdcc7af00b78b40ebad98dff8baab046c3e4fd5c7",
    "04c21571db6f4badd6a24b0fcd73eebf82d5d38aecc9819336f3fce156c70e50",
    "3b8c22bfe8a4ed518ac028bd48baa162608cb44d691a747b3bfddb4cee621562",
    "b50a2f45a196937a47d403ac8b15f15df44cfbdcab2f3821a95aed1924628bba",
]


def signer() -> EventSigner:
    return EventSigner(
        SEED, credentials=Credentials("AK", "SK"), region="us-east-1", service="bedrock"
    )


def moment() -> float:
    return calendar.timegm(time.strptime("20260102T030405Z", "%Y%m%dT%H%M%SZ"))


def test_a_chain_of_frames_is_signed_as_aws_does() -> None:
    made = signer()
    found: list[str] = []
    payloads = [
        json.dumps({"bytes": text}, separators=(",", ":")).encode()
        for text in (
            "eyJldmVudCI6eyJpIjowfX0=",
            "eyJldmVudCI6eyJpIjoxfX0=",
            "eyJldmVudCI6eyJpIjoyfX0=",
        )
    ]
    for payload in payloads:
        (message,) = EventStreamDecoder().feed(
            made.frame(encode_message(INNER, payload), wall_now=moment() + 0.9)
        )
        found.append(bytes(message.headers[":chunk-signature"]).hex())  # type: ignore[arg-type]
    (message,) = EventStreamDecoder().feed(made.frame(b"", wall_now=moment()))
    found.append(bytes(message.headers[":chunk-signature"]).hex())  # type: ignore[arg-type]
    assert found == CHAIN
    assert message.payload == b""


@pytest.mark.skipif(VECTORS is None, reason="REJOINDER_RECORDINGS names no folder of vectors")
def test_the_bytes_equal_the_vectors() -> None:
    assert VECTORS is not None
    vectors = json.loads(VECTORS.read_text())
    made = EventSigner(
        vectors["seed_signature"],
        credentials=Credentials(vectors["access_key"], vectors["secret_key"]),
        region=vectors["region"],
        service=vectors["service"],
    )
    assert vectors["date"] == "20260102T030405Z"
    for frame in vectors["frames"]:
        inner = encode_message(INNER, frame["payload"].encode()) if frame["payload"] else b""
        assert inner.hex() == frame["inner_hex"]
        assert made.frame(inner, wall_now=moment()).hex() == frame["signed_hex"]


def test_the_request_is_signed_over_the_word_for_events() -> None:
    def signed(payload_hash: str | None) -> str:
        return sign(
            "POST",
            "https://bedrock-runtime.us-east-1.amazonaws.com/model/amazon.nova-2-sonic-v1%3A0/x",
            {"x-amz-content-sha256": EVENTS_HASH},
            b"",
            credentials=Credentials("AK", "SK", "T"),
            region="us-east-1",
            service="bedrock",
            wall_now=moment(),
            payload_hash=payload_hash,
        )["Authorization"]

    seed = seed_of(signed(EVENTS_HASH))
    assert len(seed) == 64
    assert seed != seed_of(signed(None))
    assert "x-amz-content-sha256" in signed(EVENTS_HASH)


def test_nothing_secret_is_shown() -> None:
    assert "SK" not in repr(signer())
