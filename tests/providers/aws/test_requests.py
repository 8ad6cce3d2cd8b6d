"""What is sent to Bedrock, by whom, and to which region."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
import textwrap
import traceback
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import botocore.session
import botocore.validate
import pydantic
import pytest

from providers.conversation import (
    IMAGE,
    ONCE,
    PNG,
    RAW_SCHEMA,
    TOOLS,
    WEATHER_SCHEMA,
    conversation,
    sent,
)
from rejoinder.clouds.aws import AWSCredentials
from rejoinder.errors import APIConnectionError, APIStatusError, ConfigurationError
from rejoinder.llm import AudioContent, ImageContent
from rejoinder.llm.chat_context import ChatContext
from rejoinder.media import AudioFrame
from rejoinder.providers import aws
from rejoinder.testing.faults import Answer, FaultServer
from rejoinder.testing.history import assert_legal
from rejoinder.types import NOT_GIVEN


def bedrock(**options: Any) -> Any:
    return lambda url: aws.LLM(
        **{"api_key": "AKID", "api_secret": "secret", "base_url": url, **options}
    )


def fits(body: dict[str, Any]) -> dict[str, Any]:
    """`body`, if it is what the vendor's own service model says it has to be."""
    service = botocore.session.get_session().get_service_model("bedrock-runtime")
    shape = service.operation_model("ConverseStream").input_shape
    report = botocore.validate.ParamValidator().validate({"modelId": "m", **body}, shape)
    assert not report.has_errors(), report.generate_report()
    assert_legal("aws", body)
    return body


# As LiveKit Agents 1.2.17 sends it, with two repairs: an image has its own format, and a failed
# tool the status of a failure.
MESSAGES: list[dict[str, Any]] = [
    {
        "role": "user",
        "content": [
            {"text": "look"},
            {"image": {"format": "png", "source": {"bytes": PNG}}},
        ],
    },
    {
        "role": "assistant",
        "content": [
            {"text": "Checking."},
            {
                "toolUse": {
                    "toolUseId": "call_1",
                    "name": "get_weather",
                    "input": {"city": "Rome"},
                }
            },
            {"toolUse": {"toolUseId": "call_2", "name": "raw_tool", "input": {}}},
        ],
    },
    {
        "role": "user",
        "content": [
            {
                "toolResult": {
                    "toolUseId": "call_1",
                    "content": [{"text": "sunny"}],
                    "status": "success",
                }
            },
            {
                "toolResult": {
                    "toolUseId": "call_2",
                    "content": [{"text": "boom"}],
                    "status": "error",
                }
            },
            {"text": "and now?"},
        ],
    },
]
SPECS: list[dict[str, Any]] = [
    {
        "toolSpec": {
            "name": "get_weather",
            "description": "Look up the weather.\n",
            "inputSchema": {"json": WEATHER_SCHEMA},
        }
    },
    {
        "toolSpec": {
            "name": "raw_tool",
            "description": "raw",
            "inputSchema": {"json": RAW_SCHEMA},
        }
    },
]
POINT = {"cachePoint": {"type": "default"}}


async def test_every_option() -> None:
    make = bedrock(
        model="my.model-v1:0",  # of which nothing is known: these options exclude each other
        temperature=0.4,
        max_output_tokens=44,
        top_p=0.5,
        tool_choice="required",
        cache_system=True,
        cache_tools=True,
        additional_request_fields={"thinking": {"type": "enabled"}},
    )
    request = await sent(make, tools=TOOLS)
    assert request.path == "/model/my.model-v1%3A0/converse-stream"
    assert request.headers["content-type"] == "application/json"
    assert fits(request.json()) == {
        "messages": MESSAGES,
        "system": [{"text": "You are S."}, POINT],
        "inferenceConfig": {"maxTokens": 44, "temperature": 0.4, "topP": 0.5},
        "toolConfig": {"tools": [*SPECS, POINT], "toolChoice": {"any": {}}},
        "additionalModelRequestFields": {"thinking": {"type": "enabled"}},
    }


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (NOT_GIVEN, None),
        ("auto", {"auto": {}}),
        (
            {"type": "function", "function": {"name": "raw_tool"}},
            {"tool": {"name": "raw_tool"}},
        ),
    ],
)
async def test_tool_choices_of_a_call(given: Any, expected: Any) -> None:
    body = fits((await sent(bedrock(), tools=TOOLS, tool_choice=given)).json())
    assert body["toolConfig"].get("toolChoice") == expected


