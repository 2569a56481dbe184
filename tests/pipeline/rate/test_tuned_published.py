"""A policy with thresholds of a model, published by the command, on a broker and a store."""

import json
from pathlib import Path

from click.testing import CliRunner

from pipeline.clickhouse import Store
from pipeline.commands.publish import command
from pipeline.kafka import Sender
from pipeline.rate.worker import Worker
from pipeline.settings import Settings
from pipeline.topics import READINGS
from tests.pipeline.metering.charger import NAME, TARIFF_16, Charger, location
from tests.pipeline.rate.test_tuned_rating import stuck


def publish(settings: Settings, folder: Path, *documents: object) -> str:
    """`wattrate publish` of these."""
    path = folder / "published.json"
    path.write_text(json.dumps(documents))
    done = CliRunner().invoke(command, [str(path)], obj=settings, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def send(settings: Settings, box: Charger) -> None:
    """What a charger says, without the control records of a story in memory."""
    with Sender(settings) as sender:
        for key, value, _, _ in box.records:
            if key:
                sender.send(READINGS, value, key)
        sender.flush()


def test_a_model_is_judged_by_its_own_thresholds_as_soon_as_they_are_published(ready: Settings, tmp_path: Path) -> None:
    other = json.loads(json.dumps(location(model="DC 50")).replace(f'"{NAME}', '"CP2')) | {"id": "L2"}
    publish(ready, tmp_path, TARIFF_16, location(model="AC 22"), other)
    send(ready, stuck(Charger(), 0, 1))
    policy = {"policy": "metering", "tune": [{"model": "AC 22", "stuck_mwh": 10**9}]}
    assert publish(ready, tmp_path, policy) == "reference version 2: 1 policies; 0 as before\n"
    for name in (NAME, "CP2"):
        send(ready, stuck(Charger(name), 100, 2))
    Worker.connect(ready, wait=lambda: False).run(drain_s=4.0)
    with Store(ready) as store:
        alerts = store.rows("SELECT charge_point_id, session_key FROM alerts WHERE kind = 'stuck_register'")
        held = store.rows("SELECT charge_point_id FROM quarantine")
    assert sorted(row["charge_point_id"] for row in alerts) == [NAME, "CP2"]
    assert sorted(row["charge_point_id"] for row in held) == [NAME, "CP2"]
