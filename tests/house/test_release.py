"""The files of a release: the same for everybody who makes them, and told what is in them."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no checkout: nothing to release"),
]


def test_the_files_of_a_release(tmp_path: Path) -> None:
    for name in ("one", "two"):
        made = subprocess.run(
            [sys.executable, str(ROOT / "scripts" / "release.py"), "--out", str(tmp_path / name)],
            capture_output=True,
            text=True,
            timeout=300,
            cwd=tmp_path,
        )
        assert made.returncode == 0, made.stderr
    one, two = tmp_path / "one", tmp_path / "two"
    sums = (one / "SHA256SUMS").read_text()
    assert sums == (two / "SHA256SUMS").read_text()
    files = dict(reversed(line.split("  ")) for line in sums.splitlines())
    assert {re.sub(r"(?<=rejoinder-)[\d.]+(?=[-.][a-z])", "V", name) for name in files} == {
        "rejoinder-V-py3-none-any.whl",
        "rejoinder-V.tar.gz",
        "rejoinder-V.cdx.json",
    }
    for name, digest in files.items():
        assert hashlib.sha256((one / name).read_bytes()).hexdigest() == digest

    wheel, sdist, bill = (next(one.glob(p)) for p in ("*.whl", "*.tar.gz", "*.json"))
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert "rejoinder/py.typed" in names
    assert "rejoinder/.agents/skills/rejoinder/SKILL.md" in names
    assert all(name.startswith("rejoinder") for name in names)
    with tarfile.open(sdist) as packed:
        packed_names = packed.getnames()
    parts = {Path(name).parts[1] for name in packed_names if len(Path(name).parts) > 1}
    assert any(name.endswith("/skills/rejoinder/SKILL.md") for name in packed_names)
    assert parts <= {"src", "docs", "README.md", "CHANGELOG.md", "LICENSE", "SECURITY.md",
                     "pyproject.toml", "PKG-INFO", ".gitignore"}  # fmt: skip
    check_bill(json.loads(bill.read_text("utf-8")), files[wheel.name])


def check_bill(bill: dict[str, object], digest: str) -> None:
    """What the schema of CycloneDX 1.6 asks for, and that nothing is missing."""
    found: dict[str, object] = bill
    assert found["bomFormat"] == "CycloneDX"
    assert found["specVersion"] == "1.6"
    assert re.fullmatch(
        r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", str(found["serialNumber"])
    )
    about = found["metadata"]["component"]  # type: ignore[index]
    assert about["hashes"] == [{"alg": "SHA-256", "content": digest}]
    components = {c["bom-ref"]: c for c in found["components"]}  # type: ignore[attr-defined]
    assert len(components) == len(found["components"])  # type: ignore[arg-type]
    for reference, component in components.items():
        assert (
            component["purl"] == reference == f"pkg:pypi/{component['name']}@{component['version']}"
        )
        assert component["properties"], "a package of the lock has hashes"
    names = {component["name"] for component in components.values()}
    assert {"aiohttp", "pydantic", "msgspec", "yarl", "botocore", "mcp", "uvloop"} <= names
    assert not names & {"pytest", "ruff", "hypothesis", "rejoinder"}
    for entry in found["dependencies"]:  # type: ignore[attr-defined]
        assert {entry["ref"], *entry["dependsOn"]} <= {*components, about["bom-ref"]}
