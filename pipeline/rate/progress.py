"""What a worker has done since it started, and the figures that its metrics page shows of it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pipeline.ledger import Marker
from pipeline.metrics import Figure
from pipeline.rate.batch import OUTCOMES


@dataclass
class Progress:
    """Counts of what counts: batches that have their markers. Seconds are the worker's own clock."""

    started_s: float
    idle_since_s: float
    first_batch_s: float = 0.0  # when its first batch was read, and when its last one counted
    last_batch_s: float = 0.0
    records: int = 0
    readings: int = 0
    rated: int = 0
    cdrs: int = 0
    alerts: int = 0
    batches: int = 0
    outcomes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(OUTCOMES, 0))
    log_time_ms: dict[int, int] = field(default_factory=dict)  # by partition owned: how far its log is rated
    lag: dict[int, int] = field(default_factory=dict)  # by partition owned: records behind its last marker
    waits_for: str = ""  # the outage that it waits out, as told in the log

    def note(self, markers: Iterable[Marker], now_s: float) -> None:
        """A batch counts."""
        self.idle_since_s = self.last_batch_s = now_s
        self.batches += 1
        for marker in markers:
            self.records += marker.records
            self.readings += marker.readings
            self.rated += marker.rated
            self.cdrs += marker.cdrs
            self.alerts += marker.alerts
            for outcome in OUTCOMES:
                self.outcomes[outcome] += getattr(marker, outcome)
            self.log_time_ms[marker.partition] = marker.log_time

    def forget(self, partition: int) -> None:
        """The partition is someone else's."""
        self.log_time_ms.pop(partition, None)
        self.lag.pop(partition, None)

    def figures(self, now_s: float) -> list[Figure]:
        """For the metrics page."""
        kept = sum(self.outcomes.values())
        partitions = [({"partition": str(p)}, at / 1000) for p, at in sorted(self.log_time_ms.items())]
        lag = [({"partition": str(p)}, records) for p, records in sorted(self.lag.items())]
        outcomes = [({"outcome": name}, self.outcomes[name]) for name in OUTCOMES]
        return [
            Figure("wattrate_worker_records_total", "counter", "Kafka records by outcome.", outcomes),
            _plain("wattrate_worker_readings_total", "counter", "Readings metered.", self.readings),
            _plain("wattrate_worker_rated_rows_total", "counter", "Rows of rated usage written.", self.rated),
            _plain("wattrate_worker_cdrs_total", "counter", "CDRs written, credits too.", self.cdrs),
            _plain("wattrate_worker_alerts_total", "counter", "Alert steps written.", self.alerts),
            _plain("wattrate_worker_batches_total", "counter", "Batches that have their markers.", self.batches),
            _plain(
                "wattrate_worker_control_total_difference", "gauge",
                "Records minus the sum of their outcomes: anything but 0 is a defect.", self.records - kept,
            ),
            _plain(
                "wattrate_worker_waiting", "gauge", "1 while an outage of broker or store is waited out.",
                int(bool(self.waits_for)),
            ),
            _plain(
                "wattrate_worker_idle_seconds", "gauge", "Seconds since the last marker, or since partitions came.",
                max(0.0, now_s - self.idle_since_s),
            ),
            Figure("wattrate_worker_log_time_seconds", "gauge", "Log time rated up to, Unix seconds.", partitions),
            Figure("wattrate_worker_lag_records", "gauge", "Records not yet rated, by the last fetch.", lag),
        ]  # fmt: skip


def _plain(name: str, kind: str, text: str, value: float) -> Figure:
    rows: Sequence[tuple[dict[str, str], float]] = [({}, value)]
    return Figure(name, "counter" if kind == "counter" else "gauge", text, rows)
