"""Cleaning of a training set: label errors, duplicates, images of no landmark or of low quality."""
