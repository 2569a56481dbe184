"""The reading side: what people and jobs ask of the ledger, one small module a question. Nothing here writes."""
