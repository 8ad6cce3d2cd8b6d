"""Sessions over the Live API, against a server that refuses what the real one refuses."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from providers.google.live import connection, gemini_server, sent, talking, until
from providers.sessions.driving import read, texts
from rejoinder.llm import ChatContext, FunctionCallOutput, function_tool
from rejoinder.llm.realtime import RealtimeError
from rejoinder.media import AudioFrame
from rejoinder.providers.google.realtime import RealtimeModel
from rejoinder.testing import ServerCall, ServerReply, check_realtime, no_leaks


def sound(ms: int = 100, value: int = 0) -> AudioFrame:
    return AudioFrame(bytes([value]) * (32 * ms), 16000, 1, 16 * ms)


@function_tool
async def weather(city: str) -> str:
    """Tell the weather.

    Args:
        city: where
    """
    return city


async def test_a_reply_is_spoken() -> None:
    async with gemini_server() as server:
        server.say("Hello there.", ms=200)
        async with no_leaks(), talking(server, instructions="Be brief.") as (session, seen):
            event = await session.generate_reply()
            assert await read(event) == ("Hello there.", 400, [])
            assert event.user_initiated
            assert event.outcome is not None
            assert await event.outcome == "completed"
            assert texts(session) == [("assistant", "Hello there.")]
            await until(lambda: any(m.total_tokens for m in seen.named("metrics_collected")))
            told = [m for m in seen.named("metrics_collected") if m.request_id]
            assert [(m.input_tokens, m.output_tokens) for m in told] == [(20, 10)]
            assert told[0].input_token_details.audio_tokens == 15
        assert connection(server).setup == {
            "model": "models/gemini-3.8-live",
            "generationConfig": {
                "candidateCount": 1,
                "responseModalities": ["AUDIO"],
                "speechConfig": {"voiceConfig": {"prebuiltVoiceConfig": {"voiceName": "Puck"}}},
            },
            "systemInstruction": {"parts": [{"text": "Be brief."}]},
            "inputAudioTranscription": {},
            "outputAudioTranscription": {},
            "sessionResumption": {},
        }
        assert server.requests[0].path == (
            "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent"
        )
        assert server.requests[0].headers["x-goog-api-key"] == "any"


async def test_what_is_sent_is_understood() -> None:
    from providers.google.accepting import check_messages

    async with gemini_server() as server:
        async with talking(
            server,
            context_window_compression={"trigger_tokens": 1000, "sliding_window": {}},
            realtime_input_config={"turn_coverage": "TURN_INCLUDES_ALL_INPUT"},
            language="en-US",
            temperature=0.3,
            tool_response_scheduling="WHEN_IDLE",
            gemini_tools=["google_search"],
        ) as (session, _):
            await session.update_tools([weather])
            chat_ctx = ChatContext.empty()
            chat_ctx.add_message(role="system", content="You are kind.")
            chat_ctx.add_message(role="user", content="Hi.")
            chat_ctx.add_message(role="assistant", content="Hello.")
            await session.update_chat_ctx(chat_ctx)
            server.reply(ServerReply(["One moment."], calls=[ServerCall("weather")]))
            event = await session.generate_reply()
            session.push_audio(sound())
            assert (await read(event))[2] == ["weather"]
            chat_ctx = session.chat_ctx
            chat_ctx.items.append(FunctionCallOutput(call_id="call_1", output="", is_error=False))
            await session.update_chat_ctx(chat_ctx)
            await until(lambda: connection(server).results)
        check_messages(connection(server).events)
        (tool,) = connection(server).setup["tools"][1]["functionDeclarations"]
        assert tool == {
            "name": "weather",
            "description": "Tell the weather.\n",
            "parameters": {
                "type": "OBJECT",
                "properties": {"city": {"type": "STRING", "description": "where"}},
                "required": ["city"],
            },
        }
        (result,) = connection(server).results
        assert result == {
            "id": "call_1",
            "name": "weather",
            "response": {"status": "succeeded", "result": None, "retryable": False},
            "scheduling": "WHEN_IDLE",
        }


async def test_items_are_given_without_starting_a_reply() -> None:
    async with gemini_server() as server, talking(server) as (session, seen):
        await session.generate_reply()
        chat_ctx = session.chat_ctx
        chat_ctx.add_message(role="user", content="My name is Alice.")
        await session.update_chat_ctx(chat_ctx)
        await until(lambda: ("user", "My name is Alice.") in connection(server).said)
        assert len(seen.named("generation_created")) == 1
        assert sent(connection(server), "clientContent")[-1]["turnComplete"] is False


@pytest.mark.parametrize(
    ("model", "frame"),
    [
        ("gemini-3.8-live", {"clientContent": {"turnComplete": True}}),
        (
            "gemini-2.5-flash-native-audio-latest",
            {
                "clientContent": {
                    "turns": [{"role": "user", "parts": [{"text": "."}]}],
                    "turnComplete": True,
                }
            },
        ),
        (
            "gemini-3.1-flash-live-preview",
            {"realtimeInput": {"text": "<instructions>\nAnswer now.\n</instructions>"}},
        ),
    ],
)
async def test_a_reply_is_asked_for_as_the_model_wants(model: str, frame: dict[str, Any]) -> None:
    async with gemini_server() as server, talking(server, model=model) as (session, _):
        assert (await read(await session.generate_reply()))[0] == "Hello."
        assert connection(server).events[-1] == frame


async def test_typed_text_is_answered_once() -> None:
    for model in ("gemini-3.8-live", "gemini-2.5-flash-native-audio-x", "gemini-3.1-flash-live-x"):
        async with gemini_server() as server, talking(server, model=model) as (session, seen):
            await read(await session.generate_reply())
            chat_ctx = session.chat_ctx
            chat_ctx.add_message(role="user", content="Who are you?")
            await session.update_chat_ctx(chat_ctx)
            server.say("Nobody.")
            assert (await read(await session.generate_reply()))[0] == "Nobody."
            roles = [role for role, text in connection(server).said if text == "Who are you?"]
            assert roles == ["user"], model
            assert len(seen.named("generation_created")) == 2


async def test_a_call_that_the_model_waits_for_ends_a_reply() -> None:
    async with (
        gemini_server() as server,
        talking(server, tool_behavior="BLOCKING") as (session, seen),
    ):
        await session.update_tools([weather])
        server.reply(
            ServerReply(
                ["Let me look."],
                calls=[
                    ServerCall("weather", '{"city": "Rome"}'),
                    ServerCall("weather", "{}", "c2"),
                ],
            )
        )
        event = await session.generate_reply()
        assert await read(event) == ("Let me look.", 100, ["weather", "weather"])
        server.say("It is sunny.")
        for call_id in ("call_1", "c2"):
            assert not connection(server).results
            chat_ctx = session.chat_ctx
            chat_ctx.items.append(
                FunctionCallOutput(call_id=call_id, output="sunny", is_error=False)
            )
            await session.update_chat_ctx(chat_ctx)
        await until(lambda: len(seen.named("generation_created")) == 2)
        event = seen.named("generation_created")[1]
        assert (await read(event))[0] == "It is sunny."
        assert not event.user_initiated
        assert len(sent(connection(server), "toolResponse")) == 1
        kinds = [item.type for item in session.chat_ctx.items]
        assert kinds == [
            "message",
            *["function_call"] * 2,
            *["function_call_output"] * 2,
            "message",
        ]


async def test_a_request_after_a_result_gets_the_reply_that_comes_anyway() -> None:
    async with (
        gemini_server() as server,
        talking(server, tool_behavior="BLOCKING") as (session, seen),
    ):
        await session.update_tools([weather])
        server.reply(ServerReply(calls=[ServerCall("weather")]))
        await read(await session.generate_reply())
        chat_ctx = session.chat_ctx
        chat_ctx.items.append(FunctionCallOutput(call_id="call_1", output="x", is_error=False))
        await session.update_chat_ctx(chat_ctx)
        server.say("It is x.")
        assert (await read(await session.generate_reply()))[0] == "It is x."
        assert len(seen.named("generation_created")) == 2


async def test_what_the_service_cancelled_is_not_answered() -> None:
    async with gemini_server() as server, talking(server) as (session, _):
        await session.update_tools([weather])
        server.reply(ServerReply(calls=[ServerCall("weather")]))
        await read(await session.generate_reply())
        await connection(server).cancel_calls("call_1")
        for _ in range(20):
            await asyncio.sleep(0)
        chat_ctx = session.chat_ctx
        chat_ctx.items.append(FunctionCallOutput(call_id="call_1", output="x", is_error=False))
        await session.update_chat_ctx(chat_ctx)
        await read(await session.generate_reply())
        assert not connection(server).results
        assert session.chat_ctx.items[-2].type == "function_call_output"


async def test_the_users_words_stand_before_the_answer_and_are_final_once() -> None:
    async with gemini_server() as server, talking(server) as (session, seen):
        await session.generate_reply()
        await until(lambda: connection(server).speaking is None)
        session.push_audio(sound())
        await connection(server).speech("How are you?")
        await connection(server).begin_reply(ServerReply(["Fine."]))
        await until(lambda: len(seen.named("generation_created")) == 2)
        event = seen.named("generation_created")[1]
        assert not event.user_initiated
        assert (await read(event))[0] == "Fine."
        assert texts(session)[-2:] == [("user", "How are you?"), ("assistant", "Fine.")]
        told = seen.named("input_audio_transcription_completed")
        assert [(t.transcript, t.is_final) for t in told] == [
            ("How", False),
            ("How are", False),
            ("How are you?", False),
            ("How are you?", True),
        ]
        assert len(seen.named("input_speech_started")) == 1
        assert len(seen.named("input_speech_stopped")) == 1


async def test_the_user_cuts_the_model_off() -> None:
    for model in ("gemini-3.8-live", "gemini-2.5-flash-native-audio-latest"):
        async with gemini_server() as server, talking(server, model=model) as (session, seen):
            server.reply(ServerReply(["A long "], hold=True))
            event = await session.generate_reply()
            await until(lambda: session.chat_ctx.items)
            await connection(server).speech("Stop!")
            assert event.outcome is not None
            assert await event.outcome == "cancelled"
            await connection(server).begin_reply(ServerReply(["Yes?"]))
            await until(lambda: len(seen.named("generation_created")) == 2)
            await read(seen.named("generation_created")[1])
            assert texts(session) == [
                ("assistant", "A long "), ("user", "Stop!"), ("assistant", "Yes?"),
            ], model  # fmt: skip
            assert len(seen.named("input_speech_started")) == 1
            finals = [
                t.transcript
                for t in seen.named("input_audio_transcription_completed")
                if t.is_final
            ]
            assert finals == ["Stop!"]


async def test_thoughts_are_not_spoken() -> None:
    async with gemini_server() as server, talking(server) as (session, seen):
        await session.generate_reply()
        await until(lambda: connection(server).speaking is None)
        conn = connection(server)
        thought = {"text": "The user is rude.", "thought": True}
        await conn.send_message(serverContent={"modelTurn": {"parts": [thought]}})
        await conn.begin_reply(ServerReply(["Hi."]))
        await until(lambda: len(seen.named("generation_created")) == 2)
        assert (await read(seen.named("generation_created")[1]))[0] == "Hi."


async def test_text_alone() -> None:
    async with (
        gemini_server() as server,
        talking(server, model="gemini-live-2.5-flash", modalities=["TEXT"]) as (session, _),
    ):
        assert await read(await session.generate_reply()) == ("Hello.", 0, [])
        assert not session.capabilities.audio_output


async def test_a_turn_without_a_word_fails_the_request() -> None:
    async with gemini_server() as server, talking(server) as (session, _):

        async def refuse(conn: Any, event: dict[str, Any]) -> bool:
            if "clientContent" not in event:
                return False
            end = {"turnComplete": True, "turnCompleteReason": "MALFORMED_FUNCTION_CALL"}
            await conn.send_message(serverContent=end)
            return True

        server.on_event = refuse
        with pytest.raises(RealtimeError, match="MALFORMED_FUNCTION_CALL"):
            await session.generate_reply()


async def test_manual_turns() -> None:
    async with (
        gemini_server() as server,
        talking(
            server, realtime_input_config={"automatic_activity_detection": {"disabled": True}}
        ) as (session, seen),
    ):
        assert not session.capabilities.turn_detection
        await until(lambda: server.connections and connection(server).setup)
        session.push_audio(sound(200))
        server.say("I heard you.")
        session.commit_audio()
        assert (await read(await session.generate_reply()))[0] == "I heard you."
        inputs = [next(iter(e)) for e in sent(connection(server), "realtimeInput")]
        assert inputs == ["activityStart", "activityEnd"]
        assert len(connection(server).audio) == 200 * 32
        assert [item.type for item in session.chat_ctx.items] == ["message", "message"]
        assert len(seen.named("generation_created")) == 1


@pytest.mark.parametrize(
    "model", ["gemini-3.8-live", "gemini-3.1-flash-live", "gemini-2.5-flash-native-audio"]
)
async def test_the_contract_of_realtime_models_is_kept(model: str) -> None:
    async with gemini_server() as server:
        url = server.url.removesuffix("/v1")
        await check_realtime(lambda: RealtimeModel(model=model, base_url=url, api_key="any"))
