"""Errors as values."""

from __future__ import annotations

import pickle

import pytest

from rejoinder._secrets import one_line, shorten
from rejoinder.errors import (
    APIConnectionError,
    APIError,
    APIStatusError,
    RefusalError,
    WireError,
)


@pytest.mark.parametrize(
    "error",
    [
        APIError("a", body={"b": 1}, retryable=False),
        APIStatusError("a", status_code=503, request_id="r"),
        RefusalError("a", reason="policy", status_code=400),
        WireError("a"),
    ],
    ids=repr,
)
def test_a_copy_differs_only_where_it_was_told_to(error: APIError) -> None:
    cause = ValueError("x")
    error.__cause__ = cause
    copy = error.but(message="other", retry_after=2.5)
    assert type(copy) is type(error)
    assert (copy.message, copy.args, copy.retry_after) == ("other", ("other",), 2.5)
    assert (error.message, error.args, error.retry_after) == ("a", ("a",), None)
    assert (copy.body, copy.retryable, copy.__cause__) == (error.body, error.retryable, cause)
    assert vars(copy) == {**vars(error), "message": "other", "retry_after": 2.5}
    assert vars(pickle.loads(pickle.dumps(copy))) == vars(copy)


def test_a_copy_keeps_the_traceback_and_refuses_unknown_names() -> None:
    try:
        raise WireError("a")
    except WireError as caught:
        error = caught
    assert error.but(message="b").__traceback__ is error.__traceback__
    with pytest.raises(TypeError, match="WireError has no attribute 'mesage'"):
        error.but(mesage="b")


def test_texts_for_people() -> None:
    assert one_line("a\r\n\tb\x1b[2J\x00 c\u2028d\u202ee") == "a b [2J c d e"
    assert one_line(" Grüße 👋 ") == "Grüße 👋"
    assert shorten("abc", 3) == "abc"
    assert shorten("abcd", 3) == "abc..."


@pytest.mark.parametrize(
    ("last", "place"),
    [
        (APIStatusError("busy", status_code=503), "#status-503"),
        (APIConnectionError("cannot connect").but(section="no connection"), "#no-connection"),
    ],
    ids=repr,
)
def test_all_attempts_failed_refers_to_the_explanation_of_the_last_one(
    last: APIError, place: str
) -> None:
    last.__cause__ = OSError("of the system")
    error = APIConnectionError("mine.LLM: no reply after 3 attempts")
    error.__cause__ = last
    assert str(error).endswith(f"More: docs/troubleshooting.md{place}")
    assert "More:" not in error.message
