"""The signature equals botocore's, for anything."""

from __future__ import annotations

import datetime as dt
from unittest import mock

import botocore.auth
import botocore.awsrequest
import botocore.credentials
from hypothesis import given
from hypothesis import strategies as st

from rejoinder.clouds.sigv4 import Credentials, sign

# A request that botocore signed: fixed here so that the test does not depend on its version.
GOLDEN = {
    "url": "https://bedrock-runtime.us-east-1.amazonaws.com/model/arn%3Aaws%3Abedrock%3Aus-east-1"
    "%3A123%3Ainference-profile%2Fus.anthropic.claude-3-5-sonnet-20240620-v1%3A0/converse-stream",
    "body": b'{"messages":[]}' * 400,
    "wall_now": dt.datetime(2026, 11, 22, 6, 59, 39, tzinfo=dt.UTC).timestamp(),
    "authorization": "AWS4-HMAC-SHA256 Credential=AK/20261122/us-east-1/bedrock/aws4_request, "
    "SignedHeaders=content-type;host;x-amz-date;x-amz-security-token, "
    "Signature=54a8558f2ec6e7c2f66d8c5e22a0b44d8d12983a777ade810b730a71d37d400f",
}


def test_equals_a_recorded_signature() -> None:
    signed = sign(
        "POST",
        GOLDEN["url"],
        {"Content-Type": "application/json"},
        GOLDEN["body"],
        credentials=Credentials("AK", "SK", "TOK"),
        region="us-east-1",
        service="bedrock",
        wall_now=GOLDEN["wall_now"],
    )
    assert signed["Authorization"] == GOLDEN["authorization"]
    assert signed["X-Amz-Date"] == "20261122T065939Z"
    assert signed["X-Amz-Security-Token"] == "TOK"


def botocore_signature(
    method: str, url: str, headers: dict[str, str], body: bytes, wall_now: float, token: str | None
) -> str:
    request = botocore.awsrequest.AWSRequest(method=method, url=url, headers=headers, data=body)
    credentials = botocore.credentials.Credentials("AKID", "secret/+=", token)
    moment = dt.datetime.fromtimestamp(wall_now, dt.UTC)
    with mock.patch.object(
        botocore.auth, "get_current_datetime", return_value=moment.replace(tzinfo=None)
    ):
        botocore.auth.SigV4Auth(credentials, "bedrock", "eu-west-3").add_auth(request)
    return str(request.headers["Authorization"])


segment = st.text(alphabet="abcXYZ019-_.~%!$&'()*+,;=:@ äß/", max_size=12)


@given(
    path=st.lists(segment, max_size=4).map(lambda parts: "/" + "/".join(parts)),
    query=st.lists(
        st.text(alphabet="abc123%-_.~", max_size=4).map(lambda t: f"{t}=x{t}"), max_size=3
    ).map("&".join),
    body=st.binary(max_size=64),
    token=st.sampled_from([None, "token=="]),
    port=st.sampled_from(["", ":443", ":8443"]),
    wall_now=st.integers(min_value=0, max_value=4_000_000_000),
    header=st.text(alphabet="ab  c;,=", max_size=12).map(str.strip),
)
def test_equals_botocore(
    path: str, query: str, body: bytes, token: str | None, port: str, wall_now: int, header: str
) -> None:
    url = f"https://bedrock-runtime.eu-west-3.amazonaws.com{port}{path}" + (
        f"?{query}" if query else ""
    )
    headers = {"Content-Type": "application/json", "X-Custom": header, "User-Agent": "me"}
    signed = sign(
        "POST",
        url,
        headers,
        body,
        credentials=Credentials("AKID", "secret/+=", token),
        region="eu-west-3",
        service="bedrock",
        wall_now=wall_now,
    )
    assert signed["Authorization"] == botocore_signature(
        "POST", url, headers, body, wall_now, token
    )


def test_secrets_are_not_shown() -> None:
    shown = repr(Credentials("AKIDX", "SECRETX", "TOKENX"))
    assert "SECRETX" not in shown
    assert "TOKENX" not in shown
