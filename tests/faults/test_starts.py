"""Things that are absent, empty, unknown or full: each has a defined outcome and a message that says what to do."""

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.clickhouse import Store
from pipeline.embedded.processes import free_port
from pipeline.embedded.stack import EmbeddedStore
from pipeline.kafka import Sender
from pipeline.settings import Settings
from pipeline.simulate.documents import reference_documents
from pipeline.simulate.fleet import Fleet
from pipeline.topics import READINGS
from tests.contract.proxy import Fault, Proxy
from tests.faults.kills import TAKEN_OVER
from tests.faults.rig import Feeder, Process, await_rated, equal_to_oracle, faulty_fleet, publish, tell
from tests.stack import fresh, prepared, running_stack

WAITING = "waiting for broker and store"


def test_a_store_that_is_absent_at_the_start_is_waited_for(ready: Settings, tmp_path: Path) -> None:
    with Proxy(ready.clickhouse_port) as proxy:
        through = replace(ready, clickhouse_port=proxy.port)
        with proxy.fault(Fault(refuse=True)):
            worker = Process(through, tmp_path / "worker.log", "rate", "--drain", "1")
            assert worker.await_word(WAITING), worker.said()
        with worker:
            assert worker.wait() == 0, worker.said()
            assert TAKEN_OVER in worker.said()


def test_a_broker_that_is_absent_at_the_start_is_waited_for_until_a_person_ends_it(
    ready: Settings, tmp_path: Path
) -> None:
    nowhere = replace(ready, kafka_bootstrap=f"127.0.0.1:{free_port(39_500)}", kafka_timeout_s=1.0)
    with Process(nowhere, tmp_path / "worker.log") as worker:
        assert worker.await_word(WAITING), worker.said()
        assert worker.ended() is None
        assert worker.stop() in (0, 4), worker.said()
        assert "does not answer" in worker.said() and "Traceback" not in worker.said(), worker.said()


def test_without_topics_or_tables_the_worker_names_init(stack_empty: Settings, tmp_path: Path) -> None:
    with Process(stack_empty, tmp_path / "worker.log") as worker:
        assert worker.wait() == 4, worker.said()
        assert "wattrate init" in worker.said() and "Traceback" not in worker.said(), worker.said()


@pytest.fixture
def stack_empty(ready: Settings) -> Settings:
    return fresh(ready)


def test_an_empty_topic_is_rated_at_once(ready: Settings, tmp_path: Path) -> None:
    with Process(ready, tmp_path / "worker.log", "rate", "--drain", "1", "--json") as worker:
        assert worker.wait() == 0, worker.said()
        assert '"records": 0' in worker.said()


def session(charge_point: str, connector: int = 1) -> Iterator[bytes]:
    """A flat-JSON session of two kWh in an hour; it arrives when it happens."""
    for minute, event in ((0, "start"), (30, "sample"), (60, "stop")):
        time = f"2026-01-05T{10 + minute // 60}:{minute % 60:02d}:00Z"
        yield (
            f'{{"charge_point_id":"{charge_point}","connector_id":{connector},"transaction_id":"{connector}",'
            f'"timestamp":"{time}","received_at":"{time}","energy_wh":{minute * 2_000 // 60},"event":"{event}"}}'
        ).encode()


def test_unknown_connectors_and_tariffs_that_come_after_the_readings(ready: Settings, tmp_path: Path) -> None:
    fleet = faulty_fleet(1, charge_points=3)
    known = charge_point_of(fleet)
    with Process(ready, tmp_path / "worker.log") as worker, Sender(ready) as sender:
        assert worker.await_word(TAKEN_OVER), worker.said()
        for name, connector in (("NOWHERE", 1), (known, 1), (known, 7)):
            for value in session(name, connector):
                sender.send(READINGS, value, name.encode())
        sender.broadcast(READINGS, b'{"control":"tick","time_ms":1767610800000}')
        await_rated(ready)
        assert held(ready) == {"unknown_tariff": 3}, "nothing is billed and nothing is lost"
        publish(ready, fleet, tmp_path / "reference")
        sender.broadcast(READINGS, b'{"control":"tick","time_ms":1767614400000}')
        await_rated(ready)
        assert worker.stop() == 0, worker.said()
    with Store(ready) as store:
        billed = store.rows("SELECT charge_point_id, energy_mwh FROM cdrs WHERE energy_mwh > 0 AND total_incl_e4 > 0")
    assert billed == [{"charge_point_id": known, "energy_mwh": 2_000_000}], "the tariff came late, the bill is right"
    assert held(ready) == {"unknown_tariff": 2}, "what is still unknown waits"
    tell(equal_to_oracle(ready))


def charge_point_of(fleet: Fleet) -> str:
    """The name of one that the fleet's locations know."""
    first = reference_documents(fleet.network)["locations"][0]["evses"][0]
    return str(first.get("charge_point_id", first["uid"]))


def held(settings: Settings) -> dict[str, int]:
    """Sessions held now, by reason."""
    sql = (
        "SELECT reason, count() AS sessions FROM (SELECT session_key, argMax(reason, (offset, line)) AS reason, "
        "argMax(action, (offset, line)) AS last FROM quarantine GROUP BY session_key) "
        "WHERE last = 'held' GROUP BY reason"
    )
    with Store(settings) as store:
        return {row["reason"]: row["sessions"] for row in store.rows(sql)}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 96 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small file system (root)")
    yield folder
    unmount = ["umount", "-l", str(folder)]
    subprocess.run(unmount, check=True)


def test_a_full_disk_under_the_store_is_an_outage_that_ends_with_the_lack(tmp_path: Path, small_disk: Path) -> None:
    with running_stack(tmp_path / "stack") as stack:
        part = EmbeddedStore.start(stack.settings, small_disk)
        try:
            settings = prepared(replace(stack.settings, clickhouse_port=part.port))
            settings = replace(settings, batch_records=200, batch_wait_s=0.05, session_timeout_s=2.0)
            fleet = faulty_fleet(9, charge_points=20, hours=3.0)
            publish(settings, fleet, tmp_path / "reference")
            with Process(settings, tmp_path / "worker.log") as worker:
                assert worker.await_word(TAKEN_OVER), worker.said()
                ballast = small_disk / "ballast"
                fill(ballast)
                feeder = Feeder(settings, fleet, 2.0)
                assert worker.await_word("outage: partitions are paused"), worker.said()
                ballast.unlink()
                feeder.done()
                await_rated(settings)
                assert worker.stop() == 0, worker.said()
                assert "Traceback" not in worker.said(), worker.said()
            tell(equal_to_oracle(settings))
        finally:
            part.stop()


def fill(file: Path) -> None:
    """Write until the disk is full."""
    with file.open("wb", buffering=0) as out:
        try:
            while True:
                out.write(b"\0" * 65_536)
        except OSError:
            return
