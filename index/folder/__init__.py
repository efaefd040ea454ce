"""Index folders: built, opened, kept whole."""
