"""Apache Kafka itself on loopback, without containers: jars through Maven, one KRaft node, its log kept in a folder.

For tests and for people who want the real broker on their machine. Needs Java 17 and, the first time, Maven.
"""

import base64
import re
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Final

from pipeline.embedded.processes import LOOPBACK, Child, give_back, start_on_free_port
from pipeline.errors import EmbeddedError
from pipeline.settings import Settings

VERSION: Final = "4.1.0"
_START_TIMEOUT_S = 90.0
_FETCH_TIMEOUT_S = 600.0
_JVM: Final = ("-Xms256m", "-Xmx768m", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
_COLOURS: Final = re.compile(r"\x1b\[[0-9;]*m")
_ERROR: Final = re.compile(r"\[(ERROR|FATAL)\] [^\[]")  # and then something that is said
_PROPERTIES: Final = """\
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller}
advertised.listeners=PLAINTEXT://{host}:{port}
controller.listener.names=CONTROLLER
controller.quorum.bootstrap.servers={host}:{controller}
log.dirs={logs}
auto.create.topics.enable=false
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
log.cleaner.dedupe.buffer.size=16777216
"""


class ApacheKafka:
    """A running broker: `port`, `pid`, `bootstrap`. Its log survives a restart in the same folder."""

    def __init__(self, child: Child, port: int) -> None:
        self.child = child
        self.port = port
        self.pid = child.pid
        self.bootstrap = f"{LOOPBACK}:{port}"

    @staticmethod
    def start(settings: Settings, folder: Path, *, port: int | None = None, tied: bool = True) -> "ApacheKafka":
        """Start it with its log in `folder`/kafka and wait until it takes connections. Raises EmbeddedError."""
        java = _java(fetch_jars(settings.cache_dir))
        home = folder / "kafka"

        def start(chosen: int, controller: int) -> "ApacheKafka":
            properties = _write_properties(home, chosen, controller)
            if not (home / "log" / "meta.properties").exists():
                _format(java, properties, folder / "kafka-format.log")
            command = [*java, "kafka.Kafka", str(properties)]
            child = Child("Apache Kafka broker", command, folder / "kafka.log", tied=tied)
            child.await_ready(lambda: child.listens_on(chosen), _START_TIMEOUT_S)
            give_back(controller)  # it is asked for anew when the broker comes back
            return ApacheKafka(child, chosen)

        def with_controller(chosen: int) -> "ApacheKafka":
            return start_on_free_port(chosen + 1, lambda controller: start(chosen, controller))

        return (
            start_on_free_port(settings.embedded_broker_port, with_controller)
            if port is None
            else with_controller(port)
        )

    def stop(self) -> None:
        """Stop it; the log stays."""
        self.child.stop(timeout_s=30.0)
        give_back(self.port)


def fetch_jars(cache: Path) -> Path:
    """The folder with Kafka's jars, fetched through Maven when it is not there yet. Raises EmbeddedError."""
    jars = cache.expanduser() / f"kafka-{VERSION}"
    if jars.is_dir():
        return jars
    maven = shutil.which("mvn")
    if maven is None:
        raise EmbeddedError("Apache Kafka's jars come through Maven, which is not installed: apt-get install maven")
    jars.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=jars.parent) as work:
        pom = Path(work, "pom.xml")
        pom.write_text(files("deploy").joinpath("kafka", "pom.xml").read_text("utf-8"), "utf-8")
        copy = [maven, "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={work}/jars"]
        done = subprocess.run(copy, capture_output=True, text=True, timeout=_FETCH_TIMEOUT_S, check=False)
        if done.returncode:
            raise EmbeddedError(f"Maven could not fetch Apache Kafka {VERSION}: {_why(done.stdout + done.stderr)}")
        if not jars.is_dir():  # another process may have been faster
            Path(work, "jars").rename(jars)
    return jars


def _java(jars: Path) -> list[str]:
    program = shutil.which("java")
    if program is None:
        raise EmbeddedError("Apache Kafka needs Java 17 or newer: apt-get install openjdk-17-jre-headless")
    return [program, *_JVM, "-cp", f"{jars}/*"]


def _write_properties(home: Path, port: int, controller: int) -> Path:
    home.mkdir(parents=True, exist_ok=True)
    path = home / "server.properties"
    values = {"host": LOOPBACK, "port": port, "controller": controller, "logs": home / "log"}
    path.write_text(_PROPERTIES.format(**values), "utf-8")
    return path


def _format(java: Sequence[str], properties: Path, log: Path) -> None:
    number = bytearray(uuid.uuid4().bytes)
    number[0] &= 0x7F  # else one id in 64 would begin with "-", which the tool takes for an option
    cluster = base64.urlsafe_b64encode(number).decode().rstrip("=")
    command = [*java, "kafka.tools.StorageTool", "format", "--standalone", "-t", cluster, "-c", str(properties)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_START_TIMEOUT_S, check=False)
    log.write_text(done.stdout + done.stderr, "utf-8")
    if done.returncode:
        raise EmbeddedError(f"Apache Kafka could not format its log folder: {_why(done.stdout + done.stderr)}")


def _why(text: str) -> str:
    """The first line that names an error and says more than that, else the last one."""
    lines = [line for line in _COLOURS.sub("", text).splitlines() if line.strip()]
    errors = [line for line in lines if _ERROR.match(line)]
    return (errors or lines[-1:] or ["it said nothing"])[0]
