"""RATE, the hot path: records of the log in, rows of the ledger out, committed in numbered steps."""
