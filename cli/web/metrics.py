"""What /metrics tells Prometheus: requests, stages, batches, what waits, and the index; of all processes together."""

import os
import time
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from index.serving.service import Service

METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # of the environment: where processes put together what they count

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
METHODS = frozenset(("GET", "HEAD", "POST", "DELETE", "PUT", "PATCH", "OPTIONS"))  # others are counted as one
GONE = 499  # status of a request whose client went before it was answered


class Metrics:
    """Counts of one process, as an Observer of its service."""

    def __init__(self, service: Service) -> None:
        self._service, self._registry = service, CollectorRegistry()
        own: dict[str, Any] = {"registry": self._registry}
        self.requests = Counter("lmr_requests", "Requests answered.", ["route", "method", "status"], **own)
        self.seconds = Histogram("lmr_request_seconds", "Time for a request.", ["route"], buckets=SECONDS, **own)
        self.open = Gauge("lmr_open_requests", "Requests that are worked on.", multiprocess_mode="livesum", **own)
        self._stages = Histogram("lmr_stage_seconds", "Time in a stage.", ["stage"], buckets=SECONDS, **own)
        self._batches = Histogram("lmr_batch_images", "Images computed at once.", buckets=IMAGES, **own)
        self._waiting = Gauge("lmr_waiting_images", "Images not answered yet.", multiprocess_mode="livesum", **own)
        self._images = Gauge("lmr_index_images", "Images of the index.", multiprocess_mode="livemostrecent", **own)
        self._landmarks = Gauge(
            "lmr_index_landmarks", "Landmarks of the index.", multiprocess_mode="livemostrecent", **own
        )
        self.look()

    def stage(self, name: str, seconds: float) -> None:
        """Counts the time in a stage."""
        self._stages.labels(name).observe(seconds)

    def batch(self, n_images: int) -> None:
        """Counts a batch."""
        self._batches.observe(n_images)

    def look(self) -> None:
        """Notes what the service is like now."""
        rows = self._service.landmarks.folder.rows
        self._waiting.set(self._service.n_waiting)
        self._images.set(len(rows))
        self._landmarks.set(len(rows.landmarks))

    def text(self) -> bytes:
        """All of it in the format of Prometheus, of all processes that still run."""
        self.look()
        folder = os.environ.get(METRICS_FOLDER)
        if folder is None:
            return generate_latest(self._registry)
        for number in {int(path.stem.rpartition("_")[2]) for path in Path(folder).glob("gauge_live*.db")}:
            if not _runs(number):
                mark_process_dead(number)  # type: ignore[no-untyped-call]
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)


class Counted:
    """ASGI middleware: requests are counted by their route, and how long they took."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), GONE

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self._metrics.open.inc()
        try:
            await self._app(scope, receive, noted)
        finally:
            self._metrics.open.dec()
            route = str(getattr(scope.get("route"), "path", "none"))
            method = scope["method"] if scope["method"] in METHODS else "other"
            self._metrics.requests.labels(route, method, status).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - began)
            self._metrics.look()


def metrics_routes(metrics: Metrics) -> APIRouter:
    """The route that Prometheus asks."""
    routes = APIRouter()
    told: dict[int | str, dict[str, Any]] = {
        200: {"description": "What was counted", "content": {"text/plain": {"schema": {"type": "string"}}}}
    }

    @routes.get("/metrics", response_class=Response, responses=told)
    async def tell() -> Response:
        """Tells requests, stages, batches, what waits and the size of the index, in the format of Prometheus."""
        return Response(await run_in_threadpool(metrics.text), media_type=CONTENT_TYPE_LATEST)

    return routes


def _runs(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
