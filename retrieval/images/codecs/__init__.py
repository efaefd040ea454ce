"""Decoders of image formats."""