@pytest.mark.parametrize("options", [{}, {"tools": TOOLS, "tool_choice": "none"}])
async def test_calls_are_told_where_there_are_no_tools(options: dict[str, Any]) -> None:
    body = fits((await sent(bedrock(), **options)).json())
    assert "toolConfig" not in body
    text = json.dumps(body)
    assert "toolUse" not in text
    assert "toolResult" not in text
    for told in ("get_weather", "Rome", "sunny", "boom", "failed", "and now?"):
        assert told in text


async def test_thinking_is_off_where_calls_were_made_without_it() -> None:
    thinking = {"thinking": {"type": "enabled", "budget_tokens": 1024}, "top_k": 5}
    make = bedrock(additional_request_fields=thinking)
    context = conversation()
    context.items.pop()  # the tools have just answered
    body = fits((await sent(make, context, tools=TOOLS)).json())
    assert body["additionalModelRequestFields"] == {"top_k": 5}
    spoken = (await sent(make, conversation(), tools=TOOLS)).json()
    assert spoken["additionalModelRequestFields"] == {"thinking": thinking["thinking"]}


async def test_reasoning_goes_back_as_it_came() -> None:
    context = ChatContext.empty()
    context.add_message(role="user", content="hello")
    async with FaultServer() as server, bedrock()(server.url) as llm:
        server.script(Answer(thinking="Let me see.", text=("Hi",)))
        reply = await llm.chat(chat_ctx=context, conn_options=ONCE).collect()
        assert (reply.text, reply.thinking) == ("Hi", "Let me see.")
        context.add_message(role="assistant", content=reply.text, extra=reply.extra)
        context.add_message(role="user", content="and?")
        await llm.chat(chat_ctx=context, conn_options=ONCE).collect()
        first, second = fits(server.requests[1].json())["messages"][1]["content"]
    assert first["reasoningContent"]["reasoningText"] == {
        "text": "Let me see.",
        "signature": "c2lnbmVk",
    }
    assert second == {"text": "Hi"}


async def test_a_temperature_for_one_call() -> None:
    body = (await sent(bedrock(temperature=0.1), temperature=0.9)).json()
    assert body["inferenceConfig"] == {"temperature": 0.9}


async def test_further_parameters() -> None:
    guardrail = {"guardrailIdentifier": "gr-12345", "guardrailVersion": "1"}
    extra = {
        "guardrailConfig": guardrail,
        "inferenceConfig": {"stopSequences": ["END"]},
        "extra_headers": {"X-Mine": "1"},
        "extra_query": {"a": "b c"},
    }
    request = await sent(bedrock(temperature=0.5), extra_kwargs=extra)
    body = fits(request.json())
    assert body["guardrailConfig"] == guardrail
    assert body["inferenceConfig"] == {"stopSequences": ["END"], "temperature": 0.5}
    assert request.headers["x-mine"] == "1"
    assert request.path.endswith("/converse-stream?a=b%20c")


class Person(pydantic.BaseModel):
    name: str


async def test_a_schema_for_the_answer() -> None:
    body = fits((await sent(bedrock(), response_format=Person)).json())
    found = body["outputConfig"]["textFormat"]["structure"]["jsonSchema"]
    assert found["name"] == "Person"
    assert json.loads(found["schema"])["additionalProperties"] is False


def user_says(*parts: Any) -> ChatContext:
    context = ChatContext.empty()
    context.add_message(role="user", content=list(parts))
    return context


