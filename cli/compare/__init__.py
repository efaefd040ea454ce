"""lmr compare: recipes, trained and scored side by side."""
