"""The pages: HTML that the server renders."""

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from cli.web.settings import WebSettings
from index.serving.service import Service


def page_routes(service: Service, settings: WebSettings) -> APIRouter:
    """The routes of the pages over a service."""
    routes = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)

    @routes.get("/")
    async def start() -> str:
        return f"<!DOCTYPE html><title>lmr</title>{len(service.landmarks.folder.rows):,} images"

    return routes
