"""What the scanner remembers of one record: an int64 array with a slot a fact. Texts are (start, length) pairs."""

from typing import Final

# One bit a member that was seen, so that a member that stands twice is noticed (the twin takes the last).
TOP: Final = 0
PAYLOAD: Final = 1
VALUE: Final = 2

# texts: two slots each
POINT: Final = 4
OUTER_ID: Final = 6  # transaction_id of the envelope, or of the flat form
INNER_ID: Final = 8  # transactionId of the payload
TOKEN: Final = 10

# facts of the record
RECEIVED_MS: Final = 12
VERSION: Final = 13
ACTION: Final = 14
TIME_MS: Final = 15
CONNECTOR: Final = 16
EVENT: Final = 17
STATE: Final = 18  # STATE_*
SEQ_NO: Final = 19
OFFLINE: Final = 20
REGISTER: Final = 21  # of the flat form, meterStart, meterStop; then of the line
POWER: Final = 22
CURRENT: Final = 23
ENTRIES: Final = 24  # meterValue entries
ENTRY_MS: Final = 25

# the sampled value at hand: word numbers, then the number
MEASURAND: Final = 26
CONTEXT: Final = 27
PHASE: Final = 28
LOCATION: Final = 29
UNIT: Final = 30
MULTIPLIER: Final = 31
NUMBER: Final = 32
DECIMALS: Final = 33
QUOTED: Final = 34
FORMAT: Final = 37

# the entry's values: total and phases 1 to 3 of register, interval, power, current, SoC
LINE_CONTEXT: Final = 35
UNIT_DEFAULTED: Final = 36
AMOUNTS: Final = 40
AMOUNTS_END: Final = AMOUNTS + 5 * 4

COUNT: Final = AMOUNTS_END
