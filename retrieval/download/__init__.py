"""Fetching pictures: politely, safely, resumably, resized on arrival."""
