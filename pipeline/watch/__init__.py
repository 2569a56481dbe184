"""`wattrate watch`: ticks, cross-connector rules and the life of an alert, as a Faust application."""
