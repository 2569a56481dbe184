"""What the Kafka library's error names mean to us: an outage to wait for, a gap to halt at, or a refusal."""

from typing import Final

from pipeline.errors import BrokerError, BrokerUnavailableError, RetentionGapError, TopicError

END: Final = "_PARTITION_EOF"
TOO_SLOW: Final = "_MAX_POLL_EXCEEDED"  # on_lost is called too, and the next poll joins the group again
ALREADY_EXISTS: Final = "TOPIC_ALREADY_EXISTS"
NO_TOPIC: Final = frozenset(("_UNKNOWN_TOPIC", "UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_PARTITION"))
GAP: Final = frozenset(("_AUTO_OFFSET_RESET", "OFFSET_OUT_OF_RANGE"))
OUTAGE: Final = frozenset(
    (
        "_TRANSPORT",
        "_ALL_BROKERS_DOWN",
        "_RESOLVE",
        "_TIMED_OUT",
        "_MSG_TIMED_OUT",
        "_TIMED_OUT_QUEUE",
        "_WAIT_COORD",
        "REQUEST_TIMED_OUT",
        "BROKER_NOT_AVAILABLE",
        "LEADER_NOT_AVAILABLE",
        "NOT_LEADER_FOR_PARTITION",
        "COORDINATOR_NOT_AVAILABLE",
        "COORDINATOR_LOAD_IN_PROGRESS",
        "NOT_COORDINATOR",
        "NETWORK_EXCEPTION",
        "NOT_ENOUGH_REPLICAS",
        "NOT_ENOUGH_REPLICAS_AFTER_APPEND",
    )
)


def problem(name: str, text: str, doing: str, bootstrap: str) -> BrokerError:
    """Our error for the library's error `name`, saying what was being done and where."""
    where = f"Kafka at {bootstrap}"
    if name in OUTAGE:
        return BrokerUnavailableError(
            f"{where} does not answer ({doing}: {text}); is it running? "
            "`wattrate up` starts an embedded broker, WATTRATE_KAFKA_BOOTSTRAP names another"
        )
    if name in GAP:
        return RetentionGapError(
            f"{where}: {doing}: the log no longer has the next offset ({text}); "
            "records were deleted before they were read: raise the topic's retention, see docs/recovery.md"
        )
    if name in NO_TOPIC:
        return TopicError(f"{where}: {doing}: {text}; run `wattrate init`")
    return BrokerError(f"{where}: {doing}: {text}")
