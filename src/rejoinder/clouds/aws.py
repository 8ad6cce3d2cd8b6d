"""AWS credentials: explicit, from environment variables, or from botocore's provider chain.

botocore is imported at the first need, and works in a thread: its chain reads files, runs processes
and asks metadata services over HTTP.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import os
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

from rejoinder import _stamps
from rejoinder._aio import in_thread
from rejoinder._foreign import method, read
from rejoinder._secrets import (
    Hidden,
    HiddenWord,
    cause_of,
    one_line,
    redact,
    secrets_in_command,
    shorten,
)
from rejoinder._sections import explained
from rejoinder.clouds.aws_errors import STALE_CREDENTIALS
from rejoinder.clouds.lease import Lease
from rejoinder.clouds.sigv4 import Credentials, sign
from rejoinder.errors import APIConnectionError, APIError, APIStatusError, ConfigurationError
from rejoinder.transport.http import Request

__all__ = [
    "REGIONS",
    "AWSCredentials",
    "check_region",
    "credentials_from",
    "dns_suffix",
    "is_stale",
]

# Fetch new credentials this long before the old ones end, and never more often than that.
_MARGIN: Final = 300.0
_AT_LEAST: Final = 30.0

_TRANSIENT: Final = frozenset(
    {
        "ConnectTimeoutError",
        "ConnectionClosedError",
        "ConnectionError",
        "EndpointConnectionError",
        "HTTPClientError",
        "MetadataRetrievalError",
        "ReadTimeoutError",
        "TimeoutError",
    }
)
"""Names of temporary errors, most of them botocore's."""

REGIONS: Final = frozenset(
    [
        "af-south-1",
        "ap-east-1",
        "ap-east-2",
        "ap-northeast-1",
        "ap-northeast-2",
        "ap-northeast-3",
        "ap-south-1",
        "ap-south-2",
        "ap-southeast-1",
        "ap-southeast-2",
        "ap-southeast-3",
        "ap-southeast-4",
        "ap-southeast-5",
        "ap-southeast-6",
        "ap-southeast-7",
        "ca-central-1",
        "ca-west-1",
        "eu-central-1",
        "eu-central-2",
        "eu-north-1",
        "eu-south-1",
        "eu-south-2",
        "eu-west-1",
        "eu-west-2",
        "eu-west-3",
        "il-central-1",
        "me-central-1",
        "me-south-1",
        "mx-central-1",
        "sa-east-1",
        "us-east-1",
        "us-east-2",
        "us-west-1",
        "us-west-2",
        "cn-north-1",
        "cn-northwest-1",
        "eusc-de-east-1",
        "us-gov-east-1",
        "us-gov-west-1",
        "us-iso-east-1",
        "us-iso-west-1",
        "us-isob-east-1",
        "us-isob-west-1",
        "eu-isoe-west-1",
        "us-isof-east-1",
        "us-isof-south-1",
    ]
)
"""The known AWS regions."""

_SUFFIXES: Final = (
    ("cn-", "amazonaws.com.cn"),
    ("eusc-", "amazonaws.eu"),
    ("us-isob-", "sc2s.sgov.gov"),
    ("us-isof-", "csp.hci.ic.gov"),
    ("eu-isoe-", "cloud.adc-e.uk"),
    ("us-iso-", "c2s.ic.gov"),
)


def dns_suffix(region: str) -> str:
    """The end of a region's host names."""
    for prefix, suffix in _SUFFIXES:
        if region.startswith(prefix):
            return suffix
    return "amazonaws.com"


def check_region(region: str) -> str:
    """Return `region` if it is known.

    Raises:
        ConfigurationError: the region is unknown.
    """
    if region in REGIONS:
        return region
    import difflib

    close = difflib.get_close_matches(region.lower(), sorted(REGIONS), n=3)
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    raise ConfigurationError(
        f"region: {region!r} is not a known AWS region.{hint} For a newer one pass "
        f"base_url='https://bedrock-runtime.{region}.{dns_suffix(region)}' as well."
    )


