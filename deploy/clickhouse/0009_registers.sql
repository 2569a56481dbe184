-- Between which registers a session lies as it was metered, and by how much they moved in it without energy (resets,
-- rollovers): with these the register's balance of every session is strict, held ones too. NULL: no register was told,
-- or the row is older than these columns. A view keeps the columns that it was made with, so it is made anew.

ALTER TABLE cdr_rows ADD COLUMN IF NOT EXISTS first_mwh Nullable(Int64);
ALTER TABLE cdr_rows ADD COLUMN IF NOT EXISTS last_mwh Nullable(Int64);
ALTER TABLE cdr_rows ADD COLUMN IF NOT EXISTS unexplained_mwh Nullable(Int64);
ALTER TABLE quarantine_rows ADD COLUMN IF NOT EXISTS first_mwh Nullable(Int64);
ALTER TABLE quarantine_rows ADD COLUMN IF NOT EXISTS last_mwh Nullable(Int64);
ALTER TABLE quarantine_rows ADD COLUMN IF NOT EXISTS unexplained_mwh Nullable(Int64);

CREATE OR REPLACE VIEW cdrs AS
WITH (SELECT (keys, firsts, ends) FROM bounds) AS b
SELECT r.* FROM cdr_rows AS r FINAL
WHERE r.offset < transform(cityHash64(r.log_id, r.partition, r.claim), b.1, b.3, toUInt64(0))
    AND r.offset >= transform(cityHash64(r.log_id, r.partition, r.claim), b.1, b.2, toUInt64(0));

CREATE OR REPLACE VIEW quarantine AS
WITH (SELECT (keys, firsts, ends) FROM bounds) AS b
SELECT r.* FROM quarantine_rows AS r FINAL
WHERE r.offset < transform(cityHash64(r.log_id, r.partition, r.claim), b.1, b.3, toUInt64(0))
    AND r.offset >= transform(cityHash64(r.log_id, r.partition, r.claim), b.1, b.2, toUInt64(0));
