"""The embedded parts as processes: what happens when ports are taken, folders are open, parents and parts die."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.clickhouse import Store
from pipeline.embedded.apache_kafka import fetch_jars
from pipeline.embedded.broker import EmbeddedBroker
from pipeline.embedded.processes import LOOPBACK, Child, accepts, free_port, give_back, start_on_free_port
from pipeline.embedded.stack import EmbeddedStore, Run, Stack, stop_running
from pipeline.errors import EmbeddedError, StoreUnavailableError
from pipeline.kafka import Admin, Sender
from pipeline.settings import Settings, load
from pipeline.topics import READINGS, TOPICS


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return replace(load(environ={}), data_dir=tmp_path, kafka_timeout_s=10.0)


def of(settings: Settings, store: EmbeddedStore) -> Settings:
    return replace(settings, clickhouse_port=store.port)


def listening(port: int) -> str:
    """The addresses that listen on this port, as the kernel has them."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return " ".join(
        line.split()[1] for line in lines if line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A"
    )


def test_a_stack_starts_listens_on_loopback_only_and_leaves_nothing_running(settings: Settings) -> None:
    with Stack.start(settings) as stack:
        ports = (stack.broker.port, stack.store.port)
        assert [listening(port) for port in ports] == [f"0100007F:{port:04X}" for port in ports]
        assert Admin(stack.settings).ping() == 1
        with Store(stack.settings) as store:
            store.ping()
        found = load(environ={"WATTRATE_DATA_DIR": str(settings.data_dir)})
        assert (found.kafka_bootstrap, found.clickhouse_port) == (stack.broker.bootstrap, stack.store.port)
    assert not any(accepts(port) for port in ports)
    assert Run.read(settings.data_dir) is None


def test_a_taken_port_leads_to_the_next(settings: Settings) -> None:
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        port = taken.getsockname()[1]
        broker = EmbeddedBroker.start(replace(settings, embedded_broker_port=port), settings.data_dir)
    broker.stop()
    assert port < broker.port < port + 50


def test_a_second_stack_in_the_same_folder_is_refused(settings: Settings) -> None:
    with Stack.start(settings), pytest.raises(EmbeddedError, match=r"a stack runs in .* already .*--stop"):
        Stack.start(settings)


def test_a_second_store_on_the_same_folder_is_refused_by_the_lock(settings: Settings) -> None:
    store = EmbeddedStore.start(settings, settings.data_dir)
    with pytest.raises(EmbeddedError, match=rf"process {store.pid}\) has .* open: use it, stop it, or name another"):
        EmbeddedStore.start(settings, settings.data_dir)
    store.stop()


def test_a_killed_store_reopens_with_every_acknowledged_row(settings: Settings) -> None:
    rows = 0
    for _ in range(3):
        part = EmbeddedStore.start(settings, settings.data_dir)
        with Store(of(settings, part)) as store:
            store.command(
                "CREATE TABLE IF NOT EXISTS t (a UInt64) ENGINE = MergeTree ORDER BY a SETTINGS fsync_after_insert = 1"
            )
            assert store.scalar("SELECT count() FROM t") == rows
            for _ in range(5):
                rows += store.insert("t", pa.table({"a": pa.array(range(rows, rows + 1000), pa.uint64())}))
            part.child.kill()
            with pytest.raises(StoreUnavailableError):
                store.ping()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small file system (root)")
    yield folder
    unmount = ["umount", "-l", str(folder)]
    subprocess.run(unmount, check=True)


def test_a_full_disk_is_an_outage_no_row_is_acknowledged_that_is_not_there(
    settings: Settings, small_disk: Path
) -> None:
    part = EmbeddedStore.start(replace(settings, data_dir=small_disk), small_disk)
    numbers = np.random.default_rng(1)
    with Store(of(settings, part)) as store:
        make = "CREATE TABLE t (a UInt64) ENGINE = MergeTree ORDER BY a SETTINGS fsync_after_insert = 1"
        store.command(make)
        rows, outages = 0, 0
        for _ in range(40):
            try:
                rows += store.insert("t", pa.table({"a": numbers.integers(0, 1 << 62, 200_000, np.uint64)}))
            except StoreUnavailableError as error:
                assert "not enough space" in error.message
                outages += 1
            assert store.scalar("SELECT count() FROM t") == rows
        assert rows and outages
        store.command("DROP TABLE t SYNC")
        store.command(make)
        assert store.insert("t", pa.table({"a": pa.array([1], pa.uint64())})) == 1
    part.stop()


def test_a_restarted_broker_is_a_new_log(settings: Settings) -> None:
    ids = set()
    for _ in range(2):
        broker = EmbeddedBroker.start(settings, settings.data_dir)
        admin = Admin(replace(settings, kafka_bootstrap=broker.bootstrap))
        admin.create_topics(TOPICS[:2], 4)
        assert admin.log_id(READINGS) == admin.log_id(READINGS)
        ids |= {admin.log_id(topic.name) for topic in TOPICS[:2]}
        broker.child.kill()
    assert len(ids) == 4