def is_stale(error: APIStatusError) -> bool:
    """Whether new credentials may resolve `error`."""
    return error.status_code in (400, 401, 403) and any(
        name in error.message for name in STALE_CREDENTIALS
    )


_LARGE = 256 * 1024


class AWSCredentials:
    """Returns the credentials for the next request.

    Args:
        static: use only these credentials.
        session: ask this session (of botocore, boto3, aiobotocore or aioboto3) instead of a new one.
    """

    def __init__(self, *, static: Credentials | None = None, session: Any = None) -> None:
        self._static = static
        self._session = session
        self._source: Any = None
        self._process = _CredentialProcess()
        self._cached: Credentials | None = None
        self._lease = Lease(0.0)
        self._lock = threading.Lock()

    async def get(self) -> Credentials:
        """Credentials that are valid for some minutes.

        Raises:
            ConfigurationError: no credentials were found, or the configuration is broken.
            APIConnectionError: the service that issues them did not answer.
        """
        if self._static is not None:
            return self._static
        if self._session is None and (found := _from_environment()) is not None:
            return found
        if self._cached is not None and not self._lease.over:
            return self._cached
        get = method(self._session, "get_credentials")
        if inspect.iscoroutinefunction(get):
            return await self._ask(get)
        return await asyncio.to_thread(self._load)

    async def sign_request(self, request: Request, *, region: str) -> Request:
        """`request` to Bedrock with its signature.

        Raises:
            ConfigurationError: as `get`.
            APIConnectionError: as `get`.
        """
        credentials = await self.get()
        body = request.body or b""
        make = partial(
            sign,
            request.method,
            request.url,
            request.headers,
            body,
            credentials=credentials,
            region=region,
            service="bedrock",
            wall_now=_stamps.wall_now(),
        )
        # Pictures make bodies of megabytes, and those take milliseconds to hash.
        large = len(body) > _LARGE
        headers = await in_thread(make, name="rejoinder-sign") if large else make()
        return replace(request, headers=headers, signed_with=Hidden((credentials.secret_key,)))

    async def region(self) -> str | None:
        """The region of the session, or of the user's AWS configuration."""
        if name := read(self._session, "region_name", str):
            return name
        return await asyncio.to_thread(self._configured_region)

    def renew(self) -> bool:
        """Discard cached credentials. Returns whether other ones can be obtained."""
        if self._static is not None:
            return False
        with self._lock:
            self._cached = None
            self._source = None
        return self._session is not None or _from_environment() is None

    async def _ask(self, get: Any) -> Credentials:
        try:
            source: Any = await get()
            if source is None:
                raise _none_found()
            frozen: Any = source.get_frozen_credentials()
            if inspect.isawaitable(frozen):
                frozen = await frozen
            return self._keep(source, frozen)
        except (APIError, ConfigurationError):
            raise
        except Exception as error:
            raise self._translated(error) from self._cause(error)

    def _load(self) -> Credentials:
        with self._lock:
            if self._cached is not None and not self._lease.over:
                return self._cached
            try:
                if self._source is None:
                    session = self._session
                    if session is None:
                        session = _botocore_session()
                        self._process.serve(session)
                    self._source = session.get_credentials()
                    if self._source is None:
                        raise _none_found()
                return self._keep(self._source, self._source.get_frozen_credentials())
            except (APIError, ConfigurationError):
                raise
            except Exception as error:
                self._source = None
                raise self._translated(error) from self._cause(error)

    def _translated(self, error: Exception) -> Exception:
        names: set[str] = set()
        cause: BaseException | None = error
        while cause is not None and len(names) < 100:
            names.update(cls.__name__ for cls in type(cause).__mro__)
            cause = cause.__cause__ or cause.__context__
        # botocore's error quotes the output of a credential process.
        reason = shorten(redact(one_line(str(error)), self._secrets())) or type(error).__name__
        text = f"AWS credentials cannot be read: {reason}"
        if names & _TRANSIENT:
            return APIConnectionError(text)
        return ConfigurationError(text)

    def _cause(self, error: Exception) -> Exception | None:
        return cause_of(error, self._secrets())

    def _secrets(self) -> list[str]:
        return [*secrets_in_command([], os.environ), *self._process.secrets.reveal()]

    def _keep(self, source: Any, frozen: Any) -> Credentials:
        credentials = Credentials(
            read(frozen, "access_key"), read(frozen, "secret_key"), read(frozen, "token")
        )
        remaining = method(source, "_seconds_remaining")
        lasts = math.inf
        if remaining is not None:
            left = remaining()
            if isinstance(left, (int, float)):
                lasts = max(_AT_LEAST, left - _MARGIN)
        self._cached, self._lease = credentials, Lease(lasts)
        return credentials

    def _configured_region(self) -> str | None:
        try:
            session = self._session or _botocore_session()
            name = session.get_config_variable("region")
        except Exception:  # reading credentials reports a broken configuration
            return None
        return name if isinstance(name, str) and name else None


