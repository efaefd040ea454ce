"""Neighbours ordered anew."""
