"""Anomalies as pure functions over events and columns: detectors, cross-connector rules, what they are tuned by."""
