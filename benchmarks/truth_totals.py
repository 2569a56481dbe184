"""Control totals of a run, summed from the rows themselves: records by outcome, energy and cost by session."""

from collections import Counter
from typing import Any

import numpy as np

from benchmarks.truth_ledger import RollingLedger
from pipeline.rate.batch import OUTCOMES, Batch
from pipeline.rate.engine import Engine
from pipeline.rate.rows import ENERGY
from rating.money import COST_PER_E4
from rating.tariff import TAX_INCLUDED


class Totals:
    """Adds up batches; keeps three numbers a session."""

    def __init__(self) -> None:
        """Nothing added."""
        self.records = 0
        self.outcomes: Counter[str] = Counter()
        self.rated: dict[int, tuple[int, int]] = {}  # session → (energy, cost) of rated rows less CDRs
        self.cdrs = 0

    def add(self, batch: Batch, engine: Engine) -> None:
        """One batch."""
        for share in batch.shares.values():
            self.records += share.records
            self.outcomes.update({OUTCOMES[code]: count for code, count in share.outcomes.items()})
        for rows in batch.rated:
            self._add_rated(rows)
        sources = engine.sheets.builder.sources if batch.cdrs else ()
        inclusive = {source.key for source in sources if source.tariff.tax == TAX_INCLUDED}
        for cdr in batch.cdrs:
            columns: dict[str, Any] = cdr.columns
            total = "total_incl_e4" if columns["tariff"] in inclusive else "total_excl_e4"
            self._move(cdr.place.session_key, -columns["energy_mwh"], -columns[total] * COST_PER_E4)
            self.cdrs += 1

    def _add_rated(self, rows: np.ndarray) -> None:
        if not len(rows):
            return
        order = np.argsort(rows["session_key"], kind="stable")
        keys, first = np.unique(rows["session_key"][order], return_index=True)
        energy = np.where(rows["dimension"] == ENERGY, rows["quantity"], 0)[order]
        energies = np.add.reduceat(energy, first).tolist()
        costs = np.add.reduceat(rows["cost"][order], first).tolist()
        for key, energy_mwh, cost in zip(keys.tolist(), energies, costs, strict=True):
            self._move(key, energy_mwh, cost)

    def _move(self, key: int, energy_mwh: int, cost: int) -> None:
        had = self.rated.get(key, (0, 0))
        now = (had[0] + energy_mwh, had[1] + cost)
        if now == (0, 0):
            self.rated.pop(key, None)
        else:
            self.rated[key] = now

    def report(self, ledger: RollingLedger, held: dict[int, str]) -> dict[str, Any]:
        """What holds; `exact` is False where anything does not."""
        told = sum(self.outcomes.values())
        off = {key: rest for key, rest in self.rated.items() if key not in held}
        return {
            "exact": told == self.records and not off,
            "records": f"{self.records:,} = " + " + ".join(f"{n:,} {name}" for name, n in self.outcomes.items()),
            "rated rows less CDRs": f"{self.cdrs:,} CDRs and credits, {len(off):,} sessions differ",
            "held now": f"{len(held):,}: " + ", ".join(f"{n:,} {r}" for r, n in Counter(held.values()).items()),
        }
