"""The user's sound on its way to the service: sent at once, kept for the next connection, and
padded with silence."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from typing import Final

from rejoinder import _stamps
from rejoinder._core.realtime import messages as m
from rejoinder._core.realtime.kept import KeptSound
from rejoinder.media import AudioFrame
from rejoinder.providers.sessions.link import Link
from rejoinder.providers.sessions.sound import SoundInput, is_loud

__all__ = ["COMMITTING", "Uplink"]

logger = logging.getLogger("rejoinder")

_MIN_COMMIT_MS: Final = 100
"""Milliseconds of sound below which services refuse a commit."""
_SETTLING: Final = 1.0
"""Seconds before a new connection receives silence, so that settings and history set right away
come first."""
_GAP: Final = 0.25
"""Seconds without sound from the application after which silence is sent instead."""
_PAUSE: Final = 1.5
"""Seconds without sound after which the service is notified of the pause."""
_UNREPORTED_TIMEOUT: Final = 6.0
"""Seconds of quiet after which a slow service has reported any speech that it recognised."""
COMMITTING: Final = 5.0
"""Seconds that a service may take from the end of speech to the message it makes of it."""
_SILENCE: Final = 0.1
"""Seconds of silence that are sent at a time."""


class Uplink:
    """Sound on its way to the connection in use.

    Args:
        traits: properties of the service.
        link: the connection in use; ``None`` while disconnected.
        kept_sound: seconds of sound kept for a next connection.
        finds_turns: whether the service decides when a turn is over. Otherwise all sound is kept
            until it is committed.

    Attributes:
        speaking: the service hears the user.
        sent_at: loop time at which sound was sent last.
    """

    def __init__(
        self,
        traits: m.Traits,
        link: Callable[[], Link | None],
        *,
        kept_sound: float,
        finds_turns: Callable[[], bool],
    ) -> None:
        self._finds_turns = finds_turns
        self._traits = traits
        self._link = link
        self._loop = asyncio.get_running_loop()
        self._input = SoundInput(traits.input_rate)
        self._kept: KeptSound[m.Command] = KeptSound(
            kept_sound * 1000, slow=0.0 if traits.tells_speech else _UNREPORTED_TIMEOUT * 1000
        )
        self._uncommitted_ms = 0.0
        self._heard_at = -math.inf
        self._unheard_ms = 0.0
        self._stopped_at = -math.inf
        self._recalled = False
        self._covered = math.inf
        self._pushed_at = -math.inf
        self._looked_at = -math.inf
        self.speaking = False
        self.sent_at = -math.inf
        self._paused = True

    @property
    def quiet(self) -> bool:
        """Whether there is no speech that the next connection would have to receive again."""
        if not self._finds_turns():
            return not self._hears and self._uncommitted_ms == 0
        return not self._hears or self._loop.time() >= self._over_at

    @property
    def _over_at(self) -> float:
        """When speech counts as over whose sound has stopped: a microphone was muted."""
        return self._pushed_at + _UNREPORTED_TIMEOUT

    @property
    def _hears(self) -> bool:
        """Whether the user speaks, as far as known."""
        return self.speaking or self._kept.loud

    @property
    def keeps(self) -> bool:
        """Whether the next connection will receive the current turn."""
        return bool(self._kept)

    def push(self, frame: AudioFrame) -> None:
        """Send a frame, or collect frames until they are long enough. Keep them if there is no
        connection.

        Raises:
            ConfigurationError: it has another form than the service takes and ``soxr`` is missing.
        """
        piece = self._input.feed(frame)
        if piece is not None:
            self._send(piece)

    def commit(self) -> None:
        """Turn the pushed sound into a user message. Does nothing for less than 100 ms of sound."""
        self._flush()
        if self._uncommitted_ms > _MIN_COMMIT_MS:
            self._uncommitted_ms = 0.0
            command = m.CommitAudio(_stamps.new_id("commit_"))
            self._kept.add_commit(command)
            link = self._link()
            if link is not None:
                link.send(command)

    def clear(self) -> None:
        """Discard the sound that was pushed but not committed."""
        self._input.clear()
        self._kept.clear()
        self._uncommitted_ms = 0.0

    def committed(self, item_id: str, *, written: bool) -> None:
        """The service turned the sound it heard into a message. Unless the message is `written`, its
        sound is kept until it is."""
        self._kept.committed(None if written else item_id)
        self.speaking = False
        self._stopped_at = -math.inf

    def written(self, item_id: str) -> None:
        """The message has its transcript."""
        self._kept.written(item_id)

    def stopped(self) -> None:
        """The service heard the user stop; it commits the sound itself."""
        self.speaking = False
        self._uncommitted_ms = 0.0
        self._stopped_at = self._loop.time()

    def sound_of(self, item_id: str) -> Sequence[m.AppendAudio]:
        """The kept sound of a message without a transcript."""
        return [piece for piece in self._kept.sound_of(item_id) if isinstance(piece, m.AppendAudio)]

    def recall(self, followed: Callable[[str], bool]) -> list[str]:
        """The connection has ended. Turns without a transcript that nothing has followed are pushed
        again, so that the next service answers them.

        Args:
            followed: whether the conversation goes on after a message, or does not hold it.

        Returns:
            The messages whose sound is pushed again.
        """
        found: list[str] = []
        for item_id in reversed(self._kept.turns):
            if followed(item_id):
                break
            commit = None
            if not self._finds_turns():
                commit = m.CommitAudio(_stamps.new_id("commit_"))
            self._kept.recall(item_id, commit)
            found.append(item_id)
        self._recalled = bool(found)
        return found

    def forget_turns(self) -> None:
        """The next connection knows all messages."""
        self._kept.forget_turns()

    def replay(self, link: Link) -> bool:
        """Send `link`, the new current connection, the pushed sound that is not part of a message.
        Return whether a whole turn is among it whose end the service has to find."""
        recalled, self._recalled = self._recalled, False
        now = self._loop.time()
        self._heard_at, self._unheard_ms = link.heard_at, 0.0
        kept = self._kept.entries()
        for command in kept:
            link.send(command)
        if kept:
            self.sent_at = now
        if self._kept.dropped_ms:
            lost = round(self._kept.dropped_ms / 1000, 1)
            logger.warning("dropped %g s of sound while there was no connection", lost)
            self._kept.dropped_ms = 0.0
        if self._traits.paced_silence:
            self._covered = now + _SETTLING
        return recalled and self._finds_turns()

    # -- silence -----------------------------------------------------------------------------

    def due(self) -> float:
        """When `tick` is due."""
        if self._link() is None:
            return math.inf
        due = min(self._covered + _GAP, math.inf if self._paused else self.sent_at + _PAUSE)
        if self._hears and self._looked_at < self._over_at:
            due = min(due, self._over_at)
        return due

    def tick(self, now: float) -> None:
        """Send silence while the application sends no sound, or notify the service of the pause."""
        link = self._link()
        self._looked_at = now
        if link is not None and not self._paused and now >= self.sent_at + _PAUSE:
            self._paused = True
            link.send(m.SoundPaused(_stamps.new_id("pause_")))
        if link is None or now < self._covered + _GAP:
            return
        self._flush()
        # If the loop was blocked, skip the missed silence: the service would hear it as a pause.
        self._covered = max(self._covered, now - _GAP)
        size = round(self._traits.input_rate * _SILENCE) * 2
        while self._covered + _GAP <= now:
            self._covered += _SILENCE
            link.send(m.AppendAudio(bytes(size)))
        self.sent_at = now

    # -- inside ------------------------------------------------------------------------------

    def _send(self, piece: bytes | bytearray | memoryview) -> None:
        size = piece.nbytes if isinstance(piece, memoryview) else len(piece)
        ms = size * 500.0 / self._traits.input_rate
        command = m.AppendAudio(piece)
        link = self._link()
        now = self._pushed_at = self._loop.time()
        wanted = (
            self.speaking
            or link is None
            or now - self._stopped_at < COMMITTING
            or not self._finds_turns()
        )
        if link is not None and link.heard_at != self._heard_at:
            self._heard_at, self._unheard_ms = link.heard_at, 0.0
        self._unheard_ms += ms
        self._kept.add(ms, command, wanted=wanted, loud=is_loud(piece), unheard_ms=self._unheard_ms)
        self._uncommitted_ms += ms
        if link is not None:
            self.sent_at = now
            self._paused = self._traits.paced_silence
            if self._covered < math.inf:
                self._covered = max(self._covered, now) + ms / 1000
            link.send(command)

    def _flush(self) -> None:
        rest = self._input.flush()
        if rest is not None:
            self._send(rest)
