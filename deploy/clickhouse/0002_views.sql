-- What everyone reads. A row counts when a marker of the claim that wrote it covers its offset; rows of a
-- worker that lost its claim, or that died before its marker, are not seen by anyone.
-- The bounds travel into each view as one constant (a scalar subquery), so that filters on the sort key reach the
-- table, nothing is joined row by row, and on a cluster the shards need not ask each other.

-- A claim holds from its first offset to the next claim's; the lowest member wins a tie.
CREATE VIEW IF NOT EXISTS claims AS
SELECT
    log_id, partition, claim, first_offset, member,
    leadInFrame(first_offset, 1, 18446744073709551615)
        OVER (PARTITION BY log_id, partition ORDER BY claim ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) AS end_offset
FROM
(
    SELECT log_id, partition, claim, argMin(c.first_offset, c.member) AS first_offset, min(c.member) AS member
    FROM claim_rows AS c
    GROUP BY log_id, partition, claim
);

-- Markers that hold: inside the bounds of their claim.
CREATE VIEW IF NOT EXISTS markers AS
SELECT m.*
FROM (SELECT * FROM marker_rows FINAL) AS m
GLOBAL INNER JOIN claims AS c ON m.log_id = c.log_id AND m.partition = c.partition AND m.claim = c.claim
WHERE m.first_offset >= c.first_offset AND m.last_offset < c.end_offset;

-- The offsets that count, by claim. A repeated marker changes no minimum or maximum, so no FINAL here.
CREATE VIEW IF NOT EXISTS covered AS
SELECT log_id, partition, claim, min(m.first_offset) AS first_offset, max(m.last_offset) AS last_offset
FROM (SELECT log_id, partition, claim, first_offset, last_offset FROM marker_rows) AS m
GLOBAL INNER JOIN claims AS c ON m.log_id = c.log_id AND m.partition = c.partition AND m.claim = c.claim
WHERE m.first_offset >= c.first_offset AND m.last_offset < c.end_offset
GROUP BY log_id, partition, claim;

-- The same as three arrays; the first entry, which matches no claim, is there so that they are never empty.
CREATE VIEW IF NOT EXISTS bounds AS
SELECT
    arrayPushFront(groupArray(cityHash64(log_id, partition, claim)), toUInt64(0)) AS keys,
    arrayPushFront(groupArray(first_offset), toUInt64(0)) AS firsts,
    arrayPushFront(groupArray(last_offset + 1), toUInt64(0)) AS ends
FROM covered;

CREATE VIEW IF NOT EXISTS readings AS
WITH (SELECT (keys, firsts, ends) FROM bounds) AS b
SELECT r.* FROM reading_rows AS r FINAL
WHERE r.offset < transform(cityHash64(r.log_id, r.partition, r.claim), b.1, b.3, toUInt64(0))
    AND r.offset >= transform(cityHash64(r.log_id, r.partition, r.claim), b.1, b.2, toUInt64(0));

CREATE VIEW IF NOT EXISTS rated_usage AS
WITH (SELECT (keys, firsts, ends) FROM bounds) AS b
SELECT r.* FROM rated_usage_rows AS r FINAL
WHERE r.offset < transform(cityHash64(r.log_id, r.partition, r.claim), b.1, b.3, toUInt64(0))
    AND r.offset >= transform(cityHash64(r.log_id, r.partition, r.claim), b.1, b.2, toUInt64(0));

CREATE VIEW IF NOT EXISTS cdrs AS
WITH (SELECT (keys, firsts, ends) FROM bounds) AS b
SELECT r.* FROM cdr_rows AS r FINAL
WHERE r.offset < transform(cityHash64(r.log_id, r.partition, r.claim), b.1, b.3, toUInt64(0))
    AND r.offset >= transform(cityHash64(r.log_id, r.partition, r.claim), b.1, b.2, toUInt64(0));

CREATE VIEW IF NOT EXISTS alerts AS
WITH (SELECT (keys, firsts, ends) FROM bounds) AS b
SELECT r.* FROM alert_rows AS r FINAL
WHERE r.offset < transform(cityHash64(r.log_id, r.partition, r.claim), b.1, b.3, toUInt64(0))
    AND r.offset >= transform(cityHash64(r.log_id, r.partition, r.claim), b.1, b.2, toUInt64(0));

CREATE VIEW IF NOT EXISTS quarantine AS
WITH (SELECT (keys, firsts, ends) FROM bounds) AS b
SELECT r.* FROM quarantine_rows AS r FINAL
WHERE r.offset < transform(cityHash64(r.log_id, r.partition, r.claim), b.1, b.3, toUInt64(0))
    AND r.offset >= transform(cityHash64(r.log_id, r.partition, r.claim), b.1, b.2, toUInt64(0));

CREATE VIEW IF NOT EXISTS dead_letters AS
WITH (SELECT (keys, firsts, ends) FROM bounds) AS b
SELECT r.* FROM dead_letter_rows AS r FINAL
WHERE r.offset < transform(cityHash64(r.log_id, r.partition, r.claim), b.1, b.3, toUInt64(0))
    AND r.offset >= transform(cityHash64(r.log_id, r.partition, r.claim), b.1, b.2, toUInt64(0));

