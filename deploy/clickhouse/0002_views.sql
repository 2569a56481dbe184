-- What everyone reads. A row counts when a marker of the claim that wrote it covers its offset; rows of a
-- worker that lost its claim, or that died before its marker, are not seen by anyone.

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

CREATE VIEW IF NOT EXISTS markers AS
SELECT m.*
FROM (SELECT * FROM marker_rows FINAL) AS m
INNER JOIN claims AS c ON m.log_id = c.log_id AND m.partition = c.partition AND m.claim = c.claim
WHERE m.first_offset >= c.first_offset AND m.last_offset < c.end_offset;

-- The offsets that count, by claim: a small table, joined by every view below.
CREATE VIEW IF NOT EXISTS covered AS
SELECT log_id, partition, claim, min(m.first_offset) AS first_offset, max(m.last_offset) AS last_offset
FROM markers AS m
GROUP BY log_id, partition, claim;

CREATE VIEW IF NOT EXISTS readings AS
SELECT r.* FROM (SELECT * FROM reading_rows FINAL) AS r
INNER JOIN covered AS c ON r.log_id = c.log_id AND r.partition = c.partition AND r.claim = c.claim
WHERE r.offset >= c.first_offset AND r.offset <= c.last_offset;

CREATE VIEW IF NOT EXISTS rated_usage AS
SELECT r.* FROM (SELECT * FROM rated_usage_rows FINAL) AS r
INNER JOIN covered AS c ON r.log_id = c.log_id AND r.partition = c.partition AND r.claim = c.claim
WHERE r.offset >= c.first_offset AND r.offset <= c.last_offset;

CREATE VIEW IF NOT EXISTS cdrs AS
SELECT r.* FROM (SELECT * FROM cdr_rows FINAL) AS r
INNER JOIN covered AS c ON r.log_id = c.log_id AND r.partition = c.partition AND r.claim = c.claim
WHERE r.offset >= c.first_offset AND r.offset <= c.last_offset;

CREATE VIEW IF NOT EXISTS alerts AS
SELECT r.* FROM (SELECT * FROM alert_rows FINAL) AS r
INNER JOIN covered AS c ON r.log_id = c.log_id AND r.partition = c.partition AND r.claim = c.claim
WHERE r.offset >= c.first_offset AND r.offset <= c.last_offset;

CREATE VIEW IF NOT EXISTS quarantine AS
SELECT r.* FROM (SELECT * FROM quarantine_rows FINAL) AS r
INNER JOIN covered AS c ON r.log_id = c.log_id AND r.partition = c.partition AND r.claim = c.claim
WHERE r.offset >= c.first_offset AND r.offset <= c.last_offset;

CREATE VIEW IF NOT EXISTS dead_letters AS
SELECT r.* FROM (SELECT * FROM dead_letter_rows FINAL) AS r
INNER JOIN covered AS c ON r.log_id = c.log_id AND r.partition = c.partition AND r.claim = c.claim
WHERE r.offset >= c.first_offset AND r.offset <= c.last_offset;
