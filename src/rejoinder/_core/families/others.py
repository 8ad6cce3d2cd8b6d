"""Models of the other makers. Data.

Sources: the makers' guides, recorded answers, and the reports named by project and number.
"""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from rejoinder._core.families._family import SAMPLING, Family, Input, Retired

__all__ = ["FAMILIES", "RETIRED"]

_IMAGE: Final[frozenset[Input]] = frozenset({"image"})
_THINK: Final = (("<think>", "</think>"),)

# -- xAI: presence_penalty, frequency_penalty and stop are refused by all models that reason (xAI's
# guide). Models with a fixed effort refuse the parameter: "Model grok-4.20-0309-reasoning does not
# support parameter reasoningEffort" (NousResearch/hermes-agent #23435, measured again 2026-09).
_GROK: Final = Family(
    name="grok",
    maker="xai",
    schema="openai",
    refuses=frozenset({"reasoning_effort"}),
    context=131_072,
    inputs=_IMAGE,
)
_GROK_THINKS: Final = replace(
    _GROK,
    refuses=frozenset({"presence_penalty", "frequency_penalty", "stop", "reasoning_effort"}),
    thinks="always",
    encrypted=True,
    context=256_000,
)
_GROK_EFFORT: Final = replace(
    _GROK_THINKS,
    refuses=frozenset({"presence_penalty", "frequency_penalty", "stop"}),
    words="effort",
)
_COMMAND: Final = Family(
    name="command",
    maker="cohere",
    match=("command*", "c4ai*"),
    context=256_000,
    think_tags=(("<|START_THINKING|>", "<|END_THINKING|>"),),
    # Cohere's chat template for Command A puts the answer between these.
    heads=("<|START_RESPONSE|>", "<|START_TEXT|>"),
    marks=(
        "<|END_OF_TURN_TOKEN|>",
        "<|START_RESPONSE|>",
        "<|END_RESPONSE|>",
        "<|START_TEXT|>",
        "<|END_TEXT|>",
        "<|START_ACTION|>",
        "<|END_ACTION|>",
    ),
)

_XAI: Final = (
    replace(
        _GROK_EFFORT,
        name="grok-3-mini",
        match=("grok-3-mini*",),
        efforts=("low", "high"),
        context=131_072,
    ),
    replace(_GROK, name="grok-non-reasoning", match=("grok non-reasoning",), context=2_000_000),
    replace(
        _GROK_EFFORT,
        name="grok-4.20-multi-agent",
        match=("grok-4.20-multi-agent*",),
        efforts=("low", "medium", "high", "xhigh"),
        context=2_000_000,
    ),
    replace(_GROK_THINKS, name="grok-4.20", match=("grok-4.20*",), context=2_000_000),
    replace(
        _GROK_EFFORT,
        name="grok-4.x",
        match=("grok-4.3", "grok-4.4", "grok-4.5", "grok-4.6", "grok-5*", "grok-latest"),
        thinks="unless_told",
        efforts=("none", "low", "medium", "high", "xhigh"),
        default_effort="none",
        context=1_000_000,
    ),
    replace(_GROK_THINKS, name="grok-4", match=("grok-4*", "grok-code*", "grok-build*")),
    replace(_GROK, name="grok-3", match=("grok*",)),
)

# Marks with which templates end a turn or write a call, from the tokenizers of the models. Servers
# usually strip them, and leak them if a parser finds its own mark in an unexpected place
# (vllm-project/vllm #46224, #49955; BerriAI/litellm #391).
_DEEPSEEK_MARKS: Final = (
    "<｜end▁of▁sentence｜>",
    "<｜Assistant｜>",
    "<｜User｜>",
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁calls▁end｜>",
    "<｜tool▁call▁begin｜>",
    "<｜tool▁call▁end｜>",
    "<｜tool▁sep｜>",
    "<｜DSML｜",
    "</｜DSML｜function_calls>",
)
_CHATML: Final = ("<|im_end|>", "<|im_start|>", "<|endoftext|>")
_TOOL_TAGS: Final = ("<tool_call>", "</tool_call>")
_LLAMA: Final = (
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|python_tag|>",
    "<|start_header_id|>",
)

