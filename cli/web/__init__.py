"""The page and the HTTP API over an index folder."""
