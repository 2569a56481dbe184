-- Worker state at an offset, instead of snapshot_rows: kept whole for 30 days these grew with the log's age, and a TTL may
-- take a quiet partition's only one. Here each snapshot is a table partition of its own: whoever stored and read back a
-- newer one drops older ones by name, which costs nothing, and no merge ever rewrites a payload. What is dropped is decided
-- in pipeline/rate/retire.py. The old table's snapshots are read until its TTL has emptied it.

CREATE TABLE IF NOT EXISTS state_rows
(
    log_id       UInt64,
    partition    UInt16,
    claim        UInt32,
    last_offset  UInt64,
    code_version String,
    checksum     UInt64,
    payload      String CODEC(NONE),
    taken_at     DateTime64(3, 'UTC')
)
ENGINE = MergeTree
PARTITION BY (log_id, partition, claim, last_offset)
ORDER BY (log_id, partition, last_offset)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;