# -- DeepSeek: "Thinking mode does not support this tool_choice" (deepseek-ai/DeepSeek-V3 #1376);
# "The `reasoning_content` in the thinking mode must be passed back to the API": after a turn with
# calls all assistant messages need theirs (its guide to the thinking mode; MoonshotAI/kimi-cli
# #2141).
_DEEPSEEK: Final = Family(
    name="deepseek-v4",
    maker="deepseek",
    match=("deepseek-v4*", "deepseek-flash", "deepseek-pro", "deepseek-chat", "deepseek-reasoner"),
    thinks="unless_told",
    words="thinking",
    efforts=("low", "high", "max"),
    forced="unless_thinking",
    reasoning_back="after_calls",
    # "unknown variant `image_url`, expected `text`".
    inputs=frozenset(),
    context=1_048_565,
    output=262_144,
    think_tags=_THINK,
    marks=_DEEPSEEK_MARKS,
)
_DEEPSEEKS: Final = (
    replace(
        _DEEPSEEK,
        name="deepseek-r1",
        match=("deepseek-r1*", "deepseek r1"),
        thinks="always",
        words="",
        efforts=(),
        reasoning_back="never",
        opens_inside=True,
        context=131_072,
        output=None,
    ),
    replace(
        _DEEPSEEK,
        name="deepseek-v3",
        match=(
            "deepseek-v3*",
            "deepseek-chat-v3*",  # OpenRouter
        ),
        thinks="asked",
        efforts=(),
        reasoning_back="calls",
        context=131_072,
        output=None,
    ),
    _DEEPSEEK,
    Family(
        name="deepseek-old",
        maker="deepseek",
        match=(
            "deepseek-coder*",
            "deepseek-llm*",
            "deepseek-math*",
            "deepseek-v2*",
            "deepseek-vl*",
        ),
        context=131_072,
        marks=(*_DEEPSEEK_MARKS, "<|EOT|>"),
    ),
    replace(_DEEPSEEK, name="deepseek", match=("deepseek*",)),
)

# -- Moonshot: "thinking is enabled but reasoning_content is missing in assistant tool call message"
# (bytedance/deer-flow #3043); "tool_choice 'specified' is incompatible with thinking enabled";
# "invalid temperature: only 1 is allowed for this model"; ids of another shape silence the model
# (getkimchi/kimchi #1063).
_KIMI: Final = Family(
    name="kimi-k2",
    maker="moonshot",
    match=("kimi-k2*", "kimi*", "moonshot-v1*"),
    schema="kimi",
    ids="kimi",
    context=262_144,
    marks=(
        "<|im_end|>",
        "<|tool_calls_section_begin|>",
        "<|tool_calls_section_end|>",
        "<|tool_call_begin|>",
        "<|tool_call_argument_begin|>",
        "<|tool_call_end|>",
    ),
)
_KIMI_THINKS: Final = replace(
    _KIMI,
    refuses=SAMPLING,
    thinks="unless_told",
    words="thinking",
    forced="unless_thinking",
    reasoning_back="calls",
    inputs=_IMAGE,
    think_tags=_THINK,
)
_KIMIS: Final = (
    # Thinking cannot be turned off: disabled thinking is a 400.
    replace(
        _KIMI_THINKS,
        name="kimi-k3",
        match=("kimi-k3*",),
        thinks="always",
        words="effort",
        efforts=("low", "high", "max"),
        context=1_048_576,
        output=1_048_576,
    ),
    replace(
        _KIMI_THINKS,
        name="kimi-k2-thinking",
        match=("kimi-k2-thinking*", "kimi-thinking*"),
        thinks="always",
        words="",
        inputs=frozenset(),
    ),
    replace(
        _KIMI_THINKS,
        name="kimi-k2.5",
        match=("kimi-k2.5", "kimi-k2.6", "kimi-k2.7", "kimi-k2p5", "kimi-k2p6", "kimi-k2p7"),
    ),
    _KIMI,
)

