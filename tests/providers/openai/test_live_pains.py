"""The contract of realtime models, in sessions of the Live API; what the ends of its connections do;
and the pains of users that concern a full-duplex model. Single faults are in
``testing/test_realtime_faults``."""

from __future__ import annotations

import asyncio
import importlib
from typing import Any

import pytest

from providers.openai.duplex import Checked, connection, live_service, talking, told, until
from providers.sessions.driving import read, sound, texts
from rejoinder.llm import RealtimeModelFallbackAdapter
from rejoinder.llm.realtime import RealtimeError
from rejoinder.providers.openai.live import GPTLiveModel
from rejoinder.testing import (
    LiveConnection,
    RealtimeServer,
    ScriptedLLM,
    ServerCall,
    ServerReply,
    check_realtime,
)
from rejoinder.types import APIConnectOptions

OPTIONS = APIConnectOptions(max_retry=2, retry_interval=0.1)


@pytest.mark.looptime
async def test_the_contract_of_realtime_models() -> None:
    service = live_service()
    for _ in range(40):
        service.say("Hello there.")
    transport = service.transport()
    await check_realtime(lambda: GPTLiveModel(transport=transport, api_key="any"))
    await service.aclose()


async def test_the_same_over_a_network() -> None:
    async with RealtimeServer(connection=Checked) as server:
        server.say("One two three.")
        model = GPTLiveModel(
            base_url=server.url, api_key="key", service_tier="priority", conn_options=OPTIONS
        )
        assert (await read(await model.session().generate_reply()))[0] == "One two three."
        await model.aclose()
    (request,) = server.requests
    assert request.path == "/v1/live/sessions"
    assert request.headers["Authorization"] == "Bearer key"
    assert request.headers["OpenAI-Service-Tier"] == "priority"


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1006, 1007, 1008, 1011, 1012, 4000])
@pytest.mark.looptime
async def test_a_close_with_each_code_before_and_after_the_beginning(code: int) -> None:
    service = live_service()
    async with talking(service, conn_options=OPTIONS) as (session, seen):
        service.say("First.")
        await read(await session.generate_reply())
        await connection(service).close(code, "so it is")
        service.say("Second.")
        assert (await read(await session.generate_reply()))[0] == "Second."
        assert all(error.recoverable for error in seen.named("error"))

    service = live_service()

    async def refuse(made: Any) -> None:
        await made.close(code, "so it is")

    service.on_connect = refuse
    async with talking(service, conn_options=OPTIONS) as (session, seen):
        with pytest.raises(RealtimeError):
            await session.connected()
        (fatal,) = [error for error in seen.named("error") if not error.recoverable]
        assert "so it is" in str(fatal.error)
        assert len(service.connections) <= 3


@pytest.mark.looptime
async def test_many_ends_in_a_row_lose_and_repeat_no_item() -> None:
    service = live_service()
    async with asyncio.timeout(600), talking(service, conn_options=OPTIONS) as (session, seen):
        expected: list[tuple[str, str]] = []
        for number in range(60):
            service.say(f"Reply {number}.")
            await read(await session.generate_reply())
            expected.append(("assistant", f"Reply {number}."))
            live = connection(service)
            match number % 3:
                case 0:
                    await live.end_session("expired")
                case 1:
                    live.drop()
                case _:
                    await live.close(1001, "Your session hit the maximum duration.")
        service.say("The last.")
        await read(await session.generate_reply())
        assert texts(session) == [*expected, ("assistant", "The last.")]
        told_at_the_end = [text for role, text in connection(service).said if role == "assistant"]
        assert told_at_the_end == [text for _, text in texts(session)]
        assert all(error.recoverable for error in seen.named("error"))


@pytest.mark.looptime
async def test_the_users_sound_arrives_once_over_a_swap() -> None:
    service = live_service()
    async with talking(service) as (session, _):
        await read(await session.generate_reply())
        live = connection(service)
        await live.words_of_user("I want")
        await until(lambda: texts(session))
        for number in range(1, 11):
            session.push_audio(sound(100, number))
        await until(lambda: len(live.audio) >= 10 * 4800)
        live.drop()
        for number in range(11, 21):
            session.push_audio(sound(100, number))
        await until(lambda: len(service.connections) == 2 and len(connection(service).audio))
        await asyncio.sleep(1)
        heard = bytes(connection(service).audio)
        numbers = [heard[at] for at in range(0, len(heard), 4800)]
        assert numbers == sorted(set(numbers))
        assert numbers[-10:] == list(range(11, 21))


@pytest.mark.looptime
async def test_a_call_that_is_told_twice_runs_once() -> None:
    service = live_service()
    async with talking(service) as (session, seen):
        await session.connected()
        live = connection(service)
        await live.call(ServerCall("tool", "{}", "a"))
        await live.call(ServerCall("tool", "{}", "a"))
        await until(lambda: seen.named("function_call"))
        await asyncio.sleep(1)
        assert len(seen.named("function_call")) == 1


