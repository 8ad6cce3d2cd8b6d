"""Access to a server: URL, credentials, header fields.

The `repr` of these values does not show secrets. No network; the environment is read only when an
`LLM` is made.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast
from urllib.parse import SplitResult, urlsplit

from rejoinder._core.hosts import HOSTS, Host
from rejoinder._foreign import has, read
from rejoinder._sections import explained
from rejoinder.errors import ConfigurationError
from rejoinder.providers.asking.checks import check_base_url, environment
from rejoinder.providers.asking.fields import path_part
from rejoinder.types import NotGivenOr, is_given

__all__ = [
    "Access",
    "Secret",
    "access_of_azure",
    "access_of_client",
    "access_of_key",
    "resolve_secret",
    "checked_url",
    "with_key",
]

Secret: TypeAlias = str | Callable[[], str | Awaitable[str]]
"""A key or token, or a function that returns one, which is called for each attempt."""


@dataclass(frozen=True)
class Access:
    """Access to a server: URL, credentials, header fields."""

    base_url: str = field(repr=False)
    key: Secret | None = field(default=None, repr=False)
    key_header: str = "Authorization"
    """Name of the header field for the key: after ``Bearer`` in ``Authorization``, alone in any other
    field."""
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    query: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)


def access_of_key(host: Host, api_key: NotGivenOr[Secret], base_url: NotGivenOr[str]) -> Access:
    ours = host is HOSTS["openai"]
    url = base_url if is_given(base_url) and base_url else None
    if url is None and ours:
        url = environment("OPENAI_BASE_URL")
    elsewhere = url is not None and not _is_at(url, host)
    key: Secret | None = api_key if is_given(api_key) and api_key else None
    if key is not None and not isinstance(key, str) and not callable(cast("object", key)):
        raise ConfigurationError(
            "api_key: expected a string, or a function that returns one, got "
            f"{type(cast('object', key)).__name__}"
        )
    if isinstance(key, str):
        key = key.strip() or None
    if key is None and host.key_env:
        key = environment(host.key_env)
        if key is None and not (ours and elsewhere):
            raise ConfigurationError(
                explained(f"{host.name}: no API key; pass api_key= or set {host.key_env}", "no key")
            )
    return Access(
        base_url=url or host.base_url,
        key=key,
        headers=_organisation(environment("OPENAI_ORG_ID"), environment("OPENAI_PROJECT_ID"))
        if ours and not elsewhere
        else {},
    )


def _is_at(url: str, host: Host) -> bool:
    netloc = checked_url(url).netloc
    return bool(host.base_url) and netloc == checked_url(host.base_url).netloc


def access_of_client(client: Any) -> Access:
    """URL, key and header fields of an ``openai.AsyncOpenAI`` or ``AsyncAzureOpenAI``."""
    if not has(client, "base_url", "api_key"):
        raise ConfigurationError(
            "client: expected an openai.AsyncOpenAI or openai.AsyncAzureOpenAI, got "
            f"{type(client).__name__}"
        )
    base_url = str(client.base_url)
    headers: dict[str, str] = {}
    custom: dict[str, Any] = dict(read(client, "_custom_headers") or {})
    headers.update({name: value for name, value in custom.items() if isinstance(value, str)})
    query = {
        str(name): str(value) for name, value in dict(read(client, "_custom_query") or {}).items()
    }
    key: Secret | None = read(client, "_api_key_provider") or client.api_key or None
    key_header = "Authorization"
    version = read(client, "_api_version")
    if version:
        query.setdefault("api-version", str(version))
        token = read(client, "_azure_ad_token_provider") or read(client, "_azure_ad_token")
        if token:
            key = token
        else:
            key_header = "api-key"
    return Access(
        base_url=base_url,
        key=key,
        key_header=key_header,
        headers={
            **_organisation(read(client, "organization"), read(client, "project")),
            **headers,
        },
        query=query,
    )


def _organisation(organization: object, project: object) -> dict[str, str]:
    headers: dict[str, str] = {}
    if isinstance(organization, str) and organization:
        headers["OpenAI-Organization"] = organization
    if isinstance(project, str) and project:
        headers["OpenAI-Project"] = project
    return headers


async def resolve_secret(secret: Callable[[], str | Awaitable[str]]) -> str:
    """The key or token of `secret`.

    Raises:
        ConfigurationError: it does not return a string.
    """
    found = secret()
    if inspect.isawaitable(found):
        found = await found
    if isinstance(found, str):
        found = found.strip()  # a text from a file ends with a line break
    if not isinstance(found, str) or not found:
        raise ConfigurationError(
            "the function for the key or token: expected it to return a non-empty string, "
            f"got {type(found).__name__}"
        )
    return found


def with_key(headers: Mapping[str, str], key: str | None, header: str) -> Mapping[str, str]:
    """`headers` with the key, unless the caller has set its field."""
    if not key or header.lower() in map(str.lower, headers):
        return headers
    return {**headers, header: f"Bearer {key}" if header == "Authorization" else key}


def checked_url(url: str) -> SplitResult:
    """The parts of `url`.

    Raises:
        ConfigurationError: it is not an http URL.
    """
    return urlsplit(check_base_url(url))


def access_of_azure(
    *,
    endpoint: str | None,
    deployment: str,
    version: str | None,
    key: Secret | None,
    token: Secret | None,
    organization: str | None,
    project: str | None,
    base_url: str | None,
    responses: bool,
) -> Access:
    """Access to Azure OpenAI; missing values come from the environment.

    Raises:
        ConfigurationError: no endpoint, no version, or neither key nor token.
    """
    version = version or environment("OPENAI_API_VERSION")
    if base_url is None:
        endpoint = endpoint or environment("AZURE_OPENAI_ENDPOINT")
        if not endpoint:
            raise ConfigurationError(
                "Azure OpenAI: no address; pass azure_endpoint= (or base_url=) "
                "or set AZURE_OPENAI_ENDPOINT"
            )
        base_url = endpoint.rstrip("/") + "/openai"
        base_url += (
            "/v1" if responses else f"/deployments/{path_part('azure_deployment', deployment)}"
        )
    if not version and not responses:
        raise ConfigurationError(
            "Azure OpenAI: no version; pass api_version= or set OPENAI_API_VERSION"
        )
    key = key or (None if token else environment("AZURE_OPENAI_API_KEY"))
    token = token or (None if key else environment("AZURE_OPENAI_AD_TOKEN"))
    if not key and not token:
        raise ConfigurationError(
            explained(
                "Azure OpenAI: no credentials; pass api_key=, azure_ad_token= or "
                "azure_ad_token_provider=, or set AZURE_OPENAI_API_KEY or AZURE_OPENAI_AD_TOKEN",
                "no credentials",
            )
        )
    return Access(
        base_url=base_url,
        key=token or key,
        key_header="Authorization" if token else "api-key",
        headers=_organisation(
            organization or environment("OPENAI_ORG_ID"),
            project or environment("OPENAI_PROJECT_ID"),
        ),
        query={"api-version": version} if version else {},
    )
