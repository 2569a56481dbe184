"""The rule across connectors over a fleet with its truth: one token at two sites, as watch folds it.

The events are those that the worker publishes, made from the same rows; what a later event refutes does not stand.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from pipeline.anomaly.events import session_decoder
from pipeline.anomaly.tokens import TokenLimits, TokenState, observe
from pipeline.ledger import Heard
from pipeline.rate.batch import Batch
from pipeline.rate.engine import Engine
from pipeline.rate.past import History, SessionName
from pipeline.rate.session_events import session_events
from pipeline.rate.tables import tables_of

KIND = "token_two_sites"


class TokenRule:
    """Takes the worker's batches in; `standing` are the pairs of sessions that no driver can have had."""

    def __init__(self, history: History) -> None:
        """`history` is the ledger behind the worker."""
        self._history, self._state, self._limits = history, TokenState(), TokenLimits()
        self.standing: set[tuple[int, int]] = set()

    def take(self, batch: Batch, engine: Engine) -> None:
        """Fold a batch's session events in."""
        claims = dict.fromkeys(range(len(engine.directory.roster)), 1)
        tables = tables_of(batch, engine.directory, engine.sheets, 1, claims)
        for event in session_events(tables, self, engine.sheets.data):
            for conflict in observe(self._state, session_decoder.decode(event.value), self._limits):
                if conflict.kind == KIND:
                    pair = (int(conflict.first.session_key, 16), int(conflict.second.session_key, 16))
                    (self.standing.add if conflict.found else self.standing.discard)(pair)

    def heard(self, sessions: Iterable[tuple[str, int, int, int]]) -> dict[int, Heard]:
        """As the ledger tells it."""
        found = {}
        for charge_point, key, _, offset in sessions:
            past = self._history.past(SessionName(charge_point, key))
            upto = past.samples["offset"] <= offset
            if upto.any():
                samples = past.samples[upto]
                told = samples["token"][samples["token"] >= 0]
                found[key] = Heard(
                    past.tokens[int(told[0])] if len(told) else "", int(samples["time_ms"].min()),
                    int(samples["time_ms"].max()), int(np.max(past.versions[upto])),
                )  # fmt: skip
        return found

    def told(self, sessions: Iterable[tuple[dict[str, Any], list[int]]]) -> set[int]:
        """The sessions that the rule speaks of: of a pair those that are labelled, else the later one."""
        labelled = {key for session, keys in sessions if KIND in session["alerts"] for key in keys}
        return {key for pair in self.standing for key in (labelled & set(pair) or pair[1:])}
