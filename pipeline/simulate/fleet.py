"""A fleet that lives through simulated time and hands out its messages, window by window.

Everything follows from the plan: the same plan gives the same bytes on every machine. Memory follows the
number of open sessions. Nothing here reads a clock or writes to a log.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pyarrow as pa

from pipeline.simulate.arrivals import HOUR_MS, Arrivals, shape, stay
from pipeline.simulate.columns import ROW_DTYPE, SAMPLE, START, STOP
from pipeline.simulate.curve import AVAILABLE_AFTER_MS, close
from pipeline.simulate.encode import Encoder
from pipeline.simulate.fault import Draft
from pipeline.simulate.faults import NAMES
from pipeline.simulate.faults_register import ROLLOVER_MWH
from pipeline.simulate.message import Batch, Chunk, Message
from pipeline.simulate.network import make_network
from pipeline.simulate.strike import EDITS, Strikes, share_tokens
from pipeline.simulate.texts import Rows
from pipeline.simulate.timeline import Timeline
from pipeline.simulate.truth import SCHEMA, truth_of
from rating.columns import I64

DEFAULT_START_MS: Final = 1_767_571_200_000  # Monday 2026-01-05 00:00 UTC
_CONNECTORS_A_WINDOW: Final = 200_000  # windows get shorter as fleets grow, so that memory stays


@dataclass(frozen=True)
class FleetPlan:
    """What to simulate. Times ms, energies mWh; rates are shares of sessions, or of charge points (see `FAULTS`)."""

    seed: int = 7
    charge_points: int = 1_000
    start_ms: int = DEFAULT_START_MS
    hours: float = 24.0  # for which cars arrive; those that came stay as long as they need
    sample_ms: int = 60_000
    shape: str = "mixed"  # mixed | ocpp16 | ocpp201 | flat | arrow
    sessions_per_day: float = 2.0  # of each connector
    faults: Mapping[str, float] = field(default_factory=dict)
    partitions: int = 64
    tick_ms: int = 60_000
    settle_hours: int = 72  # hourly ticks after the last message, so that time-outs fire

    @property
    def stop_ms(self) -> int:
        """When the last car may arrive."""
        return self.start_ms + int(self.hours * HOUR_MS)


class Fleet:
    """One run of a plan. `chunks` may be taken once; make another Fleet to run again."""

    def __init__(self, plan: FleetPlan) -> None:
        self.plan = plan
        self.network = make_network(plan.seed, plan.charge_points, plan.shape)
        self._strikes = Strikes(self.network, plan.faults, self._random(1))
        self._arrivals = Arrivals(self.network, plan.sessions_per_day, plan.sample_ms)
        self._city = self.network.site_city[self.network.cp_site[self.network.connector_cp]]
        self._register_mwh = self._first_registers()
        self._busy_until_ms = np.full(self.network.connectors, plan.start_ms, np.int64)
        self._count = np.zeros(self.network.connectors, np.int64)
        self._sessions = 0
        self._timeline = Timeline(EDITS if self._strikes.any else {})

    def _random(self, *stream: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence([self.plan.seed, *stream])))

    def _first_registers(self) -> I64:
        registers = self.network.connector_register_mwh.copy()
        wraps = self._strikes.cp_fault[self.network.connector_cp] == NAMES.index("rollover_23bit")
        registers[wraps] = ROLLOVER_MWH - registers[wraps] % 15_000_000 // 1_000 * 1_000 - 800
        return registers

    def chunks(self) -> Iterator[Chunk]:
        """Windows of simulated time in order, each with its messages, its ticks and the truth of its sessions."""
        encoder = Encoder(self.network, self.plan.partitions)
        for until_ms, rows, truth in self._windows():
            ticks = np.arange(until_ms - self._window_ms() + self.plan.tick_ms, until_ms + 1, self.plan.tick_ms)
            readings = int(np.isin(rows["kind"], (START, SAMPLE, STOP)).sum())
            yield Chunk(until_ms, encoder.batch(rows, ticks), truth, readings)
        yield from self._settle(encoder, until_ms)

    def messages(self) -> Iterator[Message]:
        """All messages one by one."""
        for chunk in self.chunks():
            yield from chunk.batch.messages()

    def truth(self) -> pa.Table:
        """The truth about every session, without making the messages."""
        return pa.concat_tables([truth for _, _, truth in self._windows(rows=False)])

    def _window_ms(self) -> int:
        ticks = min(10, max(1, _CONNECTORS_A_WINDOW // self.network.connectors))
        return self.plan.tick_ms * ticks

    def _windows(self, *, rows: bool = True) -> Iterator[tuple[int, Rows, pa.Table]]:
        begin, number = self.plan.start_ms, 0
        empty = np.empty(0, ROW_DTYPE)
        while begin < self.plan.stop_ms or self._timeline:
            end = begin + self._window_ms()
            truth = SCHEMA.empty_table()
            if begin < self.plan.stop_ms:
                truth = self._begin_sessions(begin, min(end, self.plan.stop_ms), number)
            yield end, self._timeline.rows(begin, end) if rows else empty, truth
            self._timeline.forget(end)
            begin, number = end, number + 1

    def _begin_sessions(self, begin_ms: int, end_ms: int, window: int) -> pa.Table:
        rng = self._random(2, window)
        sessions = self._arrivals.draw(rng, begin_ms, end_ms, self._busy_until_ms <= begin_ms)
        connectors = sessions["connector"]
        sessions["number"] = self._sessions + 1 + np.arange(len(sessions))
        sessions["base_mwh"] = self._register_mwh[connectors]
        draft = self._draft(sessions, rng)
        self._sessions += len(sessions)
        self._register_mwh[connectors] = draft.after_mwh
        self._busy_until_ms[connectors] = draft.busy_ms
        self._count[connectors] += 1
        self._timeline.begin(sessions)
        return truth_of(draft, self.network)

    def _draft(self, sessions: Rows, rng: np.random.Generator) -> Draft:
        connectors = sessions["connector"]
        zeros = np.zeros(len(sessions), np.int64)
        draft = Draft(
            sessions=sessions,
            rating_mw=self._arrivals.rating_mw[connectors],
            count=self._count[connectors],
            own=self._strikes.own[self.network.connector_cp[connectors]],
            run_start_ms=self.plan.start_ms,
            run_stop_ms=self.plan.stop_ms,
            after_mwh=zeros.copy(),
            expected_mwh=zeros.copy(),
            outside_mwh=zeros.copy(),
            busy_ms=zeros.copy(),
            labelled=np.ones(len(sessions), np.bool_),
        )
        shape(sessions)
        if self._strikes.any:
            self._strikes.choose(draft, rng)
            share_tokens(sessions, self._timeline.open, self._city)
            self._strikes.redraw(draft)
            shape(sessions)
        stay(sessions, rng, draft.count)
        if self._strikes.any:
            self._strikes.place(draft, rng)
            self._strikes.reshape(draft)
        close(sessions)
        draft.after_mwh[:] = sessions["base_mwh"] + sessions["energy_mwh"]
        draft.expected_mwh[:] = sessions["energy_mwh"]
        draft.busy_ms[:] = sessions["stop_ms"] + AVAILABLE_AFTER_MS + 45_000
        if self._strikes.any:
            self._strikes.conclude(draft)
        return draft

    def _settle(self, encoder: Encoder, until_ms: int) -> Iterator[Chunk]:
        """Hourly ticks after the last message."""
        ticks = until_ms + HOUR_MS * np.arange(1, self.plan.settle_hours + 1)
        if len(ticks):
            batch: Batch = encoder.batch(np.empty(0, ROW_DTYPE), ticks)
            yield Chunk(int(ticks[-1]), batch, SCHEMA.empty_table(), 0)
