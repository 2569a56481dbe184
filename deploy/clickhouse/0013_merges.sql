-- What a store does for a reading is writing its two rows, and writing them again as parts are merged. A batch's part is
-- one file, not one a column: less to write and to sync. Thirty-two parts at a time instead of sixteen: a worker that is
-- behind leaves a part every half second, and the rows of each are written again less often.

ALTER TABLE reading_rows MODIFY SETTING min_level_for_wide_part = 1, merge_selector_base = 32;
ALTER TABLE rated_usage_rows MODIFY SETTING min_level_for_wide_part = 1, merge_selector_base = 32;