async def test_documents_and_sound() -> None:
    sound = AudioContent(frame=[AudioFrame(b"\1\0" * 80, 8000, 1, 80)])
    context = user_says(
        "read",
        ImageContent(image="data:application/pdf;base64,JVBERg=="),
        ImageContent(image="s3://bucket/x.csv", mime_type="text/csv"),
        sound,
        ImageContent(image=IMAGE),
    )
    body = fits((await sent(bedrock(model="amazon.nova-2-omni-v1:0"), context)).json())
    text, pdf, table, heard, image = body["messages"][0]["content"]
    assert text == {"text": "read"}
    assert pdf["document"]["format"] == "pdf"
    assert table["document"]["source"] == {"s3Location": {"uri": "s3://bucket/x.csv"}}
    assert base64.b64decode(heard["audio"]["source"]["bytes"])[:4] == b"RIFF"
    assert image["image"]["format"] == "png"


@pytest.mark.parametrize(
    ("part", "word"),
    [
        (ImageContent(image="https://example.com/a.jpg"), "https://example.com/a.jpg"),
        (ImageContent(image="data:application/zip;base64,UEs="), "application/zip"),
        (ImageContent(image="https://example.com/a.pdf", mime_type="application/pdf"), "a.pdf"),
        (AudioContent(frame=[AudioFrame(b"\0\0", 8000, 1, 1)]), "sound"),
    ],
)
async def test_what_cannot_be_sent_is_refused_before(part: Any, word: str) -> None:
    async with FaultServer() as server, bedrock()(server.url) as llm:
        with pytest.raises(ConfigurationError, match=word):
            await llm.chat(chat_ctx=user_says("look", part)).collect()
        assert not server.requests


async def test_an_older_picture_elsewhere_is_told_in_words() -> None:
    context = user_says("look", ImageContent(image="https://example.com/a.jpg"))
    context.add_message(role="assistant", content="Nice.")
    context.add_message(role="user", content="and now?")
    body = fits((await sent(bedrock(), context)).json())
    assert "https://example.com/a.jpg" in json.dumps(body["messages"][0])


# -- who asks ----------------------------------------------------------------------------------


async def test_the_signature_is_botocores() -> None:
    request = await sent(bedrock(session_token="token", model="arn:aws:bedrock:us-east-1:1:x/y"))
    names = request.headers["authorization"].split("SignedHeaders=")[1].split(",")[0].split(";")
    again = botocore.awsrequest.AWSRequest(
        method="POST",
        url=f"http://{request.headers['host']}{request.path}",
        headers={
            name: request.headers[name]
            for name in names
            if name not in ("host", "x-amz-date", "x-amz-security-token")
        },
        data=request.body,
    )
    import datetime as dt
    from unittest import mock

    moment = dt.datetime.strptime(request.headers["x-amz-date"], "%Y%m%dT%H%M%SZ")  # noqa: DTZ007
    with mock.patch.object(botocore.auth, "get_current_datetime", return_value=moment):
        botocore.auth.SigV4Auth(
            botocore.credentials.Credentials("AKID", "secret", "token"), "bedrock", "us-east-1"
        ).add_auth(again)
    assert request.headers["authorization"] == again.headers["authorization"]
    assert "%2F" in request.path


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> pytest.MonkeyPatch:
    """An environment without any credentials."""
    import os

    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return monkeypatch


def plain(**options: Any) -> Any:
    return lambda url: aws.LLM(base_url=url, **options)


async def test_a_bearer_key(nobody: pytest.MonkeyPatch) -> None:
    nobody.setenv("AWS_BEARER_TOKEN_BEDROCK", "from-environment")
    request = await sent(plain())
    assert request.headers["authorization"] == "Bearer from-environment"
    assert "x-amz-date" not in request.headers
    given = await sent(plain(bearer_token="given"))
    assert given.headers["authorization"] == "Bearer given"
    keys = await sent(bedrock())  # what was given counts before the environment
    assert keys.headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKID/")


