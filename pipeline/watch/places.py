"""Where charge points stand: location id, model and rating from the newest reference data. A cache, refreshed."""

import time
from typing import Final

from pipeline.clickhouse import Store
from pipeline.reference import ReferenceData, Resolution, latest_version

_FRESH_S: Final = 30.0


class Places:
    """Answers from the last refresh; safe to read from any thread, since the data is replaced whole."""

    def __init__(self) -> None:
        """Nothing known until `refresh`."""
        self._data = ReferenceData()
        self._refreshed_s = float("-inf")

    def refresh(self, store: Store, now_s: float | None = None) -> None:
        """Take in what was published since; asks the store every half minute at most."""
        now = time.monotonic() if now_s is None else now_s
        if now - self._refreshed_s < _FRESH_S:
            return
        self._data = self._data.advance(store, latest_version(store))
        self._refreshed_s = now

    def location(self, charge_point_id: str) -> str:
        """Its location id; "" when it is not known."""
        return self._found(charge_point_id).location_id

    def model(self, charge_point_id: str) -> str:
        """Its model; "" when it is not known."""
        return self._found(charge_point_id).model

    def place(self, charge_point_id: str) -> tuple[str, str]:
        """Its location id and its model."""
        found = self._found(charge_point_id)
        return found.location_id, found.model

    def rating_w(self, charge_point_id: str, connector_id: int) -> int:
        """What the connector can give, W; 0 when it is not known."""
        return self._data.resolve(charge_point_id, connector_id, "", 0).max_power_w

    def _found(self, charge_point_id: str) -> Resolution:
        return self._data.resolve(charge_point_id, 1, "", 0)
