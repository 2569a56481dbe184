"""One file a question; each prints its figures, its machine and a hash of its result."""