# -- Alibaba: a forced tool choice is refused while the model thinks (mozilla-ai/any-llm #1384).
_QWEN: Final = Family(
    name="qwen",
    maker="alibaba",
    match=("qwen*",),
    context=131_072,
    think_tags=_THINK,
    marks=(*_CHATML, *_TOOL_TAGS),
)
_QWEN_HYBRID: Final = replace(
    _QWEN,
    name="qwen3",
    match=("qwen3*", "qwen-3*"),
    thinks="unless_told",
    words="enable_thinking",
    budget=(0, 38_912),
    forced="unless_thinking",
)
_QWENS: Final = (
    # Their template opens the thought (vllm-project/vllm #22507).
    replace(
        _QWEN_HYBRID,
        name="qwen-thinking",
        match=("qwen3 thinking", "qwen-3 thinking", "qwq*", "qvq*"),
        thinks="always",
        words="",
        budget=None,
        opens_inside=True,
    ),
    replace(_QWEN, name="qwen-omni", match=("qwen* omni*",), inputs=frozenset({"audio", "image"})),
    # Qwen3 2507 "Instruct" and the coders do not think and need no switch.
    replace(
        _QWEN,
        name="qwen-instruct",
        match=("qwen* instruct*", "qwen* coder*"),
        context=262_144,
    ),
    replace(
        _QWEN_HYBRID,
        name="qwen3.5",
        match=("qwen3.5*", "qwen3.6*", "qwen3.7*", "qwen-3.5*", "qwen-3.6*"),
        context=262_144,
        inputs=_IMAGE,
    ),
    # Commercial models of the third generation think if the request asks for it.
    replace(
        _QWEN_HYBRID,
        name="qwen-plus",
        match=("qwen3-max*", "qwen-max*", "qwen-plus*", "qwen-turbo*", "qwen-flash*"),
        thinks="asked",
    ),
    _QWEN_HYBRID,
    _QWEN,
)

# -- Z.ai: GLM from 4.5 on thinks unless told; its own API takes no other tool choice than "auto".
_GLM: Final = Family(
    name="glm",
    maker="zai",
    match=("glm-5*", "glm-4.5*", "glm-4.6*", "glm-4.7*"),
    thinks="unless_told",
    words="thinking",
    reasoning_back="calls",
    context=200_000,
    output=128_000,
    think_tags=_THINK,
    marks=(
        "<|user|>",
        "<|assistant|>",
        "<|observation|>",
        "<|endoftext|>",
        "<|begin_of_box|>",
        "<|end_of_box|>",
        *_TOOL_TAGS,
    ),
)

# -- Mistral: its templates and its API demand ids of nine letters or digits, a reply after a tool's
# result, and no role `developer` ("Tool call IDs should be alphanumeric strings with length 9!").
_MISTRAL: Final = Family(
    name="mistral",
    maker="mistral",
    match=(
        "mistral*",
        "ministral*",
        "mixtral*",
        "codestral*",
        "devstral*",
        "pixtral*",
        "open-mi*",
        "leanstral*",
    ),
    schema="mistral",
    ids="nine",
    reply_after_tools=True,
    ends_with_user=True,
    context=131_072,
    inputs=frozenset({"document", "image"}),
    marks=("</s>", "[TOOL_CALLS]", "[/INST]"),
)
_MISTRALS: Final = (
    replace(
        _MISTRAL,
        name="magistral",
        match=("magistral*",),
        thinks="always",
        think_tags=(("[THINK]", "[/THINK]"), *_THINK),
    ),
    replace(
        _MISTRAL,
        name="mistral-reasoning",
        match=(
            "mistral-small-4*",
            "mistral-small-2603",
            "mistral-small-latest",
            "mistral-medium-3-5*",
            "mistral-medium-latest",
        ),
        thinks="asked",
        words="effort",
        efforts=("none", "high"),
        context=262_144,
    ),
    replace(_MISTRAL, name="voxtral", match=("voxtral*",), inputs=frozenset({"audio"})),
    _MISTRAL,
)

