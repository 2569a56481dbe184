"""A worker that is told to end while it still connects."""

import threading

import pytest

from pipeline.commands import rate
from pipeline.rate.progress import Progress
from pipeline.settings import load


class Connecting:
    """Takes the place of Worker: the signal comes while it connects."""

    told: threading.Event

    def __init__(self) -> None:
        self.stopped = False
        self.progress = Progress(0.0, 0.0)

    @classmethod
    def connect(cls, *_: object, **__: object) -> "Connecting":
        """As the handler of SIGTERM does, which knows of no worker yet."""
        cls.told.set()
        return cls()

    def stop(self) -> None:
        """Noted."""
        self.stopped = True

    def run(self, **_: object) -> Progress:
        """Would go on for ever."""
        assert self.stopped
        return self.progress


def test_a_signal_that_comes_while_the_worker_connects_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    Connecting.told = threading.Event()
    monkeypatch.setattr(rate, "Worker", Connecting)
    running: list[Connecting] = []
    rate._rate(load(environ={}), None, running, Connecting.told)  # type: ignore[arg-type]
    assert [one.stopped for one in running] == [True]
