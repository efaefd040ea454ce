"""lmr serve: a web page and an HTTP API over an index folder."""

from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

import click

from cli.options import job_options
from cli.progress import TerminalProgress
from cli.web.settings import WebSettings
from index.folder.config import INDEX_FOLDER
from index.serving.config import ServingSettings
from retrieval.embed.engine import EngineJob
from retrieval.extras import require_extra
from retrieval.jobs import ComputingJob, build, option


@dataclass(frozen=True)
class ServeJob(ComputingJob, EngineJob):
    """Serve an index folder."""

    _: KW_ONLY
    index: Path = option(INDEX_FOLDER, help="Index folder.")
    web: WebSettings = field(default_factory=WebSettings)
    serving: ServingSettings = field(default_factory=ServingSettings)


@click.command(name="serve")
@job_options(ServeJob, but=("workers",))
def command(**words: Any) -> None:
    """Serve an index folder as a web page and an HTTP API.

    \b
    Example:
      lmr serve
      lmr serve --index landmarks --port 8080
    """
    require_extra("lmr serve", "web", "fastapi", "uvicorn", "jinja2")
    with TerminalProgress() as progress:
        job = build(ServeJob, {**words, "progress": progress})
        _serve(job)


def _serve(job: ServeJob) -> None:
    import uvicorn

    from cli.web.access import open_token, require_safe
    from cli.web.app import make_app
    from cli.web.limits import server_words
    from index.serving.service import Service

    require_safe(job.web, open_token(job.web))
    how: dict[str, Any] = {"device": job.device, "threads": job.threads, "engine": job.engine}
    service = Service(job.index, job.serving, progress=job.progress, **how)
    job.progress.warn(f"serving {job.index} on http://{job.web.host}:{job.web.port}/ (Ctrl-C ends it)")
    uvicorn.run(make_app(service, job.web), host=job.web.host, port=job.web.port, **server_words())
