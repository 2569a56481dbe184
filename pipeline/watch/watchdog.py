"""Decides what hangs: a feed without a sign of life, or with a lag that does not shrink. Pure; `app` acts on it."""

from collections import deque
from dataclasses import dataclass, field
from typing import Final, Literal

Verdict = Literal["fine", "restart", "give_up"]
RESTARTS_MAX: Final = 5
WITHIN_S: Final = 600.0


@dataclass
class Watched:
    """One part's signs of life, and when it was restarted. Seconds of a monotonic clock."""

    name: str
    silent_s: float = 60.0  # no sign of life for so long: it hangs
    stuck_s: float = 120.0  # records wait and none was handled for so long: it hangs
    restarts: deque[float] = field(default_factory=deque)

    def judge(self, now_s: float, beat_s: float, progress_s: float, lag: int, *, failed: bool) -> Verdict:
        """What to do; a restart is noted as done."""
        hangs = now_s - beat_s > self.silent_s or (lag > 0 and now_s - progress_s > self.stuck_s)
        if not (failed or hangs):
            return "fine"
        while self.restarts and now_s - self.restarts[0] > WITHIN_S:
            self.restarts.popleft()
        if len(self.restarts) >= RESTARTS_MAX:
            return "give_up"
        self.restarts.append(now_s)
        return "restart"
