"""What the standard leaves open, each a named value with a default: never a constant hidden in code.

Only what a party to a contract may choose differently is a field. What follows from the standard's
words, once read, stands in the decisions list of README.md.
"""

from dataclasses import dataclass
from typing import Final, Literal


@dataclass(frozen=True, slots=True)
class Policy:
    """The choices of one operator; compiled into sheets or handed to settlement.

    total_decimals: decimals that CDR totals are rounded to, half away from zero; None is the
        currency's minor unit (ISO 4217). Components always keep 4 decimals, as OCPI numbers do.
    equal_times: what `start_time == end_time` means: the whole day, or no instant at all.
    step_size: "ocpi" bills in steps as mod_cdrs says; "ignore" bills what was used (as OCPI 3.0 plans).
    version_change: the tariff version valid at session start is kept for the session. There is no
        other value: the driver accepted that price (OCPI mod_tariffs, note on start_date_time).
    """

    total_decimals: int | None = None
    equal_times: Literal["whole-day", "never"] = "whole-day"
    step_size: Literal["ocpi", "ignore"] = "ocpi"
    version_change: Literal["keep"] = "keep"


DEFAULT: Final = Policy()
EXACT_TOTALS: Final = Policy(total_decimals=4)  # totals as precise as OCPI numbers: to compare and to check invoices
