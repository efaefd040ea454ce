"""Fetching images: politely, safely, resumably, resized on arrival."""
