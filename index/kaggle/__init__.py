"""Submissions and solutions of the Google Landmarks challenges."""
