"""Calibration on held-out queries."""
