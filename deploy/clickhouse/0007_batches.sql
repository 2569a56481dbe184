-- A batch is read back right after it was written, among all that was ever written. Partitions advance at their own
-- pace, so least and greatest offset of a granule tell little; which blocks of 16,384 offsets it has rows of tells much.

ALTER TABLE reading_rows ADD INDEX IF NOT EXISTS by_block
    bitShiftLeft(toUInt64(partition), 48) + bitShiftRight(offset, 14) TYPE bloom_filter GRANULARITY 1;
ALTER TABLE rated_usage_rows ADD INDEX IF NOT EXISTS by_block
    bitShiftLeft(toUInt64(partition), 48) + bitShiftRight(offset, 14) TYPE bloom_filter GRANULARITY 1;
ALTER TABLE cdr_rows ADD INDEX IF NOT EXISTS by_block
    bitShiftLeft(toUInt64(partition), 48) + bitShiftRight(offset, 14) TYPE bloom_filter GRANULARITY 1;
ALTER TABLE reading_rows MATERIALIZE INDEX by_block;
ALTER TABLE rated_usage_rows MATERIALIZE INDEX by_block;
ALTER TABLE cdr_rows MATERIALIZE INDEX by_block;

-- Parts of a batch are small and many. Merging them sixteen at a time instead of five writes every row half as often.
ALTER TABLE reading_rows MODIFY SETTING merge_selector_base = 16;
ALTER TABLE rated_usage_rows MODIFY SETTING merge_selector_base = 16;
