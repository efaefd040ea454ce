"""Errors as application/problem+json (RFC 9457), with the texts of the command line."""

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from cli.terminal import shown_line
from index.serving.service import BusyError
from retrieval.errors import LmrError, UnreadableError


class ProblemError(Exception):
    """A request that is refused. status: of HTTP. detail: one line: what, where, received, what to do."""

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, headers


def problem(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """A response of application/problem+json."""
    content: dict[str, Any] = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status}
    content["detail"] = shown_line(detail)
    return JSONResponse(content, status, headers, media_type="application/problem+json")


def add_problems(app: FastAPI) -> None:
    """Has an app answer every error with a problem."""

    @app.exception_handler(ProblemError)
    async def refused(_: Request, error: ProblemError) -> JSONResponse:
        return problem(error.status, error.detail, error.headers)

    @app.exception_handler(BusyError)
    async def busy(_: Request, error: BusyError) -> JSONResponse:
        return problem(503, str(error), {"Retry-After": str(max(1, round(error.retry_s)))})

    @app.exception_handler(UnreadableError)
    async def unreadable(_: Request, error: UnreadableError) -> JSONResponse:
        return problem(422, f"the image cannot be read: {error}")

    @app.exception_handler(LmrError)
    async def failed(_: Request, error: LmrError) -> JSONResponse:
        return problem(422, str(error))
