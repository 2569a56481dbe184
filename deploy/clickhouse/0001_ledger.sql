-- The ledger. Tables end in _rows; people and jobs read the views of 0002, which count a row only when
-- the marker of its own claim covers its offset.
-- Row identity is (log_id, partition, offset, line); claim is the version, never a clock.
-- Units: energy mWh, time ms, power mW; cost in units of 1.8e-11 of the currency (rating/money.py).

CREATE TABLE IF NOT EXISTS reading_rows
(
    log_id          UInt64,
    partition       UInt16,
    offset          UInt64 CODEC(DoubleDelta, ZSTD(1)),
    line            UInt64 CODEC(T64, ZSTD(1)),
    claim           UInt32,
    charge_point_id LowCardinality(String),
    connector_id    UInt16,
    session_key     UInt64,
    transaction_id  String,
    time            DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    received_at     DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    kind            Int8,
    context         Int8,
    state           Int8,
    signed          Int8,
    seq_no          Int32,
    register_mwh    Nullable(Int64) CODEC(Delta, ZSTD(1)),
    power_mw        Nullable(Int64) CODEC(ZSTD(1)),
    current_ma      Nullable(Int64) CODEC(ZSTD(1)),
    soc_permille    Int16,
    phases          Int16,
    id_token        LowCardinality(String),
    flags           UInt32,
    reference_version UInt32,
    verdict         Enum8('first' = 1, 'good' = 2, 'duplicate' = 3, 'late' = 4, 'regressed' = 5, 'gap' = 6, 'suspect' = 7, 'ignored' = 8),
    disposition     Enum8('none' = 0, 'rated' = 1, 'held' = 2, 'rejected' = 3, 'outside' = 4, 'unexplained' = 5),
    energy_mwh      Int64 CODEC(T64, ZSTD(1)),
    INDEX by_offset offset TYPE minmax GRANULARITY 1
)
ENGINE = ReplacingMergeTree(claim)
PARTITION BY toYYYYMM(received_at)
ORDER BY (charge_point_id, session_key, time, log_id, partition, offset, line)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS rated_usage_rows
(
    log_id          UInt64,
    partition       UInt16,
    offset          UInt64 CODEC(DoubleDelta, ZSTD(1)),
    line            UInt64 CODEC(T64, ZSTD(1)),
    claim           UInt32,
    charge_point_id LowCardinality(String),
    connector_id    UInt16,
    session_key     UInt64,
    start           DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    end             DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    dimension       Enum8('ENERGY' = 1, 'TIME' = 2, 'PARKING_TIME' = 3, 'FLAT' = 4, 'STEP' = 5, 'MIN_PRICE' = 6, 'MAX_PRICE' = 7, 'ROUNDING' = 8),
    quantity        Int64 CODEC(T64, ZSTD(1)),
    cost            Int64 CODEC(T64, ZSTD(1)),
    price_e4        Int64 CODEC(ZSTD(1)),
    currency        LowCardinality(String),
    tariff          LowCardinality(String),
    element         Int16,
    component       Int16,
    state           Int8,
    split           Int8,
    flags           UInt32,
    INDEX by_offset offset TYPE minmax GRANULARITY 1
)
ENGINE = ReplacingMergeTree(claim)
PARTITION BY toYYYYMM(start)
ORDER BY (charge_point_id, session_key, start, log_id, partition, offset, line)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS cdr_rows
(
    log_id          UInt64,
    partition       UInt16,
    offset          UInt64,
    line            UInt64,
    claim           UInt32,
    charge_point_id LowCardinality(String),
    connector_id    UInt16,
    session_key     UInt64,
    cdr_id          String,
    revision        UInt16,
    credit          UInt8,
    transaction_id  String,
    id_token        String,
    location_id     LowCardinality(String),
    start           DateTime64(3, 'UTC'),
    end             DateTime64(3, 'UTC'),
    settled_at      DateTime64(3, 'UTC'),
    tariff          LowCardinality(String),
    currency        LowCardinality(String),
    energy_mwh      Int64,
    charging_ms     Int64,
    parking_ms      Int64,
    held_mwh        Int64,
    held_reason     LowCardinality(String),
    rated_cost      Int64,
    total_excl_e4   Int64,
    total_incl_e4   Int64,
    readings        UInt32,
    signed          Int8,
    flags           UInt32,
    document        String CODEC(ZSTD(3)),
    INDEX by_offset offset TYPE minmax GRANULARITY 1
)
ENGINE = ReplacingMergeTree(claim)
PARTITION BY toYYYYMM(start)
ORDER BY (charge_point_id, session_key, start, log_id, partition, offset, line)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS alert_rows
(
    log_id          UInt64,
    partition       UInt16,
    offset          UInt64,
    line            UInt64,
    claim           UInt32,
    charge_point_id LowCardinality(String),
    connector_id    UInt16,
    session_key     UInt64,
    alert_id        String,
    kind            LowCardinality(String),
    severity        Enum8('info' = 1, 'warning' = 2, 'critical' = 3),
    action          Enum8('opened' = 1, 'updated' = 2, 'acknowledged' = 3, 'resolved' = 4),
    time            DateTime64(3, 'UTC'),
    id_token        String,
    evidence        String CODEC(ZSTD(1)),
    INDEX by_offset offset TYPE minmax GRANULARITY 1
)
ENGINE = ReplacingMergeTree(claim)
PARTITION BY toYYYYMM(time)
ORDER BY (charge_point_id, alert_id, log_id, partition, offset, line)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- Usage held back from billing, and what became of it: one row an action.
CREATE TABLE IF NOT EXISTS quarantine_rows
(
    log_id          UInt64,
    partition       UInt16,
    offset          UInt64,
    line            UInt64,
    claim           UInt32,
    charge_point_id LowCardinality(String),
    connector_id    UInt16,
    session_key     UInt64,
    action          Enum8('held' = 1, 'released' = 2, 'rejected' = 3, 'expired' = 4),
    reason          LowCardinality(String),
    held_mwh        Int64,
    time            DateTime64(3, 'UTC'),
    actor           String,
    note            String,
    raw             String CODEC(ZSTD(3)),
    INDEX by_offset offset TYPE minmax GRANULARITY 1
)
ENGINE = ReplacingMergeTree(claim)
PARTITION BY toYYYYMM(time)
ORDER BY (charge_point_id, session_key, log_id, partition, offset, line)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS dead_letter_rows
(
    log_id          UInt64,
    partition       UInt16,
    offset          UInt64,
    line            UInt64,
    claim           UInt32,
    record_time     DateTime64(3, 'UTC'),
    reason          LowCardinality(String),
    detail          String,
    record_key      String,
    raw             String CODEC(ZSTD(3)),
    INDEX by_offset offset TYPE minmax GRANULARITY 1
)
ENGINE = ReplacingMergeTree(claim)
PARTITION BY toYYYYMM(record_time)
ORDER BY (log_id, partition, offset, line)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- The commit point. One marker a batch and partition; markers tile a partition without gap or overlap.
CREATE TABLE IF NOT EXISTS marker_rows
(
    log_id            UInt64,
    partition         UInt16,
    claim             UInt32,
    first_offset      UInt64,
    last_offset       UInt64,
    records           UInt64,
    control           UInt64,
    used              UInt64,
    duplicate         UInt64,
    quarantined       UInt64,
    dead_lettered     UInt64,
    readings          UInt64,
    rated             UInt64,
    cdrs              UInt64,
    alerts            UInt64,
    quarantine        UInt64,
    energy_mwh        Int64,
    cost              Int64,
    checksum          UInt64,
    log_time          DateTime64(3, 'UTC'),
    reference_version UInt64,
    code_version      String,
    written_at        DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(written_at)
ORDER BY (log_id, partition, claim, first_offset)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS claim_rows
(
    log_id       UInt64,
    partition    UInt16,
    claim        UInt32,
    first_offset UInt64,
    member       String,
    claimed_at   DateTime64(3, 'UTC')
)
ENGINE = MergeTree
ORDER BY (log_id, partition, claim, member)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS published_rows
(
    log_id       UInt64,
    partition    UInt16,
    claim        UInt32,
    last_offset  UInt64,
    published_at DateTime64(3, 'UTC')
)
ENGINE = MergeTree
ORDER BY (log_id, partition, last_offset)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- Worker state at an offset. A snapshot is one row; payload is zstd; checksum guards it.
CREATE TABLE IF NOT EXISTS snapshot_rows
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
ORDER BY (log_id, partition, last_offset)
TTL toDateTime(taken_at) + INTERVAL 30 DAY
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- Tariffs, locations, tokens, keys and policies: every version ever published, never changed.
CREATE TABLE IF NOT EXISTS reference_rows
(
    version      UInt64,
    kind         LowCardinality(String),
    id           String,
    deleted      UInt8,
    body         String CODEC(ZSTD(3)),
    published_at DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree
ORDER BY (version, kind, id)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;
