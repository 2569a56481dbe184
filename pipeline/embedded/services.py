"""wattrate's own commands as child processes beside the embedded parts: the rating worker and watch."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from pipeline.embedded.processes import Child
from pipeline.errors import EmbeddedError, SettingsError
from pipeline.settings import RUN_FILE, Settings

_STOP_TIMEOUT_S = 60.0  # a worker finishes its batch and stores its state


class Services:
    """Commands that run until they are stopped; each logs to NAME.log in the data folder."""

    def __init__(self, children: Sequence[Child]) -> None:
        self.children = children

    @classmethod
    def start(cls, settings: Settings, commands: Sequence[str], config: Path | None = None) -> Self:
        """Start `wattrate NAME [ARGUMENTS]` for each command; they find the parts by the run file.

        Raises SettingsError when a setting names another broker or store than the embedded ones.
        """
        for name in ("kafka_bootstrap", "clickhouse_host", "clickhouse_port") if commands else ():
            source = settings.sources.get(name, "")
            if source and not source.endswith(RUN_FILE) and source != "embedded stack":
                raise SettingsError(f"{source} sets {name}, but an embedded one was asked for: unset it, or use --bare")
        program = [sys.executable, "-m", "pipeline.cli", *(["--config", str(config)] if config else [])]
        folder = settings.data_dir.absolute()
        started = [(command.split()[0], [*program, *command.split()]) for command in commands]
        return cls([Child(f"{name} service", arguments, folder / f"{name}.log") for name, arguments in started])

    def pids(self) -> dict[str, int]:
        """Name → process."""
        return {child.name.split()[0]: child.pid for child in self.children}

    def check(self) -> None:
        """Raise EmbeddedError with the last words of one that has ended."""
        for child in self.children:
            if not child.running():
                raise EmbeddedError(f"the {child.name} ended: {child.last_words()}")

    def stop(self) -> None:
        """Ask all to finish, then wait for each."""
        for child in self.children:
            child.ask_to_end()
        for child in self.children:
            child.stop(_STOP_TIMEOUT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