async def test_keys_of_the_environment(nobody: pytest.MonkeyPatch) -> None:
    nobody.setenv("AWS_ACCESS_KEY_ID", "AKENV")
    nobody.setenv("AWS_SECRET_ACCESS_KEY", "s")
    nobody.setenv("AWS_SESSION_TOKEN", "t")
    request = await sent(plain())
    assert "Credential=AKENV/" in request.headers["authorization"]
    assert request.headers["x-amz-security-token"] == "t"


async def test_keys_of_a_profile(nobody: pytest.MonkeyPatch, tmp_path: Any) -> None:
    (tmp_path / "credentials").write_text(
        "[default]\naws_access_key_id=AKFILE\naws_secret_access_key=s\n"
        "[other]\naws_access_key_id=AKOTHER\naws_secret_access_key=s\n"
    )
    request = await sent(plain())
    assert "Credential=AKFILE/" in request.headers["authorization"]
    nobody.setenv("AWS_PROFILE", "other")
    request = await sent(plain())
    assert "Credential=AKOTHER/" in request.headers["authorization"]


def process(tmp_path: Any, seconds: int) -> None:
    """Configure a process that gives credentials which end after `seconds`, new ones each time."""
    script = tmp_path / "give.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import datetime, json, pathlib
            count = pathlib.Path({str(tmp_path / "count")!r})
            number = int(count.read_text()) + 1 if count.exists() else 1
            count.write_text(str(number))
            end = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(
                seconds={seconds}
            )
            print(json.dumps({{"Version": 1, "AccessKeyId": f"AK{{number}}",
                "SecretAccessKey": "s", "SessionToken": "t", "Expiration": end.isoformat()}}))
            """
        )
    )
    (tmp_path / "config").write_text(
        f"[default]\ncredential_process = {sys.executable} {script}\nregion = eu-north-1\n"
    )


def key_of(request: Any) -> str:
    return request.headers["authorization"].split("Credential=")[1].split("/")[0]


async def test_credentials_that_end_are_renewed(nobody: pytest.MonkeyPatch, tmp_path: Any) -> None:
    process(tmp_path, 3600)
    async with FaultServer() as server, plain()(server.url) as llm:
        for _ in range(2):
            await llm.chat(chat_ctx=conversation(), conn_options=ONCE).collect()
        assert [key_of(request) for request in server.requests] == ["AK1", "AK1"]
        # The service says that they are too old: they are fetched anew, once, and told as stale
        # if that does not help.
        server.script(Answer(status=403, message="ExpiredTokenException: too old"))
        await llm.chat(chat_ctx=conversation()).collect()
        assert [key_of(request) for request in server.requests[2:]] == ["AK1", "AK2"]
        server.always(Answer(status=403, message="ExpiredTokenException: too old"))
        with pytest.raises(APIStatusError, match="too old"):
            await llm.chat(chat_ctx=conversation()).collect()
        assert len(server.requests) == 6


async def test_credentials_are_renewed_before_they_end(
    nobody: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    process(tmp_path, 310)  # ten seconds more than the margin
    credentials = AWSCredentials()
    first = await credentials.get()
    assert await credentials.get() is first
    from rejoinder import _stamps

    now = _stamps.wall_now()
    nobody.setattr(_stamps, "wall_now", lambda: now + 31)
    assert (await credentials.get()).access_key != first.access_key


async def test_many_calls_wait_for_one_look(nobody: pytest.MonkeyPatch, tmp_path: Any) -> None:
    process(tmp_path, 3600)
    credentials = AWSCredentials()
    found = await asyncio.gather(*(credentials.get() for _ in range(6)))
    assert {each.access_key for each in found} == {"AK1"}


async def test_expired_keys_that_were_given_are_not_tried_again() -> None:
    async with FaultServer() as server, bedrock()(server.url) as llm:
        server.always(Answer(status=403, message="ExpiredTokenException: too old"))
        with pytest.raises(APIStatusError) as caught:
            await llm.chat(chat_ctx=conversation()).collect()
        assert caught.value.status_code == 403
        assert len(server.requests) == 1


async def test_no_credentials(nobody: pytest.MonkeyPatch) -> None:
    async with FaultServer() as server, plain()(server.url) as llm:
        with pytest.raises(ConfigurationError, match="AWS_BEARER_TOKEN_BEDROCK"):
            await llm.chat(chat_ctx=conversation()).collect()
        assert not server.requests


async def test_a_broken_setup_is_told(nobody: pytest.MonkeyPatch, tmp_path: Any) -> None:
    nobody.setenv("AWS_PROFILE", "missing")
    with pytest.raises(ConfigurationError, match="missing"):
        await AWSCredentials().get()
    nobody.delenv("AWS_PROFILE")
    (tmp_path / "config").write_text("[default]\ncredential_process = /no/such/program\n")
    with pytest.raises(ConfigurationError):
        await AWSCredentials().get()


async def test_a_credential_process_keeps_its_secrets(
    nobody: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """Neither monitors of new processes nor errors show the words of its command line."""
    script = tmp_path / "refuses.py"
    script.write_text("import sys; sys.exit(f'refused: {sys.argv[1:]}')")
    (tmp_path / "config").write_text(
        f"[default]\ncredential_process = {sys.executable} {script} --key canary-0123456789\n"
    )
    watched = patch.object(subprocess, "Popen", wraps=subprocess.Popen)
    with watched as popen, pytest.raises(ConfigurationError, match="refused") as caught:
        await AWSCredentials().get()
    assert popen.call_count == 1
    assert "canary" not in repr(popen.call_args)
    shown = "".join(
        traceback.TracebackException.from_exception(caught.value, capture_locals=True).format()
    )
    assert "refused: ['--key', '***']" in shown
    assert "canary" not in shown


async def test_a_metadata_service_that_is_away_may_come_back(nobody: pytest.MonkeyPatch) -> None:
    nobody.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:9/x")
    from botocore.utils import ContainerMetadataFetcher

    nobody.setattr(ContainerMetadataFetcher, "SLEEP_TIME", 0)
    with pytest.raises(APIConnectionError) as caught:
        await AWSCredentials().get()
    assert caught.value.retryable


class Gives:
    """A session with these keys."""

    region_name = "eu-west-1"

    def __init__(self, *keys: Any) -> None:
        self.keys = keys

    def get_credentials(self) -> Any:
        return self

    def get_frozen_credentials(self) -> Any:
        names = ("access_key", "secret_key", "token")
        return SimpleNamespace(**dict(zip(names, self.keys, strict=False)))


@pytest.mark.parametrize(
    "keys",
    [
        (),
        ("a",),
        (None, None, None),
        ("a", None, None),
        ("", "", None),
        (3, "s", None),
        ("a", b"s", None),
        ("a", "s", 4),
        ("a\nb", "s", None),
        ("a", "s\udcff", None),
        ("a", "s", "tökn"),
    ],
)
async def test_keys_that_are_no_keys(keys: tuple[Any, ...]) -> None:
    with pytest.raises(ConfigurationError, match=r"AWS credentials: .*_(key|token): expected"):
        await AWSCredentials(session=Gives(*keys)).get()


async def test_keys_of_the_environment_that_are_no_keys(nobody: pytest.MonkeyPatch) -> None:
    nobody.setenv("AWS_ACCESS_KEY_ID", "AKID")
    nobody.setenv("AWS_SECRET_ACCESS_KEY", "s\udcff")
    with pytest.raises(ConfigurationError, match="secret_key: expected"):
        await AWSCredentials().get()


def test_half_a_pair_of_keys() -> None:
    with pytest.raises(ConfigurationError, match="api_secret"):
        aws.LLM(api_key="AKID")
    with pytest.raises(ConfigurationError, match="api_key"):
        aws.LLM(api_secret="s")


class Frozen:
    access_key, secret_key, token = "AKSESSION", "s", "t"


async def test_sessions_of_other_libraries(nobody: pytest.MonkeyPatch) -> None:
    class Sync:
        region_name = "ap-south-1"

        def get_credentials(self) -> Any:
            return type("C", (), {"get_frozen_credentials": lambda self: Frozen()})()

    class Async:
        region_name = None

        def get_config_variable(self, name: str) -> str:
            assert name == "region"
            return "ap-south-2"

        async def get_credentials(self) -> Any:
            async def frozen(self: Any) -> Any:
                return Frozen()

            return type("C", (), {"get_frozen_credentials": frozen})()

    for session, region in ((Sync(), "ap-south-1"), (Async(), "ap-south-2")):
        request = await sent(plain(session=session, region=NOT_GIVEN))
        assert (
            f"Credential=AKSESSION/{request.headers['x-amz-date'][:8]}/{region}/"
            in (request.headers["authorization"])
        )


# -- where to ----------------------------------------------------------------------------------


def region_of(request: Any) -> str:
    return request.headers["authorization"].split("/bedrock/")[0].rpartition("/")[2]


async def test_regions(nobody: pytest.MonkeyPatch, tmp_path: Any) -> None:
    assert region_of(await sent(bedrock())) == "us-east-1"
    assert region_of(await sent(bedrock(region="eu-west-1"))) == "eu-west-1"
    (tmp_path / "config").write_text("[default]\nregion = eu-north-1\n")
    nothing = bedrock(region=NOT_GIVEN)
    assert region_of(await sent(nothing)) == "eu-north-1"
    nobody.setenv("AWS_DEFAULT_REGION", "sa-east-1")
    assert region_of(await sent(nothing)) == "sa-east-1"
    nobody.setenv("AWS_REGION", "us-west-2")
    assert region_of(await sent(nothing)) == "us-west-2"
    assert region_of(await sent(bedrock())) == "us-east-1"


async def test_no_region(nobody: pytest.MonkeyPatch) -> None:
    async with FaultServer() as server, bedrock(region=NOT_GIVEN)(server.url) as llm:
        with pytest.raises(ConfigurationError, match="AWS_REGION"):
            await llm.chat(chat_ctx=conversation()).collect()
        assert not server.requests


@pytest.mark.parametrize("region", ["us-eest-1", "frankfurt", "eu-west-99", ""])
def test_an_unknown_region(nobody: pytest.MonkeyPatch, region: str) -> None:
    with pytest.raises(ConfigurationError, match="region"):
        aws.LLM(api_key="a", api_secret="b", region=region)


def test_addresses(nobody: pytest.MonkeyPatch) -> None:
    def address(**options: Any) -> str:
        llm = aws.LLM(api_key="a", api_secret="b", **options)
        return llm._address(str(llm._region))

    assert address() == "https://bedrock-runtime.us-east-1.amazonaws.com"
    assert address(region="cn-north-1") == "https://bedrock-runtime.cn-north-1.amazonaws.com.cn"
    named = "https://bedrock-runtime.xx-new-1.amazonaws.com"
    llm = aws.LLM(api_key="a", api_secret="b", base_url=named)
    assert (llm._address("?"), llm._region) == (named, "xx-new-1")
    nobody.setenv("AWS_ENDPOINT_URL", "http://localhost:1/")
    assert address() == "http://localhost:1"
    nobody.setenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", "http://localhost:2")
    assert address() == "http://localhost:2"
    with pytest.raises(ConfigurationError, match="base_url"):
        address(base_url="localhost")


def test_models(nobody: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="BEDROCK_INFERENCE_PROFILE_ARN"):
        aws.LLM(model=NOT_GIVEN)
    nobody.setenv("BEDROCK_INFERENCE_PROFILE_ARN", "arn:x")
    llm = aws.LLM(model=NOT_GIVEN)
    assert llm.model == "arn:x"
    assert llm.provider == "AWS Bedrock"


@pytest.mark.parametrize("status", [400, 403, 404, 413])
async def test_nothing_is_tried_again_that_cannot_get_better(status: int) -> None:
    async with FaultServer() as server, bedrock()(server.url) as llm:
        server.always(Answer(status=status))
        with pytest.raises(APIStatusError) as caught:
            await llm.chat(chat_ctx=conversation()).collect()
        assert caught.value.status_code == status
        assert len(server.requests) == 1
