"""Data files that travel with the wheel: numbered migrations, samples, container files. No code lives here."""