@pytest.mark.looptime
async def test_a_quarter_of_an_hour_of_silence_leaves_nothing_behind() -> None:
    service = live_service()
    async with talking(service) as (session, seen):
        await session.connected()
        live = connection(service)
        for _ in range(90):
            await live.silence(10_000)
            await asyncio.sleep(0)
        await until(lambda: True)
        assert not seen.named("generation_created")
        assert session.chat_ctx.items == []
        assert len(service.connections) == 1


@pytest.mark.looptime
async def test_a_service_that_answers_no_ping_stays_connected() -> None:
    service = live_service()
    async with talking(service) as (session, seen):
        await session.connected()
        live = connection(service)
        for _ in range(60):
            await asyncio.sleep(1)
            session.push_audio(sound())
            await live.silence(1000)
        assert not seen.named("session_reconnected")


@pytest.mark.looptime
async def test_the_silence_of_the_application_is_no_reason_to_hang_up() -> None:
    service = live_service()
    async with talking(service) as (session, seen):
        await session.connected()
        await asyncio.sleep(60)
        assert len(service.connections) == 1
        await read(await session.generate_reply())
        assert not seen.named("error")


@pytest.mark.looptime
async def test_a_request_beside_the_speech_of_the_model_waits_for_its_end() -> None:
    service = live_service()
    async with talking(service) as (session, seen):
        await session.connected()
        live = connection(service)
        await live.begin_reply(ServerReply(["Mine first."], hold=True))
        await until(lambda: seen.named("generation_created"))
        service.say("Yours second.")
        future = session.generate_reply()
        await asyncio.sleep(1)
        assert not told(live, "commentary")
        live.release()
        assert (await read(await future))[0] == "Yours second."


PAINS = {
    "a request races the service's own reply": "test_a_request_beside_the_speech_of_the_model_waits_for_its_end",
    "the cap ends the call": "test_many_ends_in_a_row_lose_and_repeat_no_item",
    "an announced end cuts a sentence": "test_the_users_sound_arrives_once_over_a_swap",
    "keep-alive kills slow but healthy sockets": "test_a_service_that_answers_no_ping_stays_connected",
    "a call runs twice": "test_a_call_that_is_told_twice_runs_once",
    "memory grows with the call": "test_a_quarter_of_an_hour_of_silence_leaves_nothing_behind",
    "a wrong model is a loop or silence": "test_a_close_with_each_code_before_and_after_the_beginning",
    "the silence of the application": "test_the_silence_of_the_application_is_no_reason_to_hang_up",
}
IN_FAULTS = {"a half-open socket is mute for ever": "test_a_fault_and_what_comes_of_it"}
IN_SESSIONS = {
    "an interrupt loses the result of a tool": "test_calls_of_the_backend_run_once_and_the_batch_is_answered_whole",
    "words are kept that nobody heard": "test_truncating_cuts_the_own_copy_by_the_times_of_the_words",
    "the user's words stand behind the answer": "test_the_user_stands_before_the_answer_also_when_both_speak",
    "a partial transcript is taken for the final one": "test_what_the_user_says_is_one_turn",
    "typed text is answered twice": "test_typed_text_is_told_and_answered_once",
    "what is given late is left out": "test_what_is_given_late_is_in_force",
    "an end that was no success is not told": "test_a_response_that_fails_calls_nothing",
}


PLACES = {
    __name__: PAINS,
    "testing.test_realtime_faults": IN_FAULTS,
    "providers.openai.test_live": IN_SESSIONS,
}


@pytest.mark.parametrize("place", PLACES)
def test_every_pain_has_its_test(place: str) -> None:
    module = importlib.import_module(place)
    for test in PLACES[place].values():
        assert callable(getattr(module, test))


def test_the_server_of_the_tests_is_public() -> None:
    assert issubclass(Checked, LiveConnection)


@pytest.mark.looptime
async def test_one_conversation_over_two_full_duplex_models_and_text() -> None:
    services = [live_service(), live_service()]
    services[0].say("I am the first.")
    services[1].say("I am the second.")
    transports = [service.transport() for service in services]
    text = ScriptedLLM("I have no voice.")
    adapter = RealtimeModelFallbackAdapter(
        [GPTLiveModel(transport=made, api_key="any", conn_options=OPTIONS) for made in transports],
        text=text,
    )
    session = adapter.session()
    try:
        await session.update_instructions("Be brief.")
        assert (await read(await session.generate_reply()))[0] == "I am the first."
        await connection(services[0]).error("No.", code="insufficient_quota")
        await until(lambda: services[1].connections)
        assert (await read(await session.generate_reply()))[0] == "I am the second."
        second = connection(services[1])
        assert second.start["instructions"] == "Be brief."
        assert second.said[0] == ("assistant", "I am the first.")
        await second.error("No.", code="insufficient_quota")
        await asyncio.sleep(1)
        assert (await read(await session.generate_reply()))[0] == "I have no voice."
        said = [item.text_content for item in text.calls[0].chat_ctx.messages()]
        assert said[-2:] == ["I am the first.", "I am the second."]
    finally:
        await session.aclose()
        await adapter.aclose()
        for transport in transports:
            await transport.aclose()
        for service in services:
            await service.aclose()
