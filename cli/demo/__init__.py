"""The demo: rendered landmarks, and the whole path from pictures to a report over them."""
