"""Settings of the page and the API: what may be sent, fetched, shown and changed."""

from dataclasses import dataclass
from pathlib import Path

from retrieval.jobs import option


@dataclass(frozen=True, slots=True)
class WebSettings:
    """Settings of the page and the API.

    token_file: holds the bearer token that all requests must carry, None = that of LMR_TOKEN, or none is asked for.
    allowed_host: names by which the server may be asked beside addresses, localhost and `host`. trusted_proxy:
    addresses and networks of proxies, whose X-Forwarded-For and -Proto are believed. per_minute: None = 600, or any
    number where this machine alone can ask; reading costs a tenth of a request that computes.
    """

    host: str = option("127.0.0.1", help="Address to listen on.")
    port: int = option(8080, low=0, high=65535, help="Port to listen on; 0 = any free one.")
    public: bool = option(False, help="Answer everybody where `host` is not loopback and there is no token.")
    token_file: Path | None = option(None, help="File that holds the token which requests must carry.")
    allow_urls: bool = option(False, help="Fetch images by URL, from public addresses alone.")
    allow_originals: bool = option(False, help="Send the images of the index in full, not their thumbnails alone.")
    feedback_folder: Path | None = option(
        None, default_text="INDEX.feedback, beside the index", help="Folder of the table of feedback."
    )
    keep_mb: float = option(0.0, low=0, help="Megabytes of images that may be kept with feedback; 0 = none are.")
    allow_changes: bool = option(False, help="Add images to the index and remove them, with the token.")
    added_mb: float = option(10_000.0, low=0, help="Megabytes that images added with `allow_changes` may take.")
    max_upload_mb: float = option(20.0, low=0.1, high=1000, help="Largest request, megabytes.")
    max_pixels: int = option(50_000_000, low=1, help="Largest width times height of an image.")
    max_pictures: int = option(16, low=1, high=1000, help="Most images of a request.")
    timeout_s: float = option(30.0, low=1, high=3600, help="Longest time for a request, seconds.")
    per_minute: int | None = option(
        None,
        low=0,
        default_text="600, any number where this machine alone can ask",
        help="Requests of one client in a minute; 0 = any number.",
    )
    allowed_host: tuple[str, ...] = option((), metavar="NAME", help="Name of this server in URLs; repeat it for more.")
    trusted_proxy: tuple[str, ...] = option(
        (),
        metavar="ADDRESS",
        help="Proxy whose X-Forwarded-For and X-Forwarded-Proto are believed; repeat it for more.",
    )
    access_log: bool = option(False, help="Print a line for each request: client, method, path, status, bytes, time.")
