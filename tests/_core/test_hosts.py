"""The table of hosts, and the errors that say that state was refused."""

from __future__ import annotations

import pytest

from rejoinder._core.hosts import HOSTS, find_host, refuses_state


@pytest.mark.parametrize(
    ("netloc", "key"),
    [
        ("api.openai.com", "openai"),
        ("API.OpenAI.com:443", "openai"),
        ("my-resource.openai.azure.com", "azure"),
        ("x.services.ai.azure.com", "azure"),
        ("openrouter.ai", "openrouter"),
        ("api.deepseek.com", "deepseek"),
        ("api.moonshot.cn", "moonshot"),
        ("api.mistral.ai", "mistral"),
        ("us-central1-aiplatform.googleapis.com", "vertex"),
        ("aiplatform.googleapis.com", "vertex"),
        ("generativelanguage.googleapis.com", "gemini"),
        ("bedrock-runtime.eu-west-1.amazonaws.com", "bedrock"),
        ("localhost:11434", "ollama"),
        ("localhost:8000", "compatible"),
        ("notapi.openai.com.example.org", "compatible"),
        ("evilapi.openai.com", "compatible"),
        ("", "compatible"),
    ],
)
def test_a_host_is_found_by_its_address(netloc: str, key: str) -> None:
    assert find_host(netloc).key == key


def test_every_host_is_found_by_each_of_its_addresses() -> None:
    for key, host in HOSTS.items():
        assert host.key == key
        for at in host.at:
            assert find_host(f"x{at}" if at[0] == "." else at) is host


@pytest.mark.parametrize(
    ("message", "body"),
    [
        ("400", {"error": {"code": "invalid_encrypted_content", "message": "x"}}),
        ("response.failed", {"code": "invalid_encrypted_content"}),
        (
            (
                "The encrypted content gAAA...Q== could not be verified. Reason: Encrypted content "
                "could not be decrypted or parsed."
            ),
            None,
        ),
        ("messages.1.content.0: Invalid `signature` in `thinking` block", None),
        (
            "400",
            '{"error":{"message":"messages.3.content.0: Invalid `data` in `redacted_thinking` block"}}',
        ),
        (
            (
                "messages.1.content.1: `thinking` or `redacted_thinking` blocks in the latest assistant "
                "message cannot be modified"
            ),
            None,
        ),
        ("Unable to submit request because Thought signature is not valid", None),
        ("400", {"error": {"code": 400, "message": "Thought signature is not valid."}}),
        ("Bad Request: INVALID_ARGUMENT: Corrupted thought signature.", None),
        ("Invalid thought signature.", None),
        ("thoughtSignature is invalid", None),
        (
            "Provider returned error",
            {
                "error": {
                    "message": "Provider returned error",
                    "metadata": {"raw": '{"error": {"message": "Corrupted thought signature."}}'},
                }
            },
        ),
        (
            "Item with id 'rs_1' not found. Items are not persisted when `store` is set to false",
            None,
        ),
        (
            (
                "Item 'fc_07b27acff2b3b348' of type 'function_call' was provided without its required "
                "'reasoning' item: 'rs_07b27acff2b3b34800697bc10b5660'."
            ),
            None,
        ),
        ("Item 'msg_0ce2' was provided without its required 'reasoning' item: 'rs_1'.", None),
        ("Item with id 'msg_1' not found.", None),
        (
            "400",
            {
                "code": "invalid-argument",
                "error": "Could not decrypt the provided encrypted_content. Ensure",
            },
        ),
        ("Could not decode the compaction blob. Ensure it is unmodified", None),
        ("encrypted_content was not issued to this caller", None),
        ("messages.3.content.1: Invalid `encrypted_content` in `search_result` block", None),
        # Recorded.
        (
            (
                "Item 'rs_68c42de022c881948db7ed1cc2529f2e0202c9ad459e0d23' of type 'reasoning' was "
                "provided without its required following item."
            ),
            None,
        ),
    ],
)
def test_a_refusal_of_state_is_known_by_code_and_by_words(message: str, body: object) -> None:
    assert refuses_state(message, body)


@pytest.mark.parametrize(
    ("message", "body"),
    [
        ("Incorrect API key provided", {"error": {"code": "invalid_api_key"}}),
        ("messages.0: all messages must have non-empty content", None),
        ("Function call is missing a thought_signature", None),
        ("rate limit", "signature"),
        ("Item 'x' was provided without its required field", None),
        ("could not decode the image", None),
        ("Invalid `data` in `image`", None),
        ("", None),
        ("x", ["invalid_encrypted_content"]),
        ("x", {"message": 3, "metadata": {"raw": ["corrupted thought signature"]}}),
    ],
)
def test_other_errors_are_none(message: str, body: object) -> None:
    assert not refuses_state(message, body)
