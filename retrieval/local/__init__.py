"""Local features."""
