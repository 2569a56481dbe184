"""Every error that the pipeline raises on purpose. The text speaks to a person: what, where, what to do.

WattrateError                 exit 1
├── ChecksFailedError              1   verify or doctor ran and found something wrong
├── SettingsError                  2   a setting is missing, unknown or out of range
├── DocumentError                  3   a file or JSON document given by a person can't be used
├── BrokerError                    4   Kafka said no
│   ├── BrokerUnavailableError         nobody answers: an outage, wait and try again
│   ├── TopicError                     a topic is missing or has another number of partitions
│   ├── RetentionGapError              the log no longer has the offset that comes next
│   └── DeliveryError                  a record was not confirmed by the broker
├── StoreError                     5   ClickHouse said no
│   ├── StoreUnavailableError          nobody answers, or it can't write now: an outage, wait and try again
│   └── StoreRefusedError              it will never take these rows or this query
├── SchemaError                    6   migrations: changed, missing, newer than this program
├── IntegrityError                 7   rows and marker differ: stop, never guess
│   └── DroppedError                   what was not yet marked is dropped: forget all and join anew
│       ├── FencedError                another worker holds the claim on this partition
│       └── RefusedRowsError           the store refuses rows of single records; they are noted
└── EmbeddedError                  8   the embedded broker or store does not start

An outage is never poison: catch the two Unavailable errors and wait, let everything else end the program.
"""


class WattrateError(Exception):
    """Root of all. `message` is one line for a person; `exit_code` is what the command line returns."""

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ChecksFailedError(WattrateError):
    """A check ran and found something wrong; the report has been printed already."""


class SettingsError(WattrateError):
    """A setting is missing, unknown or out of range."""

    exit_code = 2


class DocumentError(WattrateError):
    """A file or JSON document given by a person can't be used; the message holds its path and JSON path."""

    exit_code = 3


class BrokerError(WattrateError):
    """Kafka refused."""

    exit_code = 4


class BrokerUnavailableError(BrokerError):
    """No broker answers: wait and try again."""


class TopicError(BrokerError):
    """A topic is missing or not as `wattrate init` makes it."""


class RetentionGapError(BrokerError):
    """The offset that comes next is no longer in the log: halt, never skip."""


class DeliveryError(BrokerError):
    """The broker did not confirm a record."""


class StoreError(WattrateError):
    """ClickHouse refused."""

    exit_code = 5


class StoreUnavailableError(StoreError):
    """No store answers, or it can't write now (disk full, read-only, too many parts): wait and try again."""


class StoreRefusedError(StoreError):
    """The store will never take these rows or this query. `code` is ClickHouse's error code, 0 if unknown."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


class SchemaError(WattrateError):
    """The store's schema and this program's migrations don't agree."""

    exit_code = 6


class IntegrityError(WattrateError):
    """What was read back is not what was written: stop and page someone."""

    exit_code = 7


class DroppedError(IntegrityError):
    """What was not yet marked is dropped: the worker forgets all and joins anew."""


class FencedError(DroppedError):
    """Another worker holds the claim on this partition; what was not yet marked is theirs."""


class RefusedRowsError(DroppedError):
    """The store refuses rows of single records; these are noted, and the batch is rated again without them."""


class EmbeddedError(WattrateError):
    """The embedded broker or store does not start or died."""

    exit_code = 8
