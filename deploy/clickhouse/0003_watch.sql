-- What `wattrate watch` writes: alerts across connectors, what became of each delivery, its caches.
-- alert_rows belongs to the worker: its rows count under markers. Watch has no markers; its alerts have ids that are
-- a function of the log, so that a row written twice is one row. No row of money is here.

CREATE TABLE IF NOT EXISTS watch_alert_rows
(
    log_id          UInt64,
    partition       UInt16,
    offset          UInt64,
    line            UInt64,
    charge_point_id LowCardinality(String),
    connector_id    UInt16,
    session_key     UInt64,
    location_id     LowCardinality(String),
    alert_id        String,
    kind            LowCardinality(String),
    severity        Enum8('info' = 1, 'warning' = 2, 'critical' = 3),
    action          Enum8('opened' = 1, 'updated' = 2, 'acknowledged' = 3, 'resolved' = 4),
    time            DateTime64(3, 'UTC'),
    id_token        String,
    evidence        String CODEC(ZSTD(1)),
    written_at      DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree
ORDER BY (alert_id, action, log_id, partition, offset, line)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE VIEW IF NOT EXISTS all_alerts AS
SELECT log_id, partition, offset, line, charge_point_id, connector_id, session_key, '' AS location_id,
    alert_id, kind, severity, action, time, id_token, evidence, 'rate' AS source
FROM alerts
UNION ALL
SELECT log_id, partition, offset, line, charge_point_id, connector_id, session_key, toString(location_id) AS location_id,
    alert_id, kind, severity, action, time, id_token, evidence, 'watch' AS source
FROM watch_alert_rows FINAL;

-- One row an alert event and sink, when that is settled; an event without a row is still to be delivered.
CREATE TABLE IF NOT EXISTS watch_delivery_rows
(
    sink       LowCardinality(String),
    event_id   String,
    alert_id   String,
    outcome    Enum8('delivered' = 1, 'dead' = 2, 'suppressed' = 3, 'muted' = 4, 'old' = 5),
    attempts   UInt32,
    detail     String,
    settled_at DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(settled_at)
ORDER BY (event_id, sink)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- Caches: how far watch has read, and what its rules remember there. Made anew from the log when lost.
CREATE TABLE IF NOT EXISTS watch_state_rows
(
    scope      String,
    position   UInt64,
    checksum   UInt64,
    payload    String CODEC(NONE),
    written_at DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(position)
ORDER BY scope
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;
