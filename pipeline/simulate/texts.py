"""Columns of rows as the texts that JSON messages are made of."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.simulate.network import MODELS, Network
from pipeline.simulate.variants import TIME_NO_ZONE, TIME_ZERO, TXN_VALUES
from rating.columns import I64

Rows = npt.NDArray[Any]
_TABLE_SECONDS_A_ROW = 2  # denser rows are looked up in a table of every second, others by their distinct ones


@dataclass(frozen=True)
class Texts:
    """Formats rows for one network."""

    network: Network

    def charge_points(self, rows: Rows) -> list[bytes]:
        """The charge point's id of each row."""
        names = self.network.cp_names
        return [names[cp] for cp in self.network.connector_cp[rows["connector"]].tolist()]

    def connector_ids(self, rows: Rows) -> list[int]:
        """The OCPP connector (or EVSE) number of each row."""
        ids: list[int] = self.network.connector_id[rows["connector"]].tolist()
        return ids

    def kwh_unit(self, rows: Rows) -> npt.NDArray[np.bool_]:
        """Which rows come from a charge point that labels its registers kWh."""
        kwh: npt.NDArray[np.bool_] = self.network.cp_kwh_unit[self.network.connector_cp[rows["connector"]]] == 1
        return kwh

    def says_currents(self, rows: Rows) -> npt.NDArray[np.bool_]:
        """Which rows come from a model that sends the current of each phase."""
        says = np.array([model.says_currents for model in MODELS])
        told: npt.NDArray[np.bool_] = says[self.network.cp_model[self.network.connector_cp[rows["connector"]]]]
        return told

    def tokens(self, rows: Rows) -> list[bytes]:
        """The uid of the token of each row."""
        names = self.network.token_names
        numbers = rows["token"].tolist()
        return [b"T%08d" % number for number in numbers] if names is None else [names[number] for number in numbers]

    def transaction_numbers(self, rows: Rows) -> list[int]:
        """The transaction id of each row where ids are numbers (OCPP 1.6), with the ids that lie in their place."""
        ids = self.network.transaction_ids
        numbers = rows["number"].copy() if ids is None else ids[rows["number"]]
        for variant, value in TXN_VALUES.items():
            numbers[rows["variant"] == variant] = value
        values: list[int] = numbers.tolist()
        return values

    def transactions(self, rows: Rows) -> list[bytes]:
        """The transaction id of each row where ids are texts (OCPP 2.x), or an id that lies."""
        names = self.network.transaction_names
        texts = [transaction_uuid(n) if names is None else names[n] for n in rows["number"].tolist()]
        for variant, value in TXN_VALUES.items():
            for at in np.flatnonzero(rows["variant"] == variant).tolist():
                texts[at] = b"%d" % value
        return texts

    def deciamperes(self, rows: Rows) -> list[int]:
        """Current in each of three phases in 0.1 A, at 230 V."""
        amperes: list[int] = (rows["power_mw"] // 69_000).tolist()
        return amperes


def watts(rows: Rows) -> list[int]:
    """Power of each row in whole W."""
    values: list[int] = (rows["power_mw"] // 1_000).tolist()
    return values


def transaction_uuid(number: int) -> bytes:
    """A session's number as a 36-character id."""
    return b"%08x-0000-4000-8000-%012x" % (number * 2654435761 & 0xFFFFFFFF, number)


def instants(times_ms: I64) -> list[bytes]:
    """`2026-01-05T08:00:00` for each instant, floored to the second, without a zone."""
    if not len(times_ms):
        return []
    seconds = times_ms // 1_000
    first, last = int(seconds.min()), int(seconds.max())
    if last - first > _TABLE_SECONDS_A_ROW * len(seconds):
        distinct, which = np.unique(seconds, return_inverse=True)
        wide = [text.encode() for text in _iso(distinct)]
        return [wide[at] for at in which.tolist()]
    table = [text.encode() for text in _iso(np.arange(first, last + 1))]
    return [table[at] for at in (seconds - first).tolist()]


def _iso(seconds: I64) -> Iterable[str]:
    texts: list[str] = np.datetime_as_string(seconds.astype("M8[s]")).tolist()
    return texts


def timestamps(rows: Rows) -> list[bytes]:
    """The event time of each row as the charger writes it."""
    texts = [text + b"Z" for text in instants(rows["time_ms"])]
    for at in np.flatnonzero(rows["variant"] == TIME_NO_ZONE).tolist():
        texts[at] = texts[at][:-1]
    for at in np.flatnonzero(rows["variant"] == TIME_ZERO).tolist():
        texts[at] = b"0000-00-00T00:00:00Z"
    return texts


def arrivals(rows: Rows) -> list[bytes]:
    """`received_at` of each row, to the ms."""
    milliseconds = (rows["arrival_ms"] % 1_000).tolist()
    return [b"%b.%03dZ" % pair for pair in zip(instants(rows["arrival_ms"]), milliseconds, strict=True)]


def wh_texts(register_mwh: I64) -> list[bytes]:
    """Registers as decimal Wh, with only the decimals they have."""
    whole, rest = register_mwh // 1_000, register_mwh % 1_000
    texts = [b"%d" % wh for wh in whole.tolist()]
    for at in np.flatnonzero(rest).tolist():
        texts[at] = decimal(int(register_mwh[at]), 3)
    return texts


def kwh_texts(register_mwh: I64) -> list[bytes]:
    """Registers as decimal kWh, to the Wh, or with the decimals they have beyond it."""
    wh, rest = register_mwh // 1_000, register_mwh % 1_000
    texts = [b"%d.%03d" % divmod(value, 1_000) for value in wh.tolist()]
    for at in np.flatnonzero((rest != 0) | (wh < 0)).tolist():
        texts[at] = decimal(int(register_mwh[at]), 6)
    return texts


def decimal(value: int, places: int) -> bytes:
    """`value` / 10**places as a plain decimal without trailing zeros: decimal(-1500, 3) is b"-1.5"."""
    sign = b"-" if value < 0 else b""
    whole, rest = divmod(abs(value), 10**places)
    digits = (b"%0*d" % (places, rest)).rstrip(b"0")
    return sign + b"%d" % whole + (b"." + digits if digits else b"")
