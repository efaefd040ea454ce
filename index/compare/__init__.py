"""Several systems on the same queries."""
