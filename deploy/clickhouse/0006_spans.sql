-- Every read begins with the offsets that count, so what that costs must not grow with the number of markers, some
-- millions a day in a large network. A projection keeps the least and greatest offset of each claim beside the
-- markers, in the same part: it can't be ahead of them or behind.

ALTER TABLE marker_rows MODIFY SETTING deduplicate_merge_projection_mode = 'rebuild';
ALTER TABLE marker_rows ADD PROJECTION IF NOT EXISTS spans
    (SELECT log_id, partition, claim, min(first_offset), max(last_offset) GROUP BY log_id, partition, claim);
ALTER TABLE marker_rows MATERIALIZE PROJECTION spans;

-- Markers of a claim tile from its first offset on, and the next claim begins after a marker: what a writer put
-- behind that, after it was fenced, is cut off at the next claim's first offset. Repeats change no minimum or maximum.
CREATE OR REPLACE VIEW covered AS
SELECT
    m.log_id AS log_id, m.partition AS partition, m.claim AS claim, m.low AS first_offset,
    least(m.high, toUInt64(c.end_offset - 1)) AS last_offset
FROM
(
    SELECT log_id, partition, claim, min(first_offset) AS low, max(last_offset) AS high
    FROM marker_rows
    GROUP BY log_id, partition, claim
) AS m
GLOBAL INNER JOIN claims AS c ON m.log_id = c.log_id AND m.partition = c.partition AND m.claim = c.claim
WHERE m.low >= c.first_offset AND m.low < c.end_offset;
