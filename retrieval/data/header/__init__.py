"""Headers of tables: what their columns are called, and what they hold."""
