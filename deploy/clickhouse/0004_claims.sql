-- A claim is taken in two steps, because an insert may land long after its writer gave it up.
--   1. an intent: a number above all others. From now on nobody with a lower number may confirm a marker.
--   2. the claim: read after the intent, it names its first offset and the claim that stood before it.
-- A claim counts when it is the highest, or when the one that counts above it names it as the one before. So a claim
-- that lands late, beside or below one that has gone on without it, counts for nobody.

CREATE TABLE IF NOT EXISTS claim_intent_rows
(
    log_id      UInt64,
    partition   UInt16,
    claim       UInt32,
    member      String,
    intended_at DateTime64(3, 'UTC')
)
ENGINE = MergeTree
ORDER BY (log_id, partition, claim, member)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- 4294967295: not said; the next lower claim is the one before.
ALTER TABLE claim_rows ADD COLUMN IF NOT EXISTS previous UInt32 DEFAULT 4294967295;

-- From the highest claim down, the claims that nobody above them went on from; then each of the others holds from its
-- first offset to that of the claims above it.
CREATE OR REPLACE VIEW claims AS
SELECT
    log_id, partition, c.1 AS claim, c.2 AS first_offset, c.3 AS member,
    ifNull(minOrNull(c.2) OVER (PARTITION BY log_id, partition ORDER BY c.1 ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING),
        18446744073709551615) AS end_offset
FROM
(
    SELECT
        log_id, partition, arrayReverseSort(groupArray((claim, first_offset, member, previous))) AS found,
        arrayFold(
            (below, one) -> if(one.1 > below.1,
                (below.1, arrayPushBack(below.2, one.1)), (least(one.4, toUInt32(one.1 - 1)), below.2)),
            found, (toUInt32(4294967295), []::Array(UInt32))
        ).2 AS passed_over
    FROM
    (
        SELECT
            log_id, partition, claim, argMin(c.first_offset, c.member) AS first_offset, min(c.member) AS member,
            argMin(c.previous, c.member) AS previous
        FROM claim_rows AS c
        GROUP BY log_id, partition, claim
    )
    GROUP BY log_id, partition
)
ARRAY JOIN arrayFilter(one -> NOT has(passed_over, one.1), found) AS c;
