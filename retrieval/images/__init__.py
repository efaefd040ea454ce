"""Pictures: found, fetched, decoded and prepared."""
