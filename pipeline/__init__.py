"""The shell around `rating`: Kafka in, ClickHouse out, and everything a charging network runs."""
