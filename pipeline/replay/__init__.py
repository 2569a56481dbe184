"""Real sessions from a table, told as the chargers would have told them."""
