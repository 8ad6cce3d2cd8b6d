"""Build the script of `rejoinder web` from its TypeScript modules.

    python scripts/build_page.py            write src/rejoinder/web/static/app.js
    python scripts/build_page.py --check    fail if that file is not what the modules make

The tools come from requirements/outside/web-page/package-lock.json.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WEB = ROOT / "src/rejoinder/web"
BUILT = WEB / "static/app.js"


def main(arguments: list[str]) -> int:
    sys.path.insert(0, str(ROOT / "requirements"))
    import foreign

    modules = foreign.node("outside/web-page")
    node = foreign.npm()[0]
    subprocess.run([node, str(modules / "typescript/bin/tsc"), "-p", str(WEB / "page")], check=True)
    built = subprocess.run(
        [node, str(WEB / "page/build.mjs"), str(modules)], check=True, capture_output=True
    ).stdout
    if "--check" not in arguments:
        BUILT.write_bytes(built)
        return 0
    if BUILT.read_bytes() == built:
        return 0
    print(
        f"{BUILT} is not what the modules make; run python scripts/build_page.py", file=sys.stderr
    )
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
