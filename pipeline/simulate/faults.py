"""The register of faults: each row of the design's fault table and each anomaly, by name.

`FAULTS` is what `wattrate simulate --fault NAME=RATE` knows. A session has one fault at most, so that the
ground truth says plainly what metering should conclude. Faults are built so that the truth is knowable
where the rules can know it: a struck session draws nothing in its first sample interval and idles over its
last three.
"""

from collections.abc import Mapping
from typing import Final

from pipeline.errors import DocumentError
from pipeline.simulate.fault import Fault
from pipeline.simulate.faults_anomaly import ANOMALIES
from pipeline.simulate.faults_message import MESSAGE_FAULTS
from pipeline.simulate.faults_register import REGISTER_FAULTS

_IN_ORDER: Final = (*REGISTER_FAULTS, *MESSAGE_FAULTS, *ANOMALIES)
FAULTS: Final[Mapping[str, Fault]] = {fault.name: fault for fault in _IN_ORDER}
NAMES: Final = ("", *FAULTS)  # index = the number in SESSION_DTYPE.fault


def check_rates(rates: Mapping[str, float]) -> None:
    """Raises DocumentError for a name that is no fault, a rate outside [0, 1], or rates that sum to more than 1."""
    for name, rate in rates.items():
        if name not in FAULTS:
            raise DocumentError(f"there is no fault {name!r}; `wattrate simulate --list-faults` names them")
        if not 0 <= rate <= 1:
            raise DocumentError(f"fault {name}: a rate lies between 0 and 1, not {rate}")
    for scope in ("session", "charge_point"):
        total = sum(rate for name, rate in rates.items() if FAULTS[name].scope == scope)
        if total > 1 + 1e-9:
            raise DocumentError(f"the rates of all faults of a {scope} sum to {total:g}; at most 1 (one fault each)")
