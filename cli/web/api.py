"""The HTTP API, version 1."""

import asyncio
from typing import Any

from fastapi import APIRouter, Request

from cli.web.settings import WebSettings
from index.serving.service import Service


def api_routes(service: Service, settings: WebSettings) -> APIRouter:
    """The routes of the API over a service."""
    routes = APIRouter()

    @routes.post("/v1/query")
    async def query(request: Request) -> list[dict[str, Any]]:
        answer = await asyncio.wrap_future(service.query(await request.body()))
        return [answer.to_json()]

    @routes.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    return routes
