"""Tools for testing code that uses models.

- `ScriptedLLM`: a model that plays the script of a test.
- `ScriptedRealtimeModel`: the same for speech, in real sessions without a network.
- `RealtimeServer`: a speech-to-speech service that holds a conversation, or misbehaves on command.
- `FaultServer`: a provider on the loopback interface that misbehaves on command, to the byte.
- `record`, `replay` (behind them `RecordingTransport`, `ReplayTransport`): real exchanges kept on
  disk, without secrets, and played back with their timing.
- `record_sessions`, `replay_sessions`: the same for realtime sessions.
- `every_cut`, `outcome`: prove that a decoder's result does not depend on where reads end.
- `check_llm`, `check_decoder`, `check_realtime`: the contract of a model, of a decoder and of a
  realtime model, for authors of providers.
- `check_history`, `assert_legal`: check whether a provider would accept a conversation.
- `no_leaks`, `forbid_network`: find leaked tasks and sockets, and refuse connections to other machines.
- `simulate_policy`: how long users would wait under a fallback policy.
- `rejoinder.testing.soak`: long random use of an LLM that checks every word.

Names are imported when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rejoinder._late import late_names

if TYPE_CHECKING:
    from rejoinder.testing._realtime_google import GeminiConnection
    from rejoinder.testing._realtime_live import LiveConnection
    from rejoinder.testing.chunking import (
        Outcome,
        byte_by_byte,
        every_cut,
        outcome,
        random_cuts,
        sized_cuts,
    )
    from rejoinder.testing.contract import check_decoder, check_llm
    from rejoinder.testing.faults import (
        OUTCOMES,
        Answer,
        Call,
        Fault,
        FaultServer,
        Usage,
        outcome_of,
    )
    from rejoinder.testing.history import IllegalHistoryError, assert_legal, check_history
    from rejoinder.testing.leaks import LeakError, measure_memory, no_leaks
    from rejoinder.testing.network import NetworkForbiddenError, forbid_network
    from rejoinder.testing.policy import (
        PolicyReport,
        SimulatedModel,
        log_normal,
        simulate_policy,
    )
    from rejoinder.testing.realtime_connection import RealtimeConnection, ServerCall, ServerReply
    from rejoinder.testing.realtime_contract import check_realtime
    from rejoinder.testing.realtime_faults import (
        REALTIME_OUTCOMES,
        RealtimeFault,
        RealtimeOutcome,
    )
    from rejoinder.testing.realtime_playing import (
        ReplaySocketTransport,
        SessionPlayer,
        replay_sessions,
    )
    from rejoinder.testing.realtime_recording import (
        RecordingSocketTransport,
        SessionEvent,
        SessionRecording,
        load_session,
        load_sessions,
        record_sessions,
        save_session,
    )
    from rejoinder.testing.realtime_server import RealtimeServer
    from rejoinder.testing.realtime_service import RealtimeService
    from rejoinder.testing.recording import (
        Exchange,
        RecordingTransport,
        load_exchange,
        load_exchanges,
        record,
        save_exchange,
        zip_exchanges,
    )
    from rejoinder.testing.replaying import ReplayMismatchError, ReplayTransport, replay
    from rejoinder.testing.scripted import ScriptedLLM, ScriptExhaustedError
    from rejoinder.testing.scripted_realtime import ScriptedRealtimeModel, ScriptedRequest

_PLACES = {
    "chunking": (
        "Outcome",
        "byte_by_byte",
        "every_cut",
        "outcome",
        "random_cuts",
        "sized_cuts",
    ),
    "contract": ("check_decoder", "check_llm"),
    "faults": ("OUTCOMES", "Answer", "Call", "Fault", "FaultServer", "Usage", "outcome_of"),
    "history": ("IllegalHistoryError", "assert_legal", "check_history"),
    "leaks": ("LeakError", "measure_memory", "no_leaks"),
    "network": ("NetworkForbiddenError", "forbid_network"),
    "policy": ("PolicyReport", "SimulatedModel", "log_normal", "simulate_policy"),
    "_realtime_google": ("GeminiConnection",),
    "_realtime_live": ("LiveConnection",),
    "realtime_connection": ("RealtimeConnection", "ServerCall", "ServerReply"),
    "realtime_contract": ("check_realtime",),
    "realtime_faults": ("REALTIME_OUTCOMES", "RealtimeFault", "RealtimeOutcome"),
    "realtime_playing": ("ReplaySocketTransport", "SessionPlayer", "replay_sessions"),
    "realtime_recording": (
        "RecordingSocketTransport",
        "SessionEvent",
        "SessionRecording",
        "load_session",
        "load_sessions",
        "record_sessions",
        "save_session",
    ),
    "realtime_server": ("RealtimeServer",),
    "realtime_service": ("RealtimeService",),
    "recording": (
        "Exchange",
        "RecordingTransport",
        "load_exchange",
        "load_exchanges",
        "record",
        "save_exchange",
        "zip_exchanges",
    ),
    "replaying": ("ReplayMismatchError", "ReplayTransport", "replay"),
    "scripted": ("ScriptExhaustedError", "ScriptedLLM"),
    "scripted_realtime": ("ScriptedRealtimeModel", "ScriptedRequest"),
}
_HOMES = {name: module for module, names in _PLACES.items() for name in names}

__all__ = [
    "OUTCOMES",
    "REALTIME_OUTCOMES",
    "Answer",
    "Call",
    "Exchange",
    "Fault",
    "FaultServer",
    "GeminiConnection",
    "IllegalHistoryError",
    "LeakError",
    "LiveConnection",
    "NetworkForbiddenError",
    "Outcome",
    "PolicyReport",
    "RealtimeConnection",
    "RealtimeFault",
    "RealtimeOutcome",
    "RealtimeServer",
    "RealtimeService",
    "RecordingSocketTransport",
    "RecordingTransport",
    "ReplayMismatchError",
    "ReplaySocketTransport",
    "ReplayTransport",
    "ScriptExhaustedError",
    "ScriptedLLM",
    "ScriptedRealtimeModel",
    "ScriptedRequest",
    "ServerCall",
    "ServerReply",
    "SessionEvent",
    "SessionPlayer",
    "SessionRecording",
    "SimulatedModel",
    "Usage",
    "assert_legal",
    "byte_by_byte",
    "check_decoder",
    "check_history",
    "check_llm",
    "check_realtime",
    "every_cut",
    "forbid_network",
    "load_exchange",
    "load_exchanges",
    "load_session",
    "load_sessions",
    "log_normal",
    "measure_memory",
    "no_leaks",
    "outcome",
    "outcome_of",
    "random_cuts",
    "record",
    "record_sessions",
    "replay",
    "replay_sessions",
    "save_exchange",
    "save_session",
    "simulate_policy",
    "sized_cuts",
    "zip_exchanges",
]


__getattr__, __dir__ = late_names(__name__, _HOMES)
