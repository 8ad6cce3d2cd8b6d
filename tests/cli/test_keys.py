"""``rejoinder keys``: kept for their owner alone, found by providers, seen by nobody."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cli.commands import Terminal, run
from rejoinder.cli.keys import lent_keys
from rejoinder.testing.faults import Answer

if TYPE_CHECKING:
    from cli.conftest import Provider

CANARY = "sk-canary-0123456789abcdef"
NO_KEYRING: dict[str, Any] = {"PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring"}


def test_a_key_is_kept_used_and_removed(provider: Provider, home: Path) -> None:
    ran = run("keys", "set", "openai", input=f"{CANARY}\n".encode(), afresh=True, **NO_KEYRING)
    assert (ran.code, ran.out) == (0, "")
    assert "OPENAI_API_KEY is kept in" in ran.err
    file = home / "keys.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    listed = run("keys", **NO_KEYRING)
    assert listed.out == "openai: OPENAI_API_KEY  the file\n"
    asked = run("chat", *provider.options, "--once", "x", **NO_KEYRING)
    assert asked.code == 0, asked.err
    assert provider.server.requests[0].headers["authorization"] == f"Bearer {CANARY}"
    told = run("doctor", **NO_KEYRING)
    assert "keys that are kept: OPENAI_API_KEY" in told.out
    for other in (ran, listed, asked, told):
        assert "canary" not in other.out + other.err
    assert run("keys", "remove", "openai", **NO_KEYRING).code == 0
    assert json.loads(file.read_text()) == {}
    run("chat", *provider.options, "--once", "x", **NO_KEYRING)
    assert "canary" not in str(provider.server.requests[1].headers)


def test_it_is_typed_unseen() -> None:
    with Terminal("keys", "set", "anthropic", **NO_KEYRING) as terminal:
        terminal.wait_for("ANTHROPIC_API_KEY: ")
        terminal.type(f"{CANARY}\n")
        terminal.wait_for("is kept in")
        assert terminal.leave() == 0
        assert "canary" not in terminal.seen


def test_a_tool_and_its_children_do_not_see_it(
    provider: Provider, tmp_path: Path, home: Path
) -> None:
    run("keys", "set", "openai", input=f"{CANARY}\n".encode(), **NO_KEYRING)
    (tmp_path / "spy.py").write_text(
        "import os\ndef look() -> str:\n    return os.popen('env').read()\n"
    )
    from rejoinder.testing.faults import Call

    provider.server.script(
        Answer(text=(), calls=(Call("look", "{}", "call_1"),)), Answer(text=("Seen.",))
    )
    ran = run(
        "chat", *provider.options, "--tool", f"{tmp_path}/spy.py:look", "--once", "x", **NO_KEYRING
    )
    assert ran.code == 0, ran.err
    assert "canary" not in str(provider.server.requests[1].json())
    assert not any(b"canary" in f.read_bytes() for f in home.iterdir() if f.name != "keys.json")


@pytest.mark.parametrize(
    ("arguments", "given", "message"),
    [
        (("set", "opnai"), b"x\n", "did you mean 'openai'"),
        (("set",), b"x\n", "name a provider"),
        (("set", "openai"), b"\n", "no key was given"),
        (("set", "openai"), b"two words\n", "without spaces"),
    ],
)
def test_what_is_refused(
    arguments: tuple[str, ...], given: bytes, message: str, home: Path
) -> None:
    ran = run("keys", *arguments, input=given, **NO_KEYRING)
    assert ran.code == 2
    assert message in ran.err
    assert not (home / "keys.json").exists()


def test_a_damaged_file_is_told(home: Path) -> None:
    home.mkdir()
    (home / "keys.json").write_text("{")
    ran = run("keys")
    assert ran.code == 3
    assert "holds no keys; remove it, and set them again" in ran.err


def test_the_keyring_is_used_where_there_is_one(tmp_path: Path, home: Path) -> None:
    pytest.importorskip("keyring", reason="the extra `keyring` is not installed")
    (tmp_path / "ring.py").write_text(
        "import json, os, pathlib\n"
        "from keyring.backend import KeyringBackend\n"
        "FILE = pathlib.Path(__file__).with_name('ring.json')\n"
        "def read(): return json.loads(FILE.read_text()) if FILE.exists() else {}\n"
        "class Ring(KeyringBackend):\n"
        "    priority = 9\n"
        "    def get_password(self, service, name): return read().get(service + name)\n"
        "    def set_password(self, service, name, key):\n"
        "        FILE.write_text(json.dumps({**read(), service + name: key}))\n"
        "    def delete_password(self, service, name):\n"
        "        FILE.write_text(json.dumps({k: v for k, v in read().items() if k != service + name}))\n"
    )
    ring: dict[str, Any] = {
        "PYTHON_KEYRING_BACKEND": "ring.Ring",
        "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]),
    }
    ran = run("keys", "set", "mistral", input=f"{CANARY}\n".encode(), **ring)
    assert "the system's keyring" in ran.err
    assert "canary" not in (home / "keys.json").read_text()
    assert "canary" in (tmp_path / "ring.json").read_text()
    assert run("keys", **ring).out == "mistralai: MISTRAL_API_KEY  the keyring\n"
    assert run("keys", "remove", "MISTRAL_API_KEY", **ring).code == 0
    assert "canary" not in (tmp_path / "ring.json").read_text()


def test_two_processes_lose_no_key(tmp_path: Path, home: Path) -> None:
    pytest.importorskip("keyring", reason="the extra `keyring` is not installed")
    (tmp_path / "slow_ring.py").write_text(
        "from keyring.backend import KeyringBackend\n"
        "class Ring(KeyringBackend):\n"
        "    priority = 9\n"
        "    def get_password(self, service, name): return None\n"
        "    def set_password(self, service, name, key): input('Unlock? ')\n"
        "    def delete_password(self, service, name): pass\n"
    )
    ring: dict[str, Any] = {
        "PYTHON_KEYRING_BACKEND": "slow_ring.Ring",
        "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]),
    }
    with (
        Terminal("keys", "set", "mistral", **ring) as first,
        Terminal("keys", "set", "anthropic", **NO_KEYRING) as second,
    ):
        first.wait_for("MISTRAL_API_KEY: ")
        first.type(f"{CANARY}\n")
        first.wait_for("Unlock")
        second.wait_for("ANTHROPIC_API_KEY: ")
        second.type(f"{CANARY}\n")
        second.wait_for("waiting for another|is kept in")
        first.type("\n")
        assert (first.leave(), second.leave()) == (0, 0)
    kept = json.loads((home / "keys.json").read_text())
    assert kept == {"MISTRAL_API_KEY": None, "ANTHROPIC_API_KEY": CANARY}


def test_what_a_killed_process_left_is_cleared(home: Path) -> None:
    home.mkdir()
    (home / "keys.json.new").write_text(f'{{"OPENAI_API_KEY": "{CANARY}"')
    assert run("keys", "set", "anthropic", input=b"sk-other\n", **NO_KEYRING).code == 0
    assert sorted(file.name for file in home.iterdir()) == ["keys.json", "keys.json.lock"]
    assert "canary" not in (home / "keys.json").read_text()


def test_the_environment_comes_first_and_is_left_as_it_was(
    monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    home.mkdir()
    (home / "keys.json").write_text(json.dumps({"GOOGLE_API_KEY": CANARY}))
    (home / "keys.json").chmod(0o644)
    for name in ("GOOGLE_API_KEY", "GEMINI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with lent_keys("google"):
        assert os.environ["GOOGLE_API_KEY"] == CANARY
    assert "GOOGLE_API_KEY" not in os.environ
    if sys.platform != "win32":
        assert stat.S_IMODE((home / "keys.json").stat().st_mode) == 0o600
    monkeypatch.setenv("GEMINI_API_KEY", "mine")
    with lent_keys("google"):
        assert "GOOGLE_API_KEY" not in os.environ
    with lent_keys("ollama"):
        pass
