"""The app: the page and the API over one service."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from copy import deepcopy
from typing import Any

from fastapi import FastAPI

from cli.web.api import api_routes
from cli.web.changes import change_routes
from cli.web.guards import add_guards
from cli.web.metrics import Counted, Metrics, metrics_routes
from cli.web.pages import page_routes
from cli.web.problems import add_problems, problems
from cli.web.settings import WebSettings
from index.serving.service import Service
from retrieval.version import program_version

OF_ALL = (400, 401, 403, 421, 429, 500, 503)  # statuses of the guards, which any request can meet
TITLE = "lmr: landmarks in images"


class App(FastAPI):
    """The app. Its OpenAPI document has examples that the index it serves now can answer."""

    service: Service

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document; what bodies are made of is moved to its components."""
        if self.openapi_schema is None:
            self.openapi_schema = deepcopy(super().openapi())
            self.openapi_schema["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            self.openapi_schema["security"] = [{}, {"token": []}]  # which a server may ask for or not
            for route in self.openapi_schema["paths"].values():
                for operation in route.values():
                    for body in operation.get("requestBody", {}).get("content", {}).values():
                        self.openapi_schema["components"]["schemas"].update(body["schema"].pop("$defs", {}))
        rows, paths = self.service.landmarks.folder.rows, self.openapi_schema["paths"]
        image_id, landmark_id = str(rows.image_id[0]), rows.landmarks[0]
        paths["/v1/images/{image_id}"]["get"]["parameters"][0]["example"] = image_id
        paths["/v1/landmarks/{landmark_id}"]["get"]["parameters"][0]["example"] = landmark_id
        said = paths["/v1/feedback"]["post"]["requestBody"]["content"]["application/json"]
        said["example"] = {"verdict": "other", "landmark_id": landmark_id, "image_id": image_id}
        return self.openapi_schema


def make_app(service: Service, settings: WebSettings) -> FastAPI:
    """The app over a service, which it closes when it ends."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    app = App(
        title=TITLE,
        version=program_version(),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses=problems(*OF_ALL),
    )
    app.service = service
    said = settings.feedback_folder
    add_problems(app, service.path, *([] if said is None else [said]))
    app.include_router(api_routes(service, settings))
    app.include_router(change_routes(service, settings))
    app.include_router(page_routes(service, settings))
    add_guards(app, settings)
    service.observe = metrics = Metrics(service)
    app.include_router(metrics_routes(metrics))
    app.add_middleware(Counted, metrics=metrics)
    return app
