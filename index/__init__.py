"""Descriptors in, answers out: search, votes, calibration, metrics, submissions."""