def _from_environment() -> Credentials | None:
    key = os.environ.get("AWS_ACCESS_KEY_ID")
    secret = os.environ.get("AWS_SECRET_ACCESS_KEY")
    if not key or not secret:
        return None
    token = os.environ.get("AWS_SESSION_TOKEN") or os.environ.get("AWS_SECURITY_TOKEN")
    return Credentials(key, secret, token or None)


def _botocore_session() -> Any:
    try:
        import botocore.session
    except ImportError as error:
        raise ConfigurationError(
            explained(
                "AWS credentials: none were passed, and finding them needs botocore; "
                "pip install 'rejoinder[aws]', or pass api_key and api_secret",
                "missing package",
            )
        ) from error
    return botocore.session.Session()


class _CredentialProcess:
    """Starts the ``credential_process`` of a profile, and hides the words of its command line.

    Sentry keeps the command line of each new process as a breadcrumb. botocore takes another way to
    start the process of the profile itself, but not that of its ``source_profile``.
    """

    def __init__(self) -> None:
        self.secrets: Hidden[list[str]] = Hidden([])

    def serve(self, session: Any) -> None:
        """Start the process for `session`, a new one of botocore."""
        from botocore.credentials import ProcessProvider

        profile = session.get_config_variable("profile") or "default"
        provider = ProcessProvider(profile, lambda: session.full_config, popen=self._start)
        session.get_component("credential_provider").insert_before(provider.METHOD, provider)

    def _start(self, words: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        self.secrets = Hidden(secrets_in_command(words, {}))
        program, *rest = words
        return subprocess.Popen([program, *map(HiddenWord, rest)], **options)  # noqa: S603  the user's


def _none_found() -> ConfigurationError:
    return ConfigurationError(
        explained(
            "AWS credentials: none were found. Pass api_key and api_secret, set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY or AWS_BEARER_TOKEN_BEDROCK, or sign in (aws configure, aws sso login)",
            "no credentials",
        )
    )


def credentials_from(
    api_key: str | None,
    api_secret: str | None,
    session_token: str | None,
    bearer_token: str | None,
    session: Any,
) -> tuple[str | None, AWSCredentials]:
    """The bearer token to use, if any, and the credentials to sign with otherwise.

    Explicit credentials take precedence over the environment; a Bedrock API key
    (``AWS_BEARER_TOKEN_BEDROCK``) takes precedence over the credentials of an account.

    Raises:
        ConfigurationError: only one of a pair of keys was passed.
    """
    if bearer_token:
        return bearer_token, AWSCredentials()
    if bool(api_key) != bool(api_secret):
        raise ConfigurationError(
            "AWS credentials: api_key (the access key id) and api_secret belong together; got only "
            + ("api_key" if api_key else "api_secret")
            + ". A Bedrock API key goes into bearer_token or AWS_BEARER_TOKEN_BEDROCK."
        )
    if api_key and api_secret:
        return None, AWSCredentials(static=Credentials(api_key, api_secret, session_token))
    if session is not None:
        return None, AWSCredentials(session=session)
    return os.environ.get("AWS_BEARER_TOKEN_BEDROCK") or None, AWSCredentials()
