"""The demo: rendered landmarks, and the whole path from images to a report over them."""
