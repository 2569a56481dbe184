"""A seeded fleet of charge points: sessions, messages, faults, and the truth about each."""
