"""What it takes to be ready to ask OpenAI: the import and the making of a client, beside the peers.

    python bench/imports.py                       # makes the environments of the peers
    python bench/imports.py --only rejoinder,openai

Each start is a process of its own, in turn; medians. CPU milliseconds, memory and modules are what
came beyond a bare interpreter.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from environments import run
from figures import Rows, add_json_option, write_rows
from providers import PEERS

READY = {
    "rejoinder": "from rejoinder.providers import openai; openai.LLM(model='m', api_key='k')",
    "openai": "import openai; openai.AsyncOpenAI(api_key='k')",
    "livekit": "from livekit.plugins import openai; openai.LLM(model='m', api_key='k')",
    "langchain": "from langchain_openai import ChatOpenAI; ChatOpenAI(model='m', api_key='k')",
    "pydantic-ai": (
        "from pydantic_ai.models.openai import OpenAIChatModel as M; "
        "from pydantic_ai.providers.openai import OpenAIProvider as P; M('m', provider=P(api_key='k'))"
    ),
    "any-llm": "import any_llm; any_llm.AnyLLM.create('openai', api_key='k')",
    # It would fetch its table of prices from a server while it is imported.
    "litellm": (
        "import os; os.environ['LITELLM_LOCAL_MODEL_COST_MAP'] = 'True'; "
        "import litellm; litellm.acompletion"
    ),
}
TOLD = """
import resource, sys, time
def seen():
    used = resource.getrusage(resource.RUSAGE_SELF)
    memory = open('/proc/self/statm').read().split()[1] if sys.platform == 'linux' else '0'
    return time.process_time() * 1e3, int(memory) * resource.getpagesize() / 1e6, len(sys.modules)
before = seen()
{ready}
print(*(b - a for a, b in zip(before, seen())))
"""
UNITS = ("import, CPU ms", "import, memory in MB", "import, modules")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(READY), help="names, separated by commas")
    parser.add_argument("--rounds", type=int, default=5)
    add_json_option(parser)
    options = parser.parse_args()
    found: dict[str, list[list[float]]] = {name: [] for name in options.only.split(",")}
    failures: dict[str, str] = {}
    for _ in range(options.rounds + 1):
        for name, samples in found.items():
            try:
                told = run(PEERS[name], ["-c", TOLD.format(ready=READY[name])])
            except subprocess.CalledProcessError as error:
                failures[name] = str(error)
                continue
            samples.append([float(word) for word in told.split()[-3:]])
    rows: Rows = {unit: {} for unit in UNITS}
    for name, samples in found.items():
        # Without the first one, which compiles the files or reads them from the disk.
        for unit, values in zip(UNITS, zip(*samples[1:], strict=True), strict=False):
            rows[unit][name] = statistics.median(values)
    print(f"{'':22}" + "".join(f"{name:>13}" for name in found))
    for unit, row in rows.items():
        print(f"{unit:22}" + "".join(f"{row.get(name, float('nan')):>13.0f}" for name in found))
    for name, why in failures.items():
        print(f"{name}: {why}")
    write_rows(options.json, rows, failures=failures)


if __name__ == "__main__":
    main()
