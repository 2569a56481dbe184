"""The ways in which a row is told other than plainly. One number a row; the encoders look it up."""

from typing import Final

PLAIN: Final = 0
DECIMAL_COMMA: Final = 1
NUMBER_FOR_STRING: Final = 2  # OCPP 1.6: a JSON number; 2.0.1: a JSON string
UNIT_MISSING: Final = 3
NO_ENERGY: Final = 4  # power only
CLOCK_MIXED: Final = 5  # an older Sample.Clock register beside the Sample.Periodic one
BEGIN_AND_PERIODIC: Final = 6  # a stale Transaction.Begin register beside the Sample.Periodic one
PER_PHASE: Final = 7  # three registers, no total
TOTAL_ON_L1: Final = 8
INTERVAL: Final = 9  # Energy.Active.Import.Interval instead of the register
SIGNED: Final = 10  # a signed value (OCMF) beside a plain one in another unit
FORGED: Final = 11  # the same, with a value that the signature does not cover
PHASE_LOST: Final = 12
TIME_NO_ZONE: Final = 13
TIME_ZERO: Final = 14
TXN_MINUS_ONE: Final = 15
TXN_ZERO: Final = 16
TXN_MAX: Final = 17
TXN_MISSING: Final = 18
BROKEN_JSON: Final = 19
# Poison records, each beside a good one.
POISON_EMPTY: Final = 20
POISON_NULL_KEY: Final = 21
POISON_NOT_UTF8: Final = 22
POISON_NAN: Final = 23
POISON_GIANT: Final = 24

# Told by the plain templates: only the timestamp or the transaction id differs, or the bytes after encoding.
AS_PLAIN: Final = frozenset({PLAIN, TIME_NO_ZONE, TIME_ZERO, TXN_MINUS_ONE, TXN_ZERO, TXN_MAX, BROKEN_JSON})
TXN_VALUES: Final = {TXN_MINUS_ONE: -1, TXN_ZERO: 0, TXN_MAX: 2**63 - 1}
