-- What reads ask for and the tables are not sorted by: indexes skip the rest. They decide nothing: a row that one of
-- them finds counts by its marker as every other, and without them answers are the same, only slower.

ALTER TABLE reading_rows ADD INDEX IF NOT EXISTS by_transaction transaction_id TYPE bloom_filter GRANULARITY 1;
ALTER TABLE reading_rows ADD INDEX IF NOT EXISTS by_session session_key TYPE bloom_filter GRANULARITY 1;
ALTER TABLE reading_rows MATERIALIZE INDEX by_transaction;
ALTER TABLE reading_rows MATERIALIZE INDEX by_session;

ALTER TABLE cdr_rows ADD INDEX IF NOT EXISTS by_transaction transaction_id TYPE bloom_filter GRANULARITY 1;
ALTER TABLE cdr_rows ADD INDEX IF NOT EXISTS by_session session_key TYPE bloom_filter GRANULARITY 1;
ALTER TABLE cdr_rows ADD INDEX IF NOT EXISTS by_token id_token TYPE bloom_filter GRANULARITY 1;
ALTER TABLE cdr_rows MATERIALIZE INDEX by_transaction;
ALTER TABLE cdr_rows MATERIALIZE INDEX by_session;
ALTER TABLE cdr_rows MATERIALIZE INDEX by_token;

-- The charge points of a location, so that one can be found without reading every location.
ALTER TABLE reference_rows ADD COLUMN IF NOT EXISTS charge_points Array(String) MATERIALIZED
    if(kind = 'location',
        arrayMap(evse -> if(JSONExtractString(evse, 'charge_point_id') != '',
            JSONExtractString(evse, 'charge_point_id'), JSONExtractString(evse, 'uid')), JSONExtractArrayRaw(body, 'evses')),
        []);
ALTER TABLE reference_rows ADD INDEX IF NOT EXISTS by_charge_point charge_points TYPE bloom_filter GRANULARITY 1;
ALTER TABLE reference_rows MATERIALIZE COLUMN charge_points;
ALTER TABLE reference_rows MATERIALIZE INDEX by_charge_point;
