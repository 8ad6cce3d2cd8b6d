"""The hosts of Claude: how to address and sign a request for each."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import urlsplit

from rejoinder._sections import explained
from rejoinder.errors import ConfigurationError
from rejoinder.providers.answering.errors import DecodeError, with_second_chance
from rejoinder.providers.anthropic.options import Platform
from rejoinder.providers.anthropic.wire import decode_error
from rejoinder.providers.asking.checks import check_base_url, environment
from rejoinder.providers.asking.fields import (
    HttpExtras,
    build_url,
    has_header,
    merge_headers,
    path_part,
)
from rejoinder.transport.http import Request

if TYPE_CHECKING:
    from rejoinder.clouds.aws import AWSCredentials
    from rejoinder.clouds.google import GoogleCredentials

__all__ = ["BedrockHost", "DirectHost", "Host", "VertexHost", "find_host"]

_BASE_URL: Final = "https://api.anthropic.com"
_VERSION: Final = "2023-06-01"
_JSON: Final = {"Content-Type": "application/json"}
_FRAMES: Final = "application/vnd.amazon.eventstream"
_BEDROCK_HOST: Final = re.compile(r"bedrock-runtime(?:-fips)?\.([a-z0-9-]+)\.[a-z0-9.]+")
_VERTEX_HOST: Final = re.compile(
    r"(?:([a-z0-9-]+)-)?aiplatform\.googleapis\.com|aiplatform\.([a-z]+)\.rep\.googleapis\.com"
)


class Host:
    """One host: how to address and sign its requests."""

    hosts_claude = True
    """It hosts only Claude models, whose state every other host of Claude can read."""

    platform: Platform
    framing: Literal["sse", "eventstream"] = "sse"
    base_url: str

    async def request(
        self,
        model: str,
        extras: HttpExtras,
        body: bytes,
        connect_timeout: float | None,
    ) -> Request:
        raise NotImplementedError

    def errors(self) -> DecodeError:
        return decode_error

    async def warm(self) -> None:
        """Prepare credentials."""


class DirectHost(Host):
    """Anthropic itself, Azure, and compatible servers."""

    def __init__(
        self, base_url: str, api_key: str | None, auth_token: str | None, platform: Platform
    ) -> None:
        self.platform = platform
        self.base_url = check_base_url(base_url, endpoints=("/v1/messages", "/v1"))
        self.hosts_claude = platform == "azure" or self.base_url.startswith(_BASE_URL)
        self._url = build_url(self.base_url, "v1/messages")
        self._api_key = api_key
        self._auth_token = auth_token

    async def request(
        self,
        model: str,
        extras: HttpExtras,
        body: bytes,
        connect_timeout: float | None,
    ) -> Request:
        own = {**_JSON, "Accept": "text/event-stream", "anthropic-version": _VERSION}
        if self._auth_token:
            own["Authorization"] = f"Bearer {self._auth_token}"
        elif self._api_key:
            own["x-api-key"] = self._api_key
        headers = merge_headers(own, extras.headers) if extras.headers else own
        url = build_url(self._url, query=extras.query) if extras.query else self._url
        return Request("POST", url, headers, body, connect_timeout)


class BedrockHost(Host):
    """Amazon Bedrock."""

    platform = "bedrock"
    framing = "eventstream"

    def __init__(
        self,
        api_key: str | None,
        api_secret: str | None,
        session_token: str | None,
        bearer_token: str | None,
        region: str | None,
        base_url: str | None,
        session: Any,
    ) -> None:
        from rejoinder.clouds.aws import (
            check_region,
            credentials_from,
            dns_suffix,
        )

        if base_url is not None:
            self.base_url = check_base_url(base_url)
            found = _BEDROCK_HOST.fullmatch(urlsplit(self.base_url).hostname or "")
            self._region = (
                found[1]
                if found is not None
                else region or environment("AWS_REGION", "AWS_DEFAULT_REGION") or "us-east-1"
            )
        else:
            self._region = check_region(
                region or environment("AWS_REGION", "AWS_DEFAULT_REGION") or "us-east-1"
            )
            self.base_url = (
                environment("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", "AWS_ENDPOINT_URL")
                or f"https://bedrock-runtime.{self._region}.{dns_suffix(self._region)}"
            ).rstrip("/")
        self._bearer, self._credentials = credentials_from(
            api_key, api_secret, session_token, bearer_token, session
        )

    async def request(
        self,
        model: str,
        extras: HttpExtras,
        body: bytes,
        connect_timeout: float | None,
    ) -> Request:
        url = _bedrock_url(self.base_url, model)
        if extras.query:
            url = build_url(url, query=extras.query)
        own = {**_JSON, "Accept": _FRAMES}
        if self._bearer is not None:
            own["Authorization"] = f"Bearer {self._bearer}"
        headers = merge_headers(own, extras.headers) if extras.headers else own
        request = Request("POST", url, headers, body, connect_timeout)
        if self._bearer is not None or has_header(headers, "Authorization"):
            return request
        return await self._credentials.sign_request(request, region=self._region)

    def errors(self) -> DecodeError:
        from rejoinder.clouds.aws import is_stale

        if self._bearer is not None:
            return decode_error
        return with_second_chance(decode_error, is_stale, self._credentials.renew)

    async def warm(self) -> None:
        if self._bearer is None:
            await self._credentials.get()

    _credentials: AWSCredentials


@lru_cache(maxsize=64)
def _bedrock_url(base_url: str, model: str) -> str:
    return build_url(base_url, f"model/{path_part('model', model)}/invoke-with-response-stream")


class VertexHost(Host):
    """Google Cloud's Vertex AI."""

    platform = "vertex"

    def __init__(
        self,
        project: str | None,
        location: str | None,
        credentials: Any,
        access_token: str | None,
        base_url: str | None,
    ) -> None:
        from rejoinder.clouds.google import (
            GoogleCredentials,
            check_location,
            vertex_host,
        )

        if base_url is not None:
            self.base_url = check_base_url(base_url)
            found = _VERTEX_HOST.fullmatch(urlsplit(self.base_url).hostname or "")
            if found is not None:
                location = location or found[1] or found[2] or "global"
        self._location = (
            location or environment("CLOUD_ML_REGION", "GOOGLE_CLOUD_LOCATION") or "global"
        )
        if base_url is None:
            self.base_url = f"https://{vertex_host(check_location(self._location))}/v1"
        self._project = project or environment(
            "ANTHROPIC_VERTEX_PROJECT_ID", "GOOGLE_CLOUD_PROJECT"
        )
        self._credentials = GoogleCredentials(credentials, token=access_token)

    async def request(
        self,
        model: str,
        extras: HttpExtras,
        body: bytes,
        connect_timeout: float | None,
    ) -> Request:
        token = await self._credentials.token()
        project = self._project or await self._credentials.project()
        if not project:
            raise ConfigurationError(
                "Vertex AI: the credentials name no project; pass project, or set "
                "GOOGLE_CLOUD_PROJECT"
            )
        url = (
            f"{self.base_url}/projects/{path_part('project', project)}"
            f"/locations/{path_part('location', self._location)}"
            f"/publishers/anthropic/models/{path_part('model', model, safe='@')}:streamRawPredict"
        )
        own = {**_JSON, "Accept": "text/event-stream", "Authorization": f"Bearer {token}"}
        if (payer := self._credentials.quota_project) is not None:
            own["x-goog-user-project"] = payer
        headers = merge_headers(own, extras.headers) if extras.headers else own
        return Request("POST", build_url(url, query=extras.query), headers, body, connect_timeout)

    def errors(self) -> DecodeError:
        from rejoinder.clouds.google import is_stale

        return with_second_chance(decode_error, is_stale, self._credentials.renew)

    async def warm(self) -> None:
        await self._credentials.token()

    _credentials: GoogleCredentials


