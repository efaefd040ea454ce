"""Train, validation and test: which image goes where."""
