"""From samples to intervals that may cost someone money: registers, order, sessions, verdicts."""
