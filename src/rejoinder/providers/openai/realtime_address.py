"""Addresses of realtime sessions: OpenAI, Azure, and other servers of the protocol. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from rejoinder._core.hosts import HOSTS, Host, find_host
from rejoinder._core.realtime.makers import elsewhere
from rejoinder._sections import explained
from rejoinder.errors import ConfigurationError
from rejoinder.providers.asking.checks import environment
from rejoinder.providers.openai.access import Access, Secret, access_of_key, checked_url
from rejoinder.providers.openai.realtime_dialects import DIALECTS, Dialect, dialect_of_host
from rejoinder.types import NOT_GIVEN, NotGivenOr, is_given

__all__ = ["Server", "azure_server", "plain_server"]


class Server(msgspec.Struct, frozen=True):
    """The address of realtime sessions."""

    access: Access
    query: Mapping[str, str]
    dialect: Dialect
    path: str = "realtime"
    beta_header: bool = False


def plain_server(
    model: str, base_url: NotGivenOr[str], api_key: str | None, dialect: str | None
) -> Server:
    url = _http(base_url) if is_given(base_url) and base_url else NOT_GIVEN
    key: NotGivenOr[Secret] = api_key if api_key is not None else NOT_GIVEN
    access = access_of_key(_host(url), key, url)
    # Other servers of the protocol may have the models of any maker.
    if find_host(checked_url(access.base_url).netloc) is HOSTS["openai"]:
        hint = elsewhere(model, "gpt", "chatgpt", "o1", "o3", "o4")
        if hint:
            raise ConfigurationError(f"model: {model!r} cannot be used: {hint}")
    name = dialect or dialect_of_host(access.base_url)
    if name not in DIALECTS:
        raise ConfigurationError(f"dialect: expected one of {', '.join(DIALECTS)}, got {dialect!r}")
    return Server(_at_root(access), {"model": model}, DIALECTS[name])


def azure_server(
    deployment: str,
    base_url: NotGivenOr[str],
    api_key: str | None,
    entra_token: str | None,
    api_version: str | None,
) -> Server:
    url = base_url if is_given(base_url) and base_url else None
    if url is None:
        endpoint = environment("AZURE_OPENAI_ENDPOINT")
        if not endpoint:
            raise ConfigurationError(
                "RealtimeModel: no Azure endpoint; pass base_url= or set AZURE_OPENAI_ENDPOINT"
            )
        url = f"{endpoint.rstrip('/')}/openai"
    key = api_key or environment("AZURE_OPENAI_API_KEY")
    if not (key or entra_token):
        raise ConfigurationError(
            explained(
                "RealtimeModel: no Azure credentials; pass api_key= or entra_token=, or set "
                "AZURE_OPENAI_API_KEY",
                "no credentials",
            )
        )
    version = api_version or environment("OPENAI_API_VERSION")
    access = Access(
        _http(url),
        key=entra_token or key,
        key_header="Authorization" if entra_token else "api-key",
    )
    if version:
        return Server(access, {"api-version": version, "deployment": deployment}, DIALECTS["beta"])
    parts = checked_url(access.base_url)
    path = "realtime" if parts.path.rstrip("/").endswith("/v1") else "v1/realtime"
    return Server(access, {"model": deployment}, DIALECTS["ga"], path)


def _host(url: NotGivenOr[str]) -> Host:
    """The host whose key opens a session there. An unknown server gets OpenAI's key."""
    host = find_host(checked_url(url).netloc) if is_given(url) else None
    return host if host is not None and host.key_env else HOSTS["openai"]


def _http(url: str) -> str:
    scheme, mark, rest = url.partition("://")
    return f"{ {'ws': 'http', 'wss': 'https'}.get(scheme.lower(), scheme) }{mark}{rest}"


def _at_root(access: Access) -> Access:
    """The address without a final ``/realtime``, which is appended when a session connects."""
    url = access.base_url
    parts = checked_url(url)
    if parts.path.rstrip("/").endswith("/realtime"):
        url = url.replace("/realtime", "", 1)
    return Access(
        url,
        key=access.key,
        key_header=access.key_header,
        headers=access.headers,
        query=access.query,
    )
