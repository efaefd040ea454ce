"""The server of `lmr serve`: an index folder behind a socket, in one process or several."""

import errno
import math
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, field, replace
from multiprocessing import get_context
from multiprocessing.connection import wait
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from cli.terminal import warn, with_options
from cli.web.settings import WebSettings
from index.folder.config import INDEX_FOLDER
from index.search.address import address_of, require_folder
from index.serving.config import ServingSettings
from retrieval.embed.engine import EngineJob
from retrieval.errors import LmrError
from retrieval.extras import require_extra
from retrieval.jobs import ComputingJob, option
from retrieval.parallel import begin_worker, count_cores
from retrieval.progress import Progress
from retrieval.words import counted

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from uvicorn import Config

    from index.serving.service import Service

BACKLOG = 2048  # connections that wait to be taken
WATCH_S = 0.5  # between two looks at the processes, and before one that died is replaced
EXIT_UNSERVED = 3  # of a process that could not begin, and would not if it were started again


@dataclass(frozen=True)
class ServeJob(ComputingJob, EngineJob):
    """Serve an index folder."""

    _: KW_ONLY
    index: Path = option(INDEX_FOLDER, help="Index folder, or milvus://HOST/COLLECTION.")
    processes: int = option(1, low=1, high=256, help="Processes that answer; they share the memory of the index.")
    web: WebSettings = field(default_factory=WebSettings)
    serving: ServingSettings = field(default_factory=ServingSettings)


def require_web(what: str) -> None:
    """Asked for before the work that ends in a server. Raises LmrError that names what is not installed."""
    require_extra(what, "web", "fastapi", "uvicorn", "jinja2", "python_multipart", "prometheus_client")


def serve(job: ServeJob) -> None:
    """Serves until a signal ends it. Raises LmrError where it must not, or cannot."""
    from cli.web.access import open_token, require_safe

    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # threads that wait leave the cores to those that decode
    if job.web.allow_changes:
        require_folder(job.index)
    require_safe(job.web, open_token(job.web))
    place = job.web.feedback_folder
    if place is not None and place.resolve().is_relative_to(job.index.resolve()):
        raise LmrError(
            f"`feedback_folder` {place} lies in the index folder, which is replaced when the index changes; give one "
            "beside it"
        )
    n_room = job.serving.n_waiting + job.serving.n_batch
    if job.web.max_pictures > n_room:
        raise LmrError(
            f"a request of {job.web.max_pictures} images (`max_pictures`) could never be answered: {n_room} may wait "
            "(`waiting` and `batch`); lower the one or raise the others"
        )
    with listening(job.web.host, job.web.port) as listener:
        host = f"[{job.web.host}]" if ":" in job.web.host else job.web.host
        where = f"on http://{host}:{listener.getsockname()[1]}/; Ctrl-C ends it"
        if job.processes == 1:
            _serve_here(job, listener, where)
        else:
            _serve_in_processes(job, listener, where)


def _serve_here(job: ServeJob, listener: socket.socket, where: str) -> None:
    """Serves in this process until a signal ends it."""
    from uvicorn import Server

    from cli.web.app import make_app

    service = _open_service(job)
    _tell_warnings(service.landmarks.warnings, job.progress)
    told = _told(job, len(service.landmarks.folder.rows), len(service.landmarks.folder.rows.landmarks))
    server = Server(_config(make_app(service, job.web), job))

    def end(*_: object) -> None:  # a signal that ended the server is raised once more by it
        server.should_exit = True

    with _signals(end):
        job.progress.tell(f"serving {told} {where}")
        server.run(sockets=[listener])


def _serve_in_processes(job: ServeJob, listener: socket.socket, where: str) -> None:
    """Serves in several processes until a signal ends them; one that dies is replaced.

    Raises LmrError where they cannot begin.
    """
    import lmr
    from cli.web.metrics import METRICS_FOLDER

    info = lmr.index_info(job.index)
    _tell_warnings(info["warnings"], job.progress)
    told = _told(job, info["images"], info["landmarks"])
    ended: list[int] = []
    with TemporaryDirectory(prefix="lmr-metrics-") as folder, _signals(lambda number, _: ended.append(number)):
        os.environ[METRICS_FOLDER] = folder
        processes = [_start(job, listener) for _ in range(job.processes)]
        job.progress.tell(f"serving {told} by {job.processes} processes {where}")
        try:
            while not ended:
                _replace_dead(processes, job, listener)
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.join()
            del os.environ[METRICS_FOLDER]


