"""Between two sessions of a connector the register moves by what was booked outside: seen to hold, and to break."""

import pytest

from pipeline.clickhouse import Store
from pipeline.embedded.stack import Stack
from pipeline.read.checks import OK, Check
from pipeline.read.verify import verify
from pipeline.settings import Settings
from tests.pipeline.read import network
from tests.stack import prepared

NAME = "registers_between_sessions"


@pytest.fixture(scope="module")
def neighbours(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Three sessions of one connector, 0.5 kWh between the first two, nothing before the third; one on another."""
    settings = prepared(stack.settings)
    network.open_network(settings, tmp_path_factory.mktemp("neighbours"))
    network.send(settings, network.charging("BREMEN-1", "1"))
    network.send(settings, network.charging("BREMEN-1", "2", first_minute=90, first_wh=111_500))
    network.send(settings, network.charging("BREMEN-1", "3", first_minute=180, first_wh=122_500))
    network.send(settings, network.charging("BREMEN-2", "4"))
    network.tick(settings, 300)
    network.rate(settings)
    return settings


def found(store: Store) -> Check:
    """What the verifier says of it."""
    return next(check for check in verify(store) if check.name == NAME)


def test_what_flowed_between_sessions_is_booked_to_the_last_mwh(neighbours: Settings) -> None:
    with Store(neighbours) as store:
        check = found(store)
        assert (check.state, check.compared) == (OK, 2)
        assert "0.5 kWh = 0.5 outside any transaction + 0 unexplained" in check.text
        settings = {"mutations_sync": "2"}
        change = "ALTER TABLE reading_rows UPDATE energy_mwh = energy_mwh {} 1 WHERE disposition = 'outside'"
        store.command(change.format("+"), settings)
        check = found(store)
        store.command(change.format("-"), settings)
        assert check.wrong == 1
        [place] = check.places
        assert (place["charge_point_id"], place["moved_mwh"], place["booked_mwh"]) == ("BREMEN-1", 500_000, 500_001)
        assert found(store).state == OK
