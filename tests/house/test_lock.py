"""What a new record of versions says about the one before."""

from __future__ import annotations

import json
from pathlib import Path

from lock import differences, recorded


def test_what_a_lock_of_python_packages_holds(tmp_path: Path) -> None:
    lock = tmp_path / "x.lock"
    assert recorded(lock) == {}
    lock.write_text(
        "av==1.0 \\\n    --hash=sha256:00\n"
        "numpy==2.4.6 ; python_full_version < '3.12' \\\n    --hash=sha256:00\n"
        "numpy==2.5.5 ; python_full_version >= '3.12' \\\n    --hash=sha256:00\n"
        "ruamel.yaml==1\n"
    )
    assert recorded(lock) == {"av": "1.0", "numpy": "2.4.6, 2.5.5", "ruamel.yaml": "1"}


def test_what_a_lock_of_npm_holds(tmp_path: Path) -> None:
    lock = tmp_path / "package-lock.json"
    packages = {"": {"dependencies": {"a": "1"}}, "node_modules/a": {"version": "1.0.2"}}
    lock.write_text(json.dumps({"packages": packages}))
    assert recorded(lock) == {"node_modules/a": "1.0.2"}


def test_what_became_newer_came_or_went() -> None:
    before = {"a": "1", "b": "1", "c": "1"}
    after = {"a": "1", "b": "2", "d": "1"}
    assert list(differences(before, after)) == ["b 1 -> 2", "c 1 -> (gone)", "d (new) -> 1"]
    assert list(differences({}, after)) == ["new, 3 packages"]
    assert list(differences(after, after)) == []
