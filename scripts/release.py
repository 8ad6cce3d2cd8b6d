"""Make the files of a release: a wheel, an sdist, a bill of materials, checksums.

    python scripts/release.py [--out dist]

The wheel and the sdist are built twice, from two exports of the last commit, and have to come out the
same to the byte; anybody can make them again from the same commit. The bill of materials
(CycloneDX 1.6) lists what the package needs with all extras, in the versions and with the hashes of
`requirements/dev.lock`. Nothing is uploaded.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
import uuid
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
LOCK = "requirements/dev.lock"
NAME = "rejoinder"


class ReleaseError(Exception):
    """The files cannot be released."""


def git(*arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True).stdout


def build(out: Path, epoch: int) -> list[Path]:
    """Build the last commit into `out`. Returns the wheel and the sdist."""
    with tempfile.TemporaryDirectory() as name:
        tree = Path(name) / "tree"
        tree.mkdir()
        subprocess.run(
            ["tar", "-x", "-C", str(tree)], input=git("archive", "HEAD"), check=True, cwd=ROOT
        )
        subprocess.run(
            [sys.executable, "-m", "hatchling", "build", "-d", str(out)],
            cwd=tree,
            env={**os.environ, "SOURCE_DATE_EPOCH": str(epoch), "PYTHONHASHSEED": "0"},
            check=True,
            capture_output=True,
        )
    return sorted(out.glob("*.whl")) + sorted(out.glob("*.tar.gz"))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def build_twice(out: Path, epoch: int) -> list[Path]:
    """Build into `out`.

    Raises:
        ReleaseError: a second build gives other bytes.
    """
    with tempfile.TemporaryDirectory() as name:
        first, second = build(out, epoch), build(Path(name), epoch)
        for one, other in zip(first, second, strict=True):
            if sha256(one) != sha256(other):
                raise ReleaseError(f"{one.name}: two builds of one commit differ")
    return first


# the bill of materials -------------------------------------------------------------------------


def locked() -> dict[str, tuple[str, list[str]]]:
    """The version and the hashes of each package of the lock."""
    found: dict[str, tuple[str, list[str]]] = {}
    text = (ROOT / LOCK).read_text("utf-8").replace("\\\n", " ")
    for line in text.splitlines():
        match = re.match(r"([A-Za-z0-9._-]+)==([^\s;]+)", line)
        if match is not None:
            hashes = re.findall(r"--hash=sha256:([0-9a-f]{64})", line)
            found[canonicalize_name(match[1])] = (match[2], hashes)
    return found


def own_requirements() -> list[str]:
    """What the package of this checkout needs, as its metadata will say."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    found: list[str] = list(project["dependencies"])
    for extra, requirements in project["optional-dependencies"].items():
        for text in requirements:
            name, semicolon, marker = text.partition(";")
            condition = f"({marker}) and extra == '{extra}'" if semicolon else f"extra == '{extra}'"
            found.append(f"{name}; {condition}")
    return found


def needed(name: str, extras: frozenset[str], found: dict[str, set[str]]) -> None:
    """Add to `found` each package that `name` needs with `extras`, and what that needs."""
    direct = found.setdefault(name, set())
    for text in own_requirements() if name == NAME else metadata.requires(name) or ():
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is not None and not any(
            marker.evaluate({"extra": extra}) for extra in extras or {""}
        ):
            continue
        other = str(canonicalize_name(requirement.name))
        if other == name:  # `all` names the other extras
            needed(name, frozenset(requirement.extras), found)
            continue
        new = other not in direct
        direct.add(other)
        if new or requirement.extras:
            try:
                needed(other, frozenset(requirement.extras), found)
            except metadata.PackageNotFoundError as error:
                raise ReleaseError(
                    f"{other} is not installed; install the packages of {LOCK}"
                ) from error


def bill(version: str, wheel: Path, epoch: int) -> dict[str, Any]:
    """The bill of materials, of CycloneDX 1.6 (https://cyclonedx.org/docs/1.6/json/).

    Raises:
        ReleaseError: a package that is needed has no place in the lock.
    """
    graph: dict[str, set[str]] = {}
    needed(NAME, frozenset({"all"}), graph)
    lock = locked()
    missing = sorted(set(graph) - set(lock) - {NAME})
    if missing:
        raise ReleaseError(f"{LOCK} lacks {', '.join(missing)}; run `make relock`")

    def reference(name: str) -> str:
        return f"pkg:pypi/{name}@{version if name == NAME else lock[name][0]}"

    def component(name: str) -> dict[str, Any]:
        found, _ = lock[name]
        return {
            "type": "library",
            "bom-ref": reference(name),
            "name": name,
            "version": found,
            "purl": reference(name),
            "properties": [
                {"name": "rejoinder:locked:sha256", "value": digest} for digest in lock[name][1]
            ],
        }

    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, sha256(wheel))}",
        "version": 1,
        "metadata": {
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch)),
            "component": {
                "type": "library",
                "bom-ref": reference(NAME),
                "name": NAME,
                "version": version,
                "purl": reference(NAME),
                "licenses": [{"license": {"id": "Apache-2.0"}}],
                "hashes": [{"alg": "SHA-256", "content": sha256(wheel)}],
            },
        },
        "components": [component(name) for name in sorted(graph) if name != NAME],
        "dependencies": [
            {"ref": reference(name), "dependsOn": sorted(map(reference, graph[name]))}
            for name in sorted(graph)
        ],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    out: Path = parser.parse_args().out.resolve()
    changed = git("status", "--porcelain", "--untracked-files=no").decode().strip()
    if changed:
        print(f"not committed, so not in the files:\n{changed}", file=sys.stderr)
    epoch = int(git("log", "-1", "--format=%ct"))
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    try:
        files = build_twice(out, epoch)
        version = files[0].name.split("-")[1]
        path = out / f"{NAME}-{version}.cdx.json"
        path.write_text(json.dumps(bill(version, files[0], epoch), indent=1) + "\n", "utf-8")
    except ReleaseError as error:
        print(error, file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(error, (error.stderr or b"").decode("utf-8", "replace"), file=sys.stderr)
        return 1
    sums = "".join(f"{sha256(file)}  {file.name}\n" for file in [*files, path])
    (out / "SHA256SUMS").write_text(sums, "ascii")
    print(sums, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
