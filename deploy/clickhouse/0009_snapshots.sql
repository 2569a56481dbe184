-- A snapshot holds a partition's whole state, some 100 bytes a connector, and comes every half minute or oftener: all of
-- them for 30 days would be a terabyte for 100,000 connectors. Recovery wants the newest ones, and one that is an hour of
-- work older; a recomputation of long ago starts from one an hour.
ALTER TABLE snapshot_rows MODIFY TTL
    toDateTime(taken_at) + INTERVAL 30 DAY DELETE,
    toDateTime(taken_at) + INTERVAL 3 HOUR DELETE WHERE toMinute(taken_at) > 0;
