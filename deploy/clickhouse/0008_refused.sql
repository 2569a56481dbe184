-- Records of which the store refuses a row, alone and again, while it takes the rows beside it. Claim 0: noted, in force
-- under no claim. Whoever takes the partition over writes the notes of the offsets to come once more under its own
-- claim, and rates these records as dead letters: so the rows that a marker covers are a function of the log and of what
-- is here under the marker's claim. A note that lands late, after the offset was passed, is in force for nobody.

CREATE TABLE IF NOT EXISTS refused_rows
(
    log_id    UInt64,
    partition UInt16,
    claim     UInt32,
    offset    UInt64,
    code      Int32,
    message   String,
    noted_at  DateTime64(3, 'UTC')
)
ENGINE = MergeTree
ORDER BY (log_id, partition, claim, offset)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;