def _replace_dead(processes: "list[BaseProcess]", job: ServeJob, listener: socket.socket) -> None:
    """Waits a while, and starts another process for each that died. Raises LmrError for one that could not begin."""
    wait([process.sentinel for process in processes], timeout=WATCH_S)
    for i, process in enumerate(processes):
        code = process.exitcode
        if code == EXIT_UNSERVED:
            raise LmrError(f"{job.index} is not served; the line above says why")
        if code is not None:
            job.progress.tell(f"process {process.pid} died ({code}); another one takes its place")
            time.sleep(WATCH_S)
            processes[i] = _start(job, listener)


def _start(job: ServeJob, listener: socket.socket) -> "BaseProcess":
    process = get_context("spawn").Process(target=_serve_share, args=(job, listener))
    with _signals(signal.SIG_IGN, signal.SIGINT):  # which the process inherits: Ctrl-C is for this one to hear
        process.start()
    return process


def _serve_share(job: ServeJob, listener: socket.socket) -> None:
    """The life of one of several processes, with its share of the cores."""
    from uvicorn import Server

    from cli.web.app import make_app

    begin_worker()
    threads = job.threads or max(1, count_cores() // job.processes)
    try:
        app = make_app(_open_service(replace(job, threads=threads)), job.web)
    except LmrError as error:
        warn(f"Error: {with_options(str(error))}")
        sys.exit(EXIT_UNSERVED)
    Server(_config(app, job)).run(sockets=[listener])


def _open_service(job: ServeJob) -> "Service":
    import lmr
    from cli.web.limits import image_limits

    how: dict[str, Any] = {"device": job.device, "threads": job.threads, "engine": job.engine}
    service = lmr.open_service(job.index, job.serving, progress=job.progress, **how)
    service.limits = image_limits(job.web)
    return service


def _config(app: Any, job: ServeJob) -> "Config":
    """How uvicorn serves an app."""
    from uvicorn import Config

    from cli.web.limits import server_words

    return Config(
        app,
        backlog=BACKLOG,
        timeout_graceful_shutdown=math.ceil(job.web.timeout_s),
        **server_words(),
    )


def _told(job: ServeJob, n_images: int, n_landmarks: int) -> str:
    return f"{address_of(job.index) or job.index} ({counted(n_images, 'image')} of {counted(n_landmarks, 'landmark')})"


def _tell_warnings(lines: Sequence[str], progress: Progress) -> None:
    for line in lines:
        progress.warn(f"warning: {line}")


@contextmanager
def listening(host: str, port: int) -> "Iterator[socket.socket]":
    """A socket that takes connections, which wait until they are served. Raises LmrError where there can be none."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (OSError, UnicodeError) as error:
        raise LmrError(f"`host` {host} is no address of this machine; give one, such as 127.0.0.1") from error
    # Of a socket whose protocol is not named, asyncio does not turn off Nagle's algorithm: 40 ms for each answer.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
            listener.listen(BACKLOG)
        except OSError as error:
            raise LmrError(_unbound(host, port, error)) from error
        yield listener


def _unbound(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"`port` {port} of {host} is taken by another program; give another one, or 0 for any that is free"
    if error.errno == errno.EACCES:
        return f"`port` {port} is kept for programs of the system; give one from 1024 on, and a proxy in front of it"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"`host` {host} is no address of this machine; give one, such as 127.0.0.1"
    return f"{host}:{port} cannot be listened on: {error.strerror}"


@contextmanager
def _signals(handler: Any, *numbers: int) -> "Iterator[None]":
    """Has a handler take signals, without numbers Ctrl-C and SIGTERM; puts back what was there."""
    before = {number: signal.signal(number, handler) for number in numbers or (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
