"""Bytes of one Kafka record in, sample columns out. No state, no verdicts, no reference data."""
