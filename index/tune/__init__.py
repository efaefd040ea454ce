"""Settings of an index that held-out queries choose."""
