"""Google Cloud access tokens: from explicit credentials, or from Google's own search.

google-auth is imported at the first need, and works in a thread: it reads files, runs processes and
asks token servers over HTTP. A token is kept until five minutes before its end.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import threading
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final

from rejoinder import _stamps
from rejoinder._foreign import method, read
from rejoinder._secrets import cause_of, one_line, redact, secrets_in_command, shorten
from rejoinder._sections import explained
from rejoinder.clouds.lease import Lease
from rejoinder.errors import APIConnectionError, APIError, APIStatusError, ConfigurationError

__all__ = ["LOCATIONS", "GoogleCredentials", "check_location", "is_stale", "vertex_host"]

_SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"
_MARGIN: Final = 300.0
_AT_LEAST: Final = 10.0
_UNKNOWN_LIFE: Final = 600.0


LOCATIONS: Final = frozenset(
    [
        "global",
        "us",
        "eu",
        "africa-south1",
        "asia-east1",
        "asia-east2",
        "asia-northeast1",
        "asia-northeast2",
        "asia-northeast3",
        "asia-south1",
        "asia-south2",
        "asia-southeast1",
        "asia-southeast2",
        "asia-southeast3",
        "australia-southeast1",
        "australia-southeast2",
        "europe-central2",
        "europe-north1",
        "europe-north2",
        "europe-southwest1",
        "europe-west1",
        "europe-west2",
        "europe-west3",
        "europe-west4",
        "europe-west6",
        "europe-west8",
        "europe-west9",
        "europe-west10",
        "europe-west12",
        "me-central1",
        "me-central2",
        "me-west1",
        "northamerica-northeast1",
        "northamerica-northeast2",
        "northamerica-south1",
        "southamerica-east1",
        "southamerica-west1",
        "us-central1",
        "us-central2",
        "us-east1",
        "us-east4",
        "us-east5",
        "us-east7",
        "us-south1",
        "us-west1",
        "us-west2",
        "us-west3",
        "us-west4",
        "us-west8",
    ]
)
"""The known locations of Vertex AI."""


def check_location(location: str) -> str:
    """Return `location` if it is known.

    Raises:
        ConfigurationError: the location is unknown.
    """
    if location in LOCATIONS:
        return location
    import difflib

    close = difflib.get_close_matches(location.lower(), sorted(LOCATIONS), n=3)
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    raise ConfigurationError(
        f"location: {location!r} is not a known location of Vertex AI.{hint} For a newer one pass "
        f"base_url='https://{vertex_host(location)}' as well."
    )


def vertex_host(location: str) -> str:
    """The host of Vertex AI for a location: a region, ``global``, or the multi-regions ``us``, ``eu``."""
    if location == "global":
        return "aiplatform.googleapis.com"
    if location in ("us", "eu"):
        return f"aiplatform.{location}.rep.googleapis.com"
    return f"{location}-aiplatform.googleapis.com"


def is_stale(error: APIStatusError) -> bool:
    """Whether a new token may resolve `error`."""
    return error.status_code == 401


class GoogleCredentials:
    """Returns an access token for the next request.

    Args:
        credentials: an object of google-auth; without it the application default credentials.
        token: use this token and nothing else.
    """

    def __init__(self, credentials: Any = None, *, token: str | None = None) -> None:
        if credentials is not None and method(credentials, "refresh") is None:
            raise ConfigurationError(
                "credentials: expected an object of google-auth, got "
                f"{type(credentials).__name__}; for the contents of a key file, use "
                "google.oauth2.service_account.Credentials.from_service_account_info"
            )
        self._given = credentials
        self._static = token
        self._credentials: Any = credentials
        self._token = ""
        self._lease = Lease(0.0)
        self._project: str | None = None
        self._lock = threading.Lock()

    async def token(self) -> str:
        """A token that is valid for some minutes.

        Raises:
            ConfigurationError: no credentials were found.
            APIStatusError: they were refused, e.g. because they are expired or revoked.
            APIConnectionError: the token server did not answer.
        """
        if self._static is not None:
            return self._static
        if self._token and not self._lease.over:
            return self._token
        return await asyncio.to_thread(self._load)

    async def project(self) -> str | None:
        """The project of the credentials. Raises like `token`."""
        if self._project is None and self._static is None:
            await self.token()
        return self._project

    @property
    def quota_project(self) -> str | None:
        """The project that is billed, if the credentials set a different one."""
        return read(self._credentials, "quota_project_id", str) or None

    def renew(self) -> bool:
        """Discard the token. Returns whether another one can be obtained."""
        if self._static is not None:
            return False
        with self._lock:
            self._token = ""
        return True

    def _load(self) -> str:
        with self._lock:
            if self._token and not self._lease.over:
                return self._token
            try:
                auth: Any = import_module("google.auth")
                failures: Any = import_module("google.auth.exceptions")
                requests: Any = import_module("google.auth.transport.requests")
            except ImportError as error:
                raise ConfigurationError(
                    explained(
                        "Vertex AI needs google-auth to sign in: pip install 'rejoinder[google]'",
                        "missing package",
                    )
                ) from error
            try:
                if self._credentials is None:
                    self._credentials, project = auth.default(scopes=[_SCOPE])
                    self._project = project
                credentials: Any = self._credentials
                if self._project is None:
                    self._project = read(credentials, "project_id", str)
                credentials.refresh(requests.Request())
            except Exception as error:  # google-auth does not check files, and raises any error
                cause = cause_of(error, self._secrets())
                raise _translated(error, failures, self._shown) from cause
            token = read(credentials, "token", str)
            if not token:
                raise ConfigurationError(
                    "credentials: refresh() left no text in token of an object of type "
                    f"{type(credentials).__name__}; expected credentials of google-auth that give "
                    "an access token"
                )
            self._token = token
            self._lease = Lease(_life(read(credentials, "expiry")))
            return self._token

    def _shown(self, text: str) -> str:
        """`text` for an error: google-auth quotes key files and the answers of token servers."""
        return shorten(redact(one_line(text), self._secrets()))

    def _secrets(self) -> list[str]:
        names = ("refresh_token", "client_secret", "token", "id_token")
        known = [read(self._credentials, name, str) for name in names]
        return [*filter(None, known), *secrets_in_command([], os.environ)]


def _translated(
    error: Exception, failures: Any, shown: Callable[[str], str]
) -> APIError | ConfigurationError:
    """The error for an exception of google-auth, or of an object in its place.

    Args:
        shown: makes a text of the error fit for a message.
    """
    if isinstance(error, failures.DefaultCredentialsError):
        why = ": ".join(str(part) for part in error.args)
        return ConfigurationError(
            explained(
                "Google credentials: none were found. Run `gcloud auth application-default "
                "login`, set GOOGLE_APPLICATION_CREDENTIALS to a key file, or pass credentials. "
                f"({shown(why)})",
                "no credentials",
            )
        )
    if isinstance(error, failures.TransportError):
        return APIConnectionError("the Google token server did not answer")
    if isinstance(error, failures.GoogleAuthError):
        if read(error, "retryable"):
            return APIConnectionError("the Google token server could not answer now")
        return APIStatusError(
            f"Google credentials were refused: {shown(_first(error))}. "
            "Sign in again: gcloud auth application-default login",
            status_code=401,
        )
    text = shown(str(error)) or type(error).__name__
    if isinstance(error, OSError) and error.filename is None:  # of the network, not of a file
        return APIConnectionError(f"the Google token server cannot be reached: {text}")
    return ConfigurationError(
        f"Google credentials cannot be read: {text} ({type(error).__name__}); check the key file, or "
        "the object passed as credentials"
    )


def _first(error: Exception) -> str:
    return str(error.args[0]) if error.args else str(error)


def _life(expiry: object) -> float:
    """Seconds to use a token that ends at `expiry` (UTC, without a zone, as google-auth has it)."""
    if not isinstance(expiry, dt.datetime):
        return _UNKNOWN_LIFE
    moment = expiry if expiry.tzinfo is not None else expiry.replace(tzinfo=dt.UTC)
    return max(_AT_LEAST, moment.timestamp() - _stamps.wall_now() - _MARGIN)