def test_the_parts_end_with_a_parent_that_is_killed(settings: Settings) -> None:
    program = (
        "import sys, time; from dataclasses import replace; from pathlib import Path\n"
        "from pipeline.settings import load; from pipeline.embedded.stack import Stack\n"
        "stack = Stack.start(replace(load(environ={}), data_dir=Path(sys.argv[1])))\n"
        "print(stack.broker.pid, stack.store.pid, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", program, str(settings.data_dir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        parent.kill()
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(pids) == 2 and not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_a_part_that_died_is_told_with_its_last_words(settings: Settings) -> None:
    with Stack.start(settings) as stack:
        assert stack.dead_part() is None
        stack.broker.child.kill()
        assert "the embedded broker ended" in (stack.dead_part() or "")


def test_a_missing_or_wrong_broker_program_says_what_to_do(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(EmbeddedError, match=r"can't start the embedded broker .*No such file"):
        EmbeddedBroker.start(replace(settings, broker_binary=str(tmp_path / "none")), tmp_path)
    with pytest.raises(EmbeddedError, match="the embedded broker ended at once"):
        EmbeddedBroker.start(replace(settings, broker_binary="/bin/false"), tmp_path)


def wattrate(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {
        **{k: v for k, v in os.environ.items() if not k.startswith("WATTRATE_")},
        "WATTRATE_DATA_DIR": str(folder),
    }
    command = [sys.executable, "-m", "pipeline.cli", *arguments]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120, check=False)


def test_up_in_the_background_is_found_by_other_commands_and_stopped_by_name(tmp_path: Path) -> None:
    assert wattrate(tmp_path, "up", "--bare", "--background", "--json").returncode == 0
    try:
        assert wattrate(tmp_path, "doctor").returncode == 0
        again = wattrate(tmp_path, "up", "--background")
        assert again.returncode == 8 and "already" in again.stderr
    finally:
        assert wattrate(tmp_path, "up", "--stop").stdout == "stopped\n"
    assert wattrate(tmp_path, "doctor").returncode == 1
    assert wattrate(tmp_path, "up", "--stop").stdout.startswith("nothing runs in")


def test_up_in_the_foreground_stops_cleanly_on_ctrl_c(tmp_path: Path) -> None:
    environ = {**os.environ, "WATTRATE_DATA_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "pipeline.cli", "up", "--bare"]
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as up:
        assert up.stdout is not None and up.stderr is not None
        assert up.stdout.readline().startswith("broker     127.0.0.1:")
        run = Run.read(tmp_path)
        up.send_signal(signal.SIGINT)
        assert up.wait(60) == 0 and up.stderr.read() == ""
    assert run is not None and not any(Path(f"/proc/{pid}").exists() for pid in run.parts.values())
    assert not stop_running(tmp_path)


def test_parts_that_start_at_the_same_moment_get_ports_of_their_own() -> None:
    # given eight starters that all ask from the same port on, when each takes its time, then no two have the same
    first, together = free_port(41_000), threading.Barrier(8)
    given: list[int] = []

    def start(port: int) -> int:
        time.sleep(0.2)  # between the look at the port and the child's bind
        return port

    def starter() -> None:
        together.wait()
        given.append(start_on_free_port(first, start))

    threads = [threading.Thread(target=starter) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(given)) == 8 and not any(accepts(port) for port in given)
    for port in given:
        give_back(port)
    assert start_on_free_port(first, lambda port: port) == min(given)
    give_back(min(given))


def test_a_port_that_a_stranger_takes_at_the_last_moment_leads_to_the_next() -> None:
    with socket.socket() as stranger:

        def start(port: int) -> int:
            if stranger.getsockname()[1] == 0:
                stranger.bind((LOOPBACK, port))
                stranger.listen()
                raise EmbeddedError("address in use")
            return port

        port = start_on_free_port(41_100, start)
        give_back(port)
        assert port > stranger.getsockname()[1]


def test_a_port_that_another_program_answers_on_does_not_make_a_part_ready(tmp_path: Path) -> None:
    with socket.socket() as stranger:
        stranger.bind((LOOPBACK, 0))
        stranger.listen()
        child = Child("sleeper", ["sleep", "60"], tmp_path / "log")
        port = stranger.getsockname()[1]
        assert accepts(port) and not child.listens_on(port)
        child.kill()


def test_a_part_that_fails_on_a_port_of_its_own_is_not_tried_again() -> None:
    tried: list[int] = []

    def start(port: int) -> int:
        tried.append(port)
        raise EmbeddedError("no")

    with pytest.raises(EmbeddedError, match="no"):
        start_on_free_port(41_200, start)
    assert len(tried) == 1


def test_ports_that_are_all_taken_are_told() -> None:
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 65535))
        taken.listen()
        with pytest.raises(EmbeddedError, match="are all taken"):
            free_port(65535)


@pytest.mark.kafka
def test_why_maven_failed_is_told_without_colours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maven = tmp_path / "mvn"
    maven.write_text(
        "#!/bin/sh\ncat <<'SAID'\n\x1b[0m[ERROR] [ERROR] Some problems:\n[FATAL] Non-parseable POM\n"
        "[ERROR] see -> [Help 1]\n\x1b[0m\x1b[0m\nSAID\nexit 1\n"
    )
    maven.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(EmbeddedError, match=r"could not fetch Apache Kafka .*: \[FATAL\] Non-parseable POM$"):
        fetch_jars(tmp_path / "cache")


def test_a_stack_with_apache_kafka_keeps_its_log_over_a_restart(settings: Settings) -> None:
    if not (shutil.which("java") and shutil.which("mvn")):
        pytest.skip("Apache Kafka needs Java 17 and Maven, which are not installed here")
    ids, ends = set(), []
    for _ in range(2):
        with Stack.start(settings, kafka=True) as stack:
            admin = Admin(stack.settings)
            admin.create_topics(TOPICS, 2)
            with Sender(stack.settings) as sender:
                sender.broadcast(READINGS, b'{"control":"tick","time_ms":1}')
            ids.add(admin.log_id(READINGS))
            ends.append(admin.end_offsets(READINGS))
    assert len(ids) == 1 and ends == [{0: 1, 1: 1}, {0: 2, 1: 2}]