# -- Amazon: Nova 1 thinks aloud before its calls (livekit/agents #1599); Nova 2 takes
# `reasoningConfig`, and with its highest effort neither sampling nor a limit (Amazon's guide).
_NOVA: Final = Family(
    name="nova",
    maker="amazon",
    match=("nova*", "amazon-nova*"),
    context=300_000,
    output=10_000,
    inputs=frozenset({"document", "image", "video"}),
    think_tags=(("<thinking>", "</thinking>"),),
)
_NOVAS: Final = (
    replace(
        _NOVA,
        name="nova-2-omni",
        match=("nova-2-omni*", "nova-2-sonic*"),
        thinks="asked",
        words="nova",
        efforts=("low", "medium", "high"),
        refuses_at_most=frozenset({"temperature", "top_p", "top_k", "max_completion_tokens"}),
        inputs=frozenset({"audio", "document", "image", "video"}),
        context=1_000_000,
        output=65_535,
    ),
    replace(
        _NOVA,
        name="nova-2",
        match=("nova-2*",),
        thinks="asked",
        words="nova",
        efforts=("low", "medium", "high"),
        refuses_at_most=frozenset({"temperature", "top_p", "top_k", "max_completion_tokens"}),
        context=1_000_000,
        output=65_535,
    ),
    replace(
        _NOVA,
        name="nova-micro",
        match=("nova-micro*",),
        inputs=frozenset(),
        context=128_000,
    ),
    _NOVA,
)

_MORE: Final = (
    # Interleaved thinking stands in the text and goes back with it.
    Family(
        name="minimax-m",
        maker="minimax",
        match=("minimax-m*", "minimaxai-minimax-m*"),
        thinks="always",
        reasoning_back="calls",
        context=204_800,
        think_tags=_THINK,
        marks=("[e~[", "<minimax:tool_call>", "</minimax:tool_call>"),
    ),
    # "Tool calling is not supported for this model" (pipecat-ai/pipecat PR#4862).
    Family(
        name="sonar-reasoning",
        tools=False,
        maker="perplexity",
        match=("sonar-reasoning*", "sonar-deep-research*"),
        thinks="always",
        context=128_000,
        think_tags=_THINK,
    ),
    Family(
        name="sonar",
        tools=False,
        maker="perplexity",
        match=("sonar*", "llama-3.1-sonar*"),
        context=128_000,
        inputs=_IMAGE,
    ),
    Family(
        name="llama-4",
        maker="meta",
        match=("llama-4*", "llama4*"),
        context=1_048_576,
        inputs=_IMAGE,
        marks=(*_LLAMA, "<|eot|>", "<|eom|>", "<|python_start|>", "<|python_end|>"),
    ),
    Family(
        name="llama",
        maker="meta",
        match=("llama*", "meta-llama*"),
        context=131_072,
        marks=(*_LLAMA, "</s>", "[/INST]"),
    ),
    # Recorded at Azure, 422: "Input should be a valid string" for a choice that names a function.
    Family(
        name="mai-ds-r1",
        maker="microsoft",
        match=("mai-ds-r1*",),
        thinks="always",
        named=False,
        context=128_000,
        think_tags=_THINK,
        marks=_DEEPSEEK_MARKS,
    ),
    # A hybrid (Cohere's guide "Reasoning"); its API in OpenAI's form takes these two words.
    replace(
        _COMMAND,
        name="command-a-reasoning",
        match=("command-a-reasoning*", "c4ai-command-a-reasoning*"),
        thinks="unless_told",
        words="effort",
        efforts=("none", "high"),
        output=32_000,
    ),
    _COMMAND,
    Family(
        name="jamba",
        maker="ai21",
        match=("jamba*",),
        context=256_000,
        marks=("<|eom|>", "<|endoftext|>"),
    ),
    Family(
        name="phi",
        maker="microsoft",
        match=("phi-*",),
        context=131_072,
        marks=("<|end|>", "<|tool_call|>", "<|/tool_call|>", *_CHATML),
    ),
    # The tags are those of vLLM's parser `seed_oss`; a served model may begin inside of a thought.
    Family(
        name="seed-oss",
        maker="bytedance",
        match=("seed-oss*", "bytedance-seed-oss*"),
        thinks="always",
        context=524_288,
        think_tags=(("<seed:think>", "</seed:think>"),),
        marks=("<seed:eos>", "<seed:bos>", "<seed:tool_call>", "</seed:tool_call>"),
    ),
    # Thoughts and answer each stand in tags (vLLM's parser `hunyuan_a13b`); the chat template takes
    # `enable_thinking` (its model card).
    Family(
        name="hunyuan",
        maker="tencent",
        match=("hunyuan*", "tencent-hunyuan*"),
        thinks="unless_told",
        words="enable_thinking",
        context=262_144,
        think_tags=_THINK,
        heads=("<answer>",),
        marks=("</answer>", "<|eos|>", "<tool_calls>", "</tool_calls>"),
    ),
    # Granite 3 does the same with another tag for the answer.
    Family(
        name="granite-3",
        maker="ibm",
        match=("granite-3*", "granite3*"),
        context=131_072,
        think_tags=_THINK,
        heads=("<response>",),
        marks=("</response>", "<|end_of_text|>", "<|start_of_role|>", "<|tool_call|>", *_TOOL_TAGS),
    ),
    Family(
        name="granite",
        maker="ibm",
        match=("granite*",),
        context=131_072,
        marks=("<|end_of_text|>", "<|start_of_role|>", "<|tool_call|>", *_TOOL_TAGS),
    ),
)

