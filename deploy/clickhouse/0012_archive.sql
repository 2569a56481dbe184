-- The log's own records, kept by `wattrate archive` for as long as bills may be asked about. A row is a function of the
-- log alone: whoever copies a record writes the same row, so it needs no claim and no version.
-- How long they are kept is the network's to say: ALTER TABLE record_rows MODIFY TTL toDateTime(record_time) + INTERVAL …

CREATE TABLE IF NOT EXISTS record_rows
(
    log_id       UInt64,
    partition    UInt16,
    offset       UInt64 CODEC(DoubleDelta, ZSTD(1)),
    record_time  DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    record_key   Nullable(String) CODEC(ZSTD(1)),
    content_type LowCardinality(Nullable(String)),
    raw          String CODEC(ZSTD(3))
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(record_time)
ORDER BY (log_id, partition, offset)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;
