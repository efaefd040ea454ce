"""Work on an index by many machines."""
