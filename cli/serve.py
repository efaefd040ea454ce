"""lmr serve: a web page and an HTTP API over an index folder."""

from typing import Any

import click

from cli.options import job_options
from cli.progress import TerminalProgress
from cli.web.server import ServeJob, require_web, serve
from retrieval.jobs import build


@click.command(name="serve")
@job_options(ServeJob, but=("workers",))
def command(**words: Any) -> None:
    """Serve an index folder as a web page and an HTTP API.

    Ctrl-C or SIGTERM ends it when what was asked is answered. Use a proxy in front of it for TLS.

    \b
    Example:
      lmr serve
      lmr serve --index landmarks --port 8080
      lmr serve --index milvus://127.0.0.1:19530/landmarks
      lmr serve --port 0 --processes 4 --threads 2
      lmr serve --host 0.0.0.0 --token-file token.txt
    """
    require_web("lmr serve")
    with TerminalProgress() as progress:
        serve(build(ServeJob, {**words, "progress": progress}))
