"""Recipes of training: whole procedures as TOML files."""
