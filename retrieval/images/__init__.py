"""Images: found, fetched, decoded and prepared."""
