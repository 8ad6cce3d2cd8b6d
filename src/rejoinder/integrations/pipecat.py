"""`rejoinder` models in Pipecat pipelines, 1.14 or newer.

    from rejoinder.integrations.pipecat import LLMService

    pipeline = Pipeline([..., aggregators.user(), LLMService(any_rejoinder_llm), ...])

Raises:
    ImportError: ``pipecat-ai`` is missing or too old.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from rejoinder import errors
from rejoinder._core.arguments import parse_arguments
from rejoinder._core.tools import ToolError
from rejoinder.integrations._replies import (
    ReplyState,
    StateMemory,
    check_llm,
    declare_tool,
    framework_version,
    last_failure,
    refuse_unknown_parts,
)

framework_version("pipecat-ai", at_least=(1, 14, 0), extra="pipecat")

from pipecat.adapters.llm.base_llm_adapter import LLMContextConversionError  # noqa: E402
from pipecat.adapters.llm.services.open_ai_adapter import OpenAILLMAdapter  # noqa: E402
from pipecat.frames.frames import (  # noqa: E402
    Frame,
    FunctionCallFromLLM,
    LLMContextFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMThoughtEndFrame,
    LLMThoughtStartFrame,
    LLMThoughtTextFrame,
)
from pipecat.metrics.metrics import LLMTokenUsage  # noqa: E402
from pipecat.processors.frame_processor import FrameDirection  # noqa: E402
from pipecat.services.llm_service import LLMService as _LLMService  # noqa: E402
from pipecat.services.settings import LLMSettings  # noqa: E402
from pipecat.utils.errors import ErrorCategory  # noqa: E402
from pipecat.utils.tracing import service_decorators  # noqa: E402
from pipecat.utils.types import NOT_GIVEN, is_given  # noqa: E402

from rejoinder.llm.chat_context import ChatContext  # noqa: E402
from rejoinder.llm.llm import LLM, CompletionUsage, FunctionToolCall, LLMStream  # noqa: E402
from rejoinder.types import DEFAULT_API_CONNECT_OPTIONS, APIConnectOptions  # noqa: E402

__all__ = ["LLMService"]

_traced = cast("Any", service_decorators).traced_llm  # it is not typed

_SETTINGS = (
    "temperature",
    "max_tokens",
    "top_p",
    "top_k",
    "frequency_penalty",
    "presence_penalty",
    "seed",
)


class LLMService(_LLMService[OpenAILLMAdapter]):
    """Any `rejoinder` model as an LLM service of Pipecat.

    Takes context frames, pushes text, thoughts and function calls, and works with registered
    functions, direct functions and Pipecat's context aggregators. An interruption closes the reply
    at once. Retries, deadlines, hedging and fallback are those of `llm`. If a fallback restarts a
    broken reply, the words before the break were already spoken, and they stay. `llm` stays open when
    the pipeline ends, so that many pipelines can share it and its connections; close it yourself.

    Args:
        llm: the model.
        settings: Pipecat's settings; `model`, if given, must be the name of `llm`.
        conn_options: deadlines and retries of requests.
        kwargs: for Pipecat's ``LLMService``.

    Raises:
        TypeError: `llm` is not a `rejoinder` model.
        ValueError: `settings` names another model.
    """

    supports_response_schema = True

    def __init__(
        self,
        llm: LLM[Any],
        *,
        settings: LLMSettings | None = None,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
        **kwargs: Any,
    ) -> None:
        self._llm = check_llm(llm, "integrations.pipecat.LLMService", conn_options)
        merged = LLMSettings(
            model=llm.model,
            system_instruction=None,
            temperature=None,
            max_tokens=None,
            top_p=None,
            top_k=None,
            frequency_penalty=None,
            presence_penalty=None,
            seed=None,
            filter_incomplete_user_turns=False,
            user_turn_completion_config=None,
            extra={},
        )
        if settings is not None:
            if (other := self._other_model(settings)) is not None:
                raise ValueError(other)
            merged.apply_update(settings)
        cast("Any", super()).__init__(settings=merged, **kwargs)  # theirs is not typed
        self._conn_options = conn_options
        self._memory = StateMemory()

    def can_generate_metrics(self) -> bool:
        return True

    def _other_model(self, settings: LLMSettings) -> str | None:
        """The error text if `settings` name another model."""
        name = settings.model
        if not is_given(name) or name in (None, self._llm.model):
            return None
        return (
            f"integrations.pipecat.LLMService: settings.model is {name!r}, but the model of this "
            f"service is {self._llm.model!r}; make a service of the other model"
        )

    async def _update_settings(self, delta: LLMSettings) -> dict[str, Any]:
        if (other := self._other_model(delta)) is not None:
            await self.push_error(error_msg=other, category=ErrorCategory.APPLICATION)
            delta = replace(delta, model=NOT_GIVEN)
        return await super()._update_settings(delta)

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if not isinstance(frame, LLMContextFrame):
            await self.push_frame(frame, direction)
            return
        try:
            await self.push_frame(LLMFullResponseStartFrame())
            await self.start_processing_metrics()
            await self._process_context(frame.context)
        except errors.APITimeoutError as error:
            await cast("Any", self)._call_event_handler("on_completion_timeout")
            await self.push_error(error_msg=f"LLM completion timeout: {error}", exception=error)
        except errors.APIError as error:
            await self._push_failure(*self._judged(last_failure(error), frame))
        except (errors.ConfigurationError, LLMContextConversionError) as error:
            # Nothing was sent: the context, the tools or the settings cannot be passed on.
            frame.context.remove_invalid_file_message()
            await self._push_failure(error, ErrorCategory.APPLICATION)
        except Exception as error:
            await self._push_failure(error, ErrorCategory.UNKNOWN)
        finally:
            await self.stop_processing_metrics()
            await self.push_frame(LLMFullResponseEndFrame())

    def _judged(
        self, error: errors.APIError, frame: LLMContextFrame
    ) -> tuple[Exception, ErrorCategory | None]:
        """A failure, and its category where Pipecat cannot find it by the status.

        As with Pipecat's own services, a picture or file that a provider refuses is taken out of the
        conversation, and does not count as a fault of the service.
        """
        if not isinstance(error, errors.APIStatusError):
            return error, None
        if error.status_code in (400, 413, 422) and frame.context.remove_invalid_file_message():
            return error, ErrorCategory.APPLICATION
        return error, None

    async def _push_failure(self, error: Exception, category: ErrorCategory | None) -> None:
        await self.push_error(
            error_msg=f"Error during completion: {error}", exception=error, category=category
        )

    async def run_inference(
        self,
        context: Any,
        max_tokens: int | None = None,
        system_instruction: str | None = None,
        response_schema: dict[str, Any] | None = None,
    ) -> str | None:
        """One reply outside the pipeline: its text, or ``None`` if it has none."""
        arguments: dict[str, Any] = {}
        schema = self._check_response_schema(response_schema)
        if schema is not None:
            arguments["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "response", "schema": schema, "strict": True},
            }
        stream = await self._ask(context, system_instruction, max_tokens, arguments)
        return (await stream.collect()).text or None

    @_traced
    async def _process_context(self, context: Any) -> None:
        await self.start_ttfb_metrics()
        self._log_llm_response(context)
        state = ReplyState()
        calls: list[FunctionToolCall] = []
        counted: CompletionUsage | None = None
        thinking = False
        waiting = True
        try:
            async with await self._ask(context, None, None, {}) as stream:
                async for chunk in stream:
                    if chunk.usage is not None:
                        counted = chunk.usage
                    delta = chunk.delta
                    if delta is None:
                        continue
                    text = state.add(delta)
                    if waiting and (text or delta.thinking or delta.tool_calls):
                        waiting = False
                        await self.stop_ttfb_metrics()
                    if delta.thinking:
                        if not thinking:
                            thinking = True
                            await self.push_frame(LLMThoughtStartFrame())
                        await self.push_frame(LLMThoughtTextFrame(delta.thinking))
                    if thinking and (text or delta.tool_calls):
                        thinking = False
                        await self.push_frame(LLMThoughtEndFrame())
                    if text:
                        await self._push_llm_text(text)
                    if delta.tool_calls:
                        await self.stop_ttfat_metrics()
                        calls += delta.tool_calls
        finally:
            self._memory.remember(state)
            if counted is not None:
                await self.start_llm_usage_metrics(_usage(counted))
        made = [call for call in [await self._call(call, context) for call in calls] if call]
        if made:
            await self.run_function_calls(made)

    async def _call(self, call: FunctionToolCall, context: Any) -> FunctionCallFromLLM | None:
        self._memory.remember_call(call.call_id, call.extra)
        try:
            arguments = parse_arguments(call.arguments or "{}", tool=call.name)
        except ToolError as error:
            # Like Pipecat's own services, do not run a function with arguments that the model did not write.
            await self._push_failure(error, None)
            return None
        return FunctionCallFromLLM(
            context=context,
            tool_call_id=call.call_id,
            function_name=call.name,
            arguments=arguments,
        )

    async def _ask(
        self,
        context: Any,
        system_instruction: str | None,
        max_tokens: int | None,
        arguments: dict[str, Any],
    ) -> LLMStream:
        instruction = system_instruction
        if instruction is None:
            given = self._settings.system_instruction
            instruction = given if isinstance(given, str) else None
        params = await self.get_llm_adapter().get_llm_invocation_params(
            context, system_instruction=instruction, convert_developer_to_user=False
        )
        try:
            chat_ctx = ChatContext.from_provider_format("openai", params["messages"])
        except ValueError as error:
            raise errors.ConfigurationError(f"integrations.pipecat.LLMService: {error}") from error
        refuse_unknown_parts(chat_ctx.items, "integrations.pipecat.LLMService")
        self._memory.restore(chat_ctx.items)
        extra: dict[str, Any] = {}
        for name in _SETTINGS:
            value = getattr(self._settings, name)
            if is_given(value) and value is not None:
                extra[name] = value
        if is_given(self._settings.extra):
            extra.update(self._settings.extra or {})
        if max_tokens is not None:
            extra["max_tokens"] = max_tokens
        if extra:
            arguments["extra_kwargs"] = extra
        choice: Any = params["tool_choice"]
        if isinstance(choice, str | dict):
            arguments["tool_choice"] = choice
        tools: Any = params["tools"]
        return self._llm.chat(
            chat_ctx=chat_ctx,
            tools=[_declared(tool) for tool in _listed(tools)],
            conn_options=self._conn_options,
            **arguments,
        )


def _listed(tools: Any) -> list[dict[str, Any]]:
    return cast("list[dict[str, Any]]", tools) if isinstance(tools, list) else []


def _declared(tool: dict[str, Any]) -> Any:
    function: Any = tool.get("function")
    if not isinstance(function, dict):
        raise errors.ConfigurationError(
            f"integrations.pipecat.LLMService: a tool of the type {tool.get('type')!r} cannot be "
            "passed on; use function schemas or direct functions"
        )
    held = cast("dict[str, Any]", function)
    return declare_tool(held["name"], held.get("description"), held.get("parameters"))


def _usage(counted: CompletionUsage) -> LLMTokenUsage:
    return LLMTokenUsage(
        prompt_tokens=counted.prompt_tokens,
        completion_tokens=counted.completion_tokens,
        total_tokens=counted.total_tokens,
        cache_read_input_tokens=counted.cache_read_tokens or counted.prompt_cached_tokens,
        cache_creation_input_tokens=counted.cache_creation_tokens,
        reasoning_tokens=counted.reasoning_tokens,
    )
