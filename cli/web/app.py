"""The app: the page and the API over one service."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from cli.web.api import api_routes
from cli.web.guards import add_guards
from cli.web.pages import page_routes
from cli.web.problems import add_problems
from cli.web.settings import WebSettings
from index.serving.service import Service
from retrieval.version import program_version


def make_app(service: Service, settings: WebSettings) -> FastAPI:
    """The app over a service, which it closes when it ends."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    app = FastAPI(title="lmr", version=program_version(), lifespan=lifespan, docs_url=None, redoc_url=None)
    add_problems(app)
    app.include_router(api_routes(service, settings))
    app.include_router(page_routes(service, settings))
    add_guards(app, settings)
    return app
