"""The messages of a replay, day by day, and the reference data that makes them ratable."""

import re
from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from pipeline.errors import DocumentError
from pipeline.replay.mapping import TableMapping
from pipeline.replay.plan import ReplayPlan, replay_edits
from pipeline.simulate.columns import ROW_DTYPE, SAMPLE, START, STOP
from pipeline.simulate.documents import PARTY_ID, UPDATED, Document, tariffs
from pipeline.simulate.encode import Encoder
from pipeline.simulate.message import Batch, Message
from pipeline.simulate.network import SHAPES, Network
from pipeline.simulate.timeline import Timeline
from rating.columns import I64

_DAY_MS: Final = 86_400_000
_HOUR_MS: Final = 3_600_000
_INT32_MAX: Final = 2**31 - 1


class ReplayFeed:
    """The messages of a plan in the order in which they arrived, with ticks. `batches` may be taken once."""

    def __init__(
        self, plan: ReplayPlan, *, shape: str, partitions: int, tick_ms: int = _HOUR_MS, settle_hours: int = 72
    ) -> None:
        self._plan = plan
        self._tick_ms = tick_ms
        self._settle_hours = settle_hours
        self._encoder = Encoder(network_of(plan, shape), partitions)
        self.readings = 0

    def batches(self) -> Iterator[Batch]:
        """One batch a simulated day; ticks come after all that arrived before them."""
        sessions = self._plan.sessions
        if not len(sessions):
            return
        stated = [told.row.end_ms or 0 for told in self._plan.told]
        timeline = Timeline(replay_edits(np.array(stated, np.int64)))
        begin = int(sessions["start_ms"][0]) // self._tick_ms * self._tick_ms
        days = max(_DAY_MS // self._tick_ms, 1) * self._tick_ms
        next_session = 0
        while next_session < len(sessions) or timeline:
            end = begin + days
            until = int(np.searchsorted(sessions["start_ms"], end))
            timeline.begin(sessions[next_session:until])
            rows = timeline.rows(begin, end)
            self.readings += int(np.isin(rows["kind"], (START, SAMPLE, STOP)).sum())
            yield self._encoder.batch(rows, self._ticks(begin, end))
            timeline.forget(end)
            begin, next_session = end, until
        if self._settle_hours:
            # Time-outs fire on ticks: without these a session that never stopped would stay open.
            last = np.arange(1, self._settle_hours + 1) * _HOUR_MS + begin
            yield self._encoder.batch(np.empty(0, ROW_DTYPE), last)

    def messages(self) -> Iterator[Message]:
        """The same, one by one."""
        for batch in self.batches():
            yield from batch.messages()

    def _ticks(self, begin_ms: int, end_ms: int) -> I64:
        return np.arange(begin_ms + self._tick_ms, end_ms + 1, self._tick_ms, dtype=np.int64)


def network_of(plan: ReplayPlan, shape: str) -> Network:
    """The plan's connectors as a network whose charge points all speak `shape`."""
    names = sorted({charge_point for charge_point, _ in plan.connectors})
    at = {name: number for number, name in enumerate(names)}
    zeros = np.zeros(len(names), np.int8)
    return Network(
        cp_names=[name.encode() for name in names],
        cp_site=np.zeros(len(names), np.int32),
        cp_model=zeros,
        cp_shape=np.full(len(names), SHAPES.index(shape), np.int8),
        cp_kwh_unit=zeros,
        cp_resolution_mwh=np.full(len(names), 1, np.int64),
        connector_cp=np.array([at[name] for name, _ in plan.connectors], np.int32),
        connector_id=np.array([number for _, number in plan.connectors], np.int32),
        connector_register_mwh=np.zeros(len(plan.connectors), np.int64),
        site_city=zeros[:1],
        site_kind=zeros[:1],
        token_names=[token.encode() for token in plan.tokens],
        transaction_ids=_numbers(plan),
        transaction_names=_texts(plan),
    )


def _numbers(plan: ReplayPlan) -> I64:
    """The table's own ids where OCPP 1.6 can say them (whole numbers of 31 bits, none twice), else line numbers."""
    ids = [told.row.session for told in plan.told]
    if len(set(ids)) == len(ids) and all(text.isdigit() and 0 < int(text) < _INT32_MAX for text in ids):
        return np.array([int(text) for text in ids], np.int64)
    return np.array([told.row.line for told in plan.told], np.int64)


def _texts(plan: ReplayPlan) -> list[bytes]:
    """The table's own ids where OCPP 2.0.1 can say them (36 characters, none twice), else line numbers."""
    ids = [told.row.session for told in plan.told]
    if len(set(ids)) == len(ids) and all(len(text.encode()) <= 36 for text in ids):
        return [text.encode() for text in ids]
    return [b"%d" % told.row.line for told in plan.told]


def tariff_document(mapping: TableMapping, tariff: Document | None) -> Document:
    """The tariff of the file's connectors: the one given, else the preset's sample."""
    if tariff is not None:
        return tariff
    found = [sample for sample in tariffs() if sample["id"] == mapping.tariff]
    if not found:
        raise DocumentError("no tariff for the file's connectors: give one with --tariff FILE")
    return found[0]


def locations(plan: ReplayPlan, mapping: TableMapping, tariff_id: str) -> Iterator[Document]:
    """One OCPI Location a site of the file, with its connectors. All sites share the mapping's coordinates."""
    sites: dict[str, dict[tuple[str, int], tuple[str, int]]] = {}
    for told in plan.told:
        connector = (told.row.charge_point, told.connector)
        sites.setdefault(told.row.site, {})[connector] = (told.row.model, told.rating_w)
    # A charge point moves with its first site: OCPI knows one place for it.
    seen: set[tuple[str, int]] = set()
    for site, connectors in sorted(sites.items()):
        mine = {key: value for key, value in sorted(connectors.items()) if key not in seen}
        seen.update(mine)
        if mine:
            yield _location(site, mine, mapping, tariff_id)


def _location(
    site: str, connectors: dict[tuple[str, int], tuple[str, int]], mapping: TableMapping, tariff_id: str
) -> Document:
    return {
        "country_code": mapping.country_code,
        "party_id": PARTY_ID,
        "id": re.sub(r"[^A-Za-z0-9]+", "-", site).strip("-")[:36] or "SITE",
        "publish": False,
        "name": site[:255],
        "address": site[:45],
        "city": mapping.city or site[:45],
        "country": mapping.country,
        "coordinates": {"latitude": mapping.latitude, "longitude": mapping.longitude},
        "time_zone": mapping.time_zone,
        "evses": [_evse(key, model, rating_w, tariff_id) for key, (model, rating_w) in connectors.items()],
        "last_updated": UPDATED,
    }


def _evse(key: tuple[str, int], model: str, rating_w: int, tariff_id: str) -> Document:
    charge_point, number = key
    fast = rating_w >= 40_000
    connector: dict[str, Any] = {
        "id": "1",
        "standard": "IEC_62196_T2_COMBO" if fast else "IEC_62196_T2",
        "format": "CABLE" if fast else "SOCKET",
        "power_type": "DC" if fast else "AC_3_PHASE",
        "max_voltage": 400 if fast else 230,
        "max_amperage": rating_w // (400 if fast else 690) + 1,
        "max_electric_power": rating_w,
        "tariff_ids": [tariff_id],
        "last_updated": UPDATED,
    }
    return {
        "uid": f"{charge_point}*{number}"[:36],
        "status": "AVAILABLE",
        "charge_point_id": charge_point,
        "evse_id": number,
        "model": model,
        "connectors": [connector],
        "last_updated": UPDATED,
    }


def tokens(plan: ReplayPlan, mapping: TableMapping) -> Iterator[Document]:
    """An OCPI Token for each user of the file, and for each connector that served someone unnamed."""
    for uid in plan.tokens:
        yield {
            "country_code": mapping.country_code,
            "party_id": PARTY_ID,
            "uid": uid[:36],
            "type": "RFID",
            "contract_id": uid[:36],
            "issuer": "replay",
            "valid": True,
            "whitelist": "ALLOWED",
            "last_updated": UPDATED,
        }
