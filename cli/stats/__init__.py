"""`lmr stats`: what is in the data."""
