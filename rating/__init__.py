"""The rating engine: OCPI tariffs applied to metered intervals, in exact integers. No I/O, clock or environment."""
