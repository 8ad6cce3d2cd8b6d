"""Credentials are found by what carries them, and hidden in every form."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from rejoinder._secrets import Redactor, is_secret_name, redact, redacted_url, secrets_of

KEY = "sk-canary/4f1d8a7e9b2c"


@pytest.mark.parametrize(
    "name",
    [
        "Authorization", "Proxy-Authorization", "api-key", "x-api-key", "Ocp-Apim-Subscription-Key",
        "X-Amz-Security-Token", "Cookie", "CF-Access-Client-Secret", "x-session-id", "sig", "password",
    ],
)  # fmt: skip
def test_names_that_carry_credentials(name: str) -> None:
    assert is_secret_name(name)
    assert secrets_of("https://host/", {name: KEY}) == [KEY]
    assert secrets_of(f"https://host/?{name}=sk-canary%2F4f1d8a7e9b2c", {}) == [KEY]


@pytest.mark.parametrize(
    "name", ["Content-Type", "Accept", "OpenAI-Organization", "anthropic-version", "api-version"]
)
def test_names_that_do_not(name: str) -> None:
    assert secrets_of(f"https://host/?{name}=2024-10-21", {name: "2024-10-21"}) == []


def test_schemes_and_pairs_are_taken_apart() -> None:
    assert KEY in secrets_of("https://host/", {"Authorization": f"Bearer {KEY}"})
    basic = secrets_of("https://host/", {"Authorization": "Basic bWFkYW1lOnNlY3JldA=="})
    assert {"madame", "secret", "bWFkYW1lOnNlY3JldA=="} <= set(basic)
    url = secrets_of("https://madame:se%2Fcret@host/", {})
    assert {"madame", "se/cret", "se%2Fcret"} == set(url)


@pytest.mark.parametrize("url", ["http://[", "", "no url", "https://host:port/"])
def test_any_text_may_stand_for_a_url(url: str) -> None:
    assert secrets_of(url, {}) == []


def test_what_is_short_is_no_secret() -> None:
    assert secrets_of("https://host/?key=x", {"api-key": "any"}) == []
    assert redact("anybody", ["any"]) == "anybody"


def test_every_form_is_hidden() -> None:
    text = f"{KEY}, sk-canary%2F4f1d8a7e9b2c; {KEY}{KEY}"
    assert redact(text, [KEY]) == "***, ***; ******"


@pytest.mark.parametrize("size", range(6, len(KEY)))
def test_half_a_key_at_the_end_of_a_quotation_is_hidden(size: int) -> None:
    assert redact(f"bad: {KEY[:size]}...", [KEY]) == "bad: ***..."
    assert redact(f"bad: {quote(KEY[:size], safe='')}...", [KEY]) == "bad: ***..."


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://host/v1", "https://host/v1"),
        (f"https://me:{KEY}@host:1/v1?key={KEY}#{KEY}", "https://...@host:1/v1"),
        ("htp://me:secret@host", "htp://...@host"),
        ("me:secret@host/v1", "...@host/v1"),
        ("host?key=secret", "host"),
        ("", ""),
    ],
)
def test_addresses_are_shown_without_what_is_secret(url: str, shown: str) -> None:
    assert redacted_url(url) == shown


@pytest.mark.parametrize("size", range(1, 30))
def test_secrets_in_pieces_are_hidden(size: int) -> None:
    data = f"sk-c {KEY} {KEY[:-1]}x {quote(KEY, safe='')}{KEY} {KEY}-2 2c-3 sk-canary/".encode()
    take = Redactor([KEY, f"{KEY}-2", "9b2c-3"]).pieces()
    pieces = [take(data[at : at + size]) for at in range(0, len(data), size)]
    pieces.append(take(b""))
    expected = f"sk-c *** {KEY[:-1]}x ****** *** 2c-3 sk-canary/"
    assert b"".join(pieces).decode() == expected


def test_what_begins_no_secret_is_not_held_back() -> None:
    take = Redactor([KEY]).pieces()
    assert take(b"data: {}\n\n") == b"data: {}\n\n"
    assert take(b"data: sk-") == b"data: "
    assert take(b"x") == b"sk-x"