# Distilled models are named after both parents; the thinking one counts.
_DISTILLED: Final = (
    Family(
        name="r1-distill",
        maker="deepseek",
        match=("deepseek-r1-distill*", "r1-distill*"),
        thinks="always",
        opens_inside=True,
        context=131_072,
        inputs=frozenset(),
        think_tags=_THINK,
        marks=(*_DEEPSEEK_MARKS, *_CHATML, *_LLAMA),
    ),
)

FAMILIES: Final = (
    *_DISTILLED,
    *_XAI,
    *_DEEPSEEKS,
    *_KIMIS,
    *_QWENS,
    _GLM,
    *_MISTRALS,
    *_NOVAS,
    *_MORE,
)

RETIRED: Final = {
    "deepseek-chat": Retired("2026-07-24", "deepseek-v4-flash"),
    "deepseek-reasoner": Retired("2026-07-24", "deepseek-v4-flash"),
    "grok-3": Retired("2026-05-15", "grok-4.3"),
    "grok-3-fast": Retired("2026-05-15", "grok-4.3"),
    "grok-4-0709": Retired("2026-05-15", "grok-4.3"),
    "grok-4-fast-reasoning": Retired("2026-05-15", "grok-4.3"),
    "grok-4-fast-non-reasoning": Retired("2026-05-15", "grok-4.3"),
    "grok-4-1-fast-reasoning": Retired("2026-05-15", "grok-4.3"),
    "grok-4-1-fast-non-reasoning": Retired("2026-05-15", "grok-4.3"),
    "grok-code-fast-1": Retired("2026-05-15", "grok-4.3"),
    "llama-3.1-sonar-small-128k-chat": Retired("2025-02-22", "sonar"),
    "llama-3.1-sonar-large-128k-chat": Retired("2025-02-22", "sonar-pro"),
    "llama-3.1-sonar-small-128k-online": Retired("2025-02-22", "sonar"),
    "llama-3.1-sonar-large-128k-online": Retired("2025-02-22", "sonar-pro"),
    "llama-4-scout-17b-16e-instruct": Retired("2025-11-03", "gpt-oss-120b"),
    "ministral-8b-2410": Retired("2025-12-31", "ministral-8b-latest"),
    "pixtral-12b-2409": Retired("2025-12-31", "ministral-14b-latest"),
}