def find_host(api_key: str | None, auth_token: str | None, base_url: str | None) -> Host:
    """The host of a URL."""
    address = base_url or environment("ANTHROPIC_BASE_URL") or _BASE_URL
    name = urlsplit(check_base_url(address)).hostname or ""
    if _BEDROCK_HOST.fullmatch(name):
        return BedrockHost(None, None, None, api_key or auth_token, None, address, None)
    if _VERTEX_HOST.fullmatch(name):
        project = re.search(r"/projects/([^/]+)/locations/([^/]+)", address)
        return VertexHost(
            None if project is None else project[1],
            None if project is None else project[2],
            None,
            auth_token or api_key,
            address.partition("/projects/")[0],
        )
    azure = name.endswith((".services.ai.azure.com", ".cognitiveservices.azure.com"))
    if azure:
        key = api_key or environment("ANTHROPIC_FOUNDRY_API_KEY", "ANTHROPIC_API_KEY")
    else:
        key = api_key or environment("ANTHROPIC_API_KEY")
    token = auth_token or (None if key else environment("ANTHROPIC_AUTH_TOKEN"))
    if not key and not token and (azure or address == _BASE_URL):
        raise ConfigurationError(
            explained(
                "Anthropic: no API key. Pass api_key, or set "
                + ("ANTHROPIC_FOUNDRY_API_KEY" if azure else "ANTHROPIC_API_KEY"),
                "no key",
            )
        )
    return DirectHost(address, key, token, "azure" if azure else "anthropic")
