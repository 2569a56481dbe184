"""One file a `wattrate` sub-command. They parse, call, print; the work is done elsewhere."""
