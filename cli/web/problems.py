"""Errors as application/problem+json (RFC 9457), with the texts of the command line."""

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from cli.terminal import shown, shown_line, with_options
from cli.web.shapes import ProblemShape
from cli.web.views import views
from index.search.address import address_of
from index.serving.batches import BusyError
from index.serving.changes import ChangingError
from index.serving.gallery import UnknownError
from index.update.change import ConflictError
from retrieval.errors import LmrError, UnreachableError, UnreadableError

CHANGING_S = 5  # after which another change of the index has ended, or its server may answer again
PROBLEM_JSON = "application/problem+json"

_COMMAND = re.compile(r"\blmr [a-z-]+ `[a-z_]+`")  # with an option, which is said as the command line has it
_MUST = "Input should be "  # as pydantic says it


class ProblemError(Exception):
    """A request that is refused. status: of HTTP. detail: one line: what, where, received, what to do."""

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, headers


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """A response of application/problem+json."""
    content: dict[str, Any] = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status}
    content["detail"] = shown_line(detail)
    return JSONResponse(content, status, headers, media_type=PROBLEM_JSON)


def refusal(asked: HTTPConnection, status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """A page for a person who opens an address in a browser, and a problem for programs and for the page's script."""
    if "text/html" not in asked.headers.get("accept", "") or "x-fragment" in asked.headers:
        return problem(status, detail, headers)
    return HTMLResponse(views().render("error.html", here="", detail=shown_line(detail)), status, headers)


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """These errors of a route, for its OpenAPI document."""
    told = {"model": ProblemShape, "content": {PROBLEM_JSON: {}}}
    return {status: {**told, "description": HTTPStatus(status).phrase} for status in statuses}


def told_errors(errors: Sequence[Any], schema: Mapping[str, Any]) -> str:
    """The first error of a validation in one line. schema: of what was validated, for the names that there are."""
    error = errors[0]
    place = [part for part in error["loc"] if part not in ("query", "body", "path")]
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")
    if error["type"] == "extra_forbidden":
        known = _names(schema)
        close = difflib.get_close_matches(str(place[-1]), known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"those that there are: {', '.join(known) or 'none'}"
        return f"there is no parameter {where}; {hint}"
    if error["type"] == "missing":
        return f"`{where}` is missing; give it"
    if error["type"] == "model_type":
        return f"`{where or 'body'}` must be a JSON object, got {shown(repr(error['input']))}"
    message = error["msg"]
    told = f"must be {message.removeprefix(_MUST)}" if message.startswith(_MUST) else message[:1].lower() + message[1:]
    return f"`{where or 'body'}` {told}, got {shown(repr(error['input']))}"


def add_problems(app: FastAPI, *folders: Path) -> None:
    """Has an app answer every error with a problem. folders: that it serves and writes; no place on disk is told."""

    def told(error: Exception) -> str:
        text = _COMMAND.sub(lambda found: with_options(found[0]), str(error))
        for folder in folders:
            if (address := address_of(folder)) is not None:
                text = text.replace(str(address), folder.name).replace(f"{address.host}:{address.port}", "its server")
            text = text.replace(os.path.abspath(folder), folder.name).replace(str(folder), folder.name)
        return text

    @app.exception_handler(ProblemError)
    async def refused(_: Request, error: ProblemError) -> JSONResponse:
        return problem(error.status, told(error), error.headers)

    @app.exception_handler(BusyError)
    async def busy(_: Request, error: BusyError) -> JSONResponse:
        return problem(503, str(error), {"Retry-After": str(max(1, round(error.retry_s)))})

    @app.exception_handler(UnreadableError)
    async def unreadable(_: Request, error: UnreadableError) -> JSONResponse:
        return problem(422, f"the image cannot be read: {error}")

    @app.exception_handler(UnknownError)
    async def unknown(_: Request, error: UnknownError) -> JSONResponse:
        return problem(404, told(error))

    @app.exception_handler(ChangingError)
    async def changing(_: Request, error: ChangingError) -> JSONResponse:
        return problem(503, told(error), {"Retry-After": str(CHANGING_S)})

    @app.exception_handler(ConflictError)
    async def contradicted(_: Request, error: ConflictError) -> JSONResponse:
        return problem(409, told(error))

    @app.exception_handler(UnreachableError)
    async def unreachable(_: Request, __: UnreachableError) -> JSONResponse:
        detail = f"the server that holds the index does not answer; try again in {CHANGING_S} s"
        return problem(503, detail, {"Retry-After": str(CHANGING_S)})

    @app.exception_handler(LmrError)
    async def failed(_: Request, error: LmrError) -> JSONResponse:
        return problem(422, told(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        names = {"properties": dict.fromkeys(_parameters(app, request))}
        return problem(422, told_errors(error.errors(), names))

    @app.exception_handler(HTTPException)
    async def not_served(request: Request, error: HTTPException) -> Response:
        return refusal(request, error.status_code, _detail(request, error), error.headers)

    @app.exception_handler(Exception)
    async def broken(_: Request, __: Exception) -> JSONResponse:
        return problem(500, "the server failed; its log says why")


def _detail(request: Request, error: HTTPException) -> str:
    path = request.url.path
    if error.status_code == HTTPStatus.NOT_FOUND:
        return f"there is nothing at {path}; /openapi.json lists what there is"
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = (error.headers or {}).get("Allow", "other methods")
        return f"{path} does not take {request.method}; use {allowed}"
    return str(error.detail)


def _parameters(app: FastAPI, request: Request) -> list[str]:
    """Names of the parameters of the route that a request met, as the OpenAPI document has them."""
    route = request.scope.get("route")
    told = app.openapi()["paths"].get(getattr(route, "path_format", ""), {}).get(request.method.lower(), {})
    return [parameter["name"] for parameter in told.get("parameters", [])]


def _names(schema: Mapping[str, Any]) -> list[str]:
    """Names of the properties of a schema and of those that it refers to."""
    own = [schema, *schema.get("$defs", {}).values()]
    return list(dict.fromkeys(name for part in own for name in part.get("properties", {})))
