"""A store in memory: the Protocol as small as it can be, for tests that look at every record."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from rejoinder.store import ConflictError, Found, Record, Summary


@dataclass
class MemoryStore:
    logs: dict[str, list[Record]] = field(default_factory=dict[str, list[Record]])
    kept: dict[str, bytes] = field(default_factory=dict[str, bytes])
    cuts: list[int] = field(default_factory=list[int])
    """How many records there were after each write: what a crash can leave."""

    async def read(self, conversation: str, *, after: int = 0) -> Sequence[Record]:
        return self.logs.get(conversation, [])[after:]

    async def append(
        self,
        conversation: str,
        records: Sequence[Record],
        *,
        after: int,
        media: Mapping[str, bytes] | None = None,
    ) -> None:
        log = self.logs.setdefault(conversation, [])
        if len(log) != after:
            raise ConflictError(f"{conversation}: {len(log)} records, expected {after}")
        log.extend(records)
        self.cuts.append(len(log))
        self.kept.update(media or {})

    async def media(self, names: Collection[str]) -> Mapping[str, bytes]:
        return {name: self.kept[name] for name in names if name in self.kept}

    async def conversations(self, *, limit: int | None = None) -> Sequence[Summary]:
        return []

    async def search(
        self, text: str, *, conversation: str | None = None, limit: int = 20
    ) -> Sequence[Found]:
        return []

    async def remove(self, conversation: str) -> bool:
        return self.logs.pop(conversation, None) is not None

    async def aclose(self) -> None:
        pass
