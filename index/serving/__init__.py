"""An index folder that answers many at once: batches, neighbours page by page, feedback."""
