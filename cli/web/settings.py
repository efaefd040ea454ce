"""Settings of the page and the API: what may be sent, fetched, shown and changed."""

from dataclasses import dataclass
from pathlib import Path

from retrieval.jobs import option


@dataclass(frozen=True, slots=True)
class WebSettings:
    """Settings of the page and the API.

    token_file: holds the bearer token that all requests must carry, None = none is asked for.
    """

    host: str = option("127.0.0.1", help="Address to listen on.")
    port: int = option(8080, low=0, high=65535, help="Port to listen on; 0 = any free one.")
    public: bool = option(False, help="Answer everybody where `host` is not loopback and there is no token.")
    token_file: Path | None = option(None, help="File that holds the token which requests must carry.")
    allow_urls: bool = option(False, help="Fetch images by URL, from public addresses alone.")
    allow_originals: bool = option(False, help="Send the images of the index in full, not their thumbnails alone.")
    allow_changes: bool = option(False, help="Add images to the index and remove them, with the token.")
    max_upload_mb: float = option(20.0, low=0.1, high=1000, help="Largest request, megabytes.")
    max_pixels: int = option(50_000_000, low=1, help="Largest width times height of an image.")
    max_pictures: int = option(16, low=1, high=1000, help="Most images of a request.")
    timeout_s: float = option(30.0, low=1, high=3600, help="Longest time for a request, seconds.")
    per_minute: int = option(600, low=0, help="Requests of one client in a minute; 0 = any number.")
