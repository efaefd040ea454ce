"""The HTTP API, version 1."""

import asyncio
import json
from dataclasses import replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from cli.web.problems import ProblemError, problems
from cli.web.settings import WebSettings
from cli.web.shapes import AnswerShape, DescriptorShape, NoWords, QueryWords, SentImages, StateShape
from cli.web.uploads import FORM, JSON, Upload, read_pictures
from index.landmarks import N_LANDMARKS
from index.serving.service import Service
from retrieval.errors import UnreadableError
from retrieval.progress import SILENT

if TYPE_CHECKING:
    from index.answer import Answer

_IMAGE = {"type": "string", "format": "binary"}
_FORM = {
    "type": "object",
    "properties": {
        "image": {"type": "array", "items": _IMAGE, "description": "Files; any name of a field does."},
        "url": {"type": "array", "items": {"type": "string"}},
        "box": {"type": "array", "items": {"type": "string", "example": "0.1,0.2,0.9,0.8"}},
    },
}
BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "image/*": {"schema": _IMAGE},
            "application/octet-stream": {"schema": _IMAGE},
            FORM: {"schema": _FORM},
            JSON: {"schema": SentImages.model_json_schema(ref_template="#/components/schemas/{model}")},
        },
    }
}
"""The bodies that hold images, for the OpenAPI document."""


class ExactJson(Response):
    """JSON with exact values, in ASCII as the command line prints it: names that are no UTF-8 keep their bytes."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The bytes of a document; of paths their last part, as a server's folders concern nobody."""
        return json.dumps(without_folders(content), allow_nan=False).encode("ascii")


def api_routes(service: Service, settings: WebSettings) -> APIRouter:
    """The routes of the API over a service."""
    routes = APIRouter(default_response_class=ExactJson)

    @routes.post("/v1/query", responses=_gives(list[AnswerShape], 400, 403, 413, 415, 422, 503), openapi_extra=BODY)
    async def query(request: Request, words: Annotated[QueryWords, Query()]) -> Response:
        """Names the landmark in images: an answer for each, in their order, as `lmr query --json` prints them."""
        pictures = await read_pictures(request, settings)
        if any(picture.box is not None for picture in pictures):
            raise ProblemError(422, "`box` is a word of /v1/search; send the part itself to be named")
        answers = await ask(service, pictures, words)
        return ExactJson([answer.to_json() for answer in answers])

    @routes.post("/v1/embed", responses=_gives(list[DescriptorShape], 400, 403, 413, 415, 422, 503), openapi_extra=BODY)
    async def embed(request: Request, _: Annotated[NoWords, Query()]) -> Response:
        """Turns images into descriptors of the model of the index."""
        pictures = await read_pictures(request, settings)
        asked = [asyncio.wrap_future(service.embed(picture.data)) for picture in pictures]
        found = await asyncio.gather(*asked, return_exceptions=True)
        return ExactJson([_embedded(picture.name, one) for picture, one in zip(pictures, found, strict=True)])

    @routes.get("/healthz", responses=_gives(StateShape))
    async def healthz() -> Response:
        """Tells that the server runs."""
        return ExactJson({"status": "ok"})

    return routes


async def ask(service: Service, pictures: list[Upload], words: QueryWords) -> "list[Answer]":
    """The answers to images, in their order. Raises BusyError, and LmrError for words that the index cannot follow."""
    if words.verify is None and words.top == N_LANDMARKS:
        asked = [service.query(one.data, one.name, threshold=words.threshold) for one in pictures]
        return await asyncio.gather(*map(asyncio.wrap_future, asked))
    how: dict[str, Any] = {"threshold": words.threshold, "n_landmarks": words.top, "progress": SILENT}
    how["verify"] = service.settings.verify if words.verify is None else words.verify
    found = await asyncio.wrap_future(service.run(service.landmarks.query, [one.data for one in pictures], **how))
    return [replace(answer, image=one.name) for answer, one in zip(found, pictures, strict=True)]


def without_folders(content: Any) -> Any:
    """The same document, each `path` in it without its folders."""
    if isinstance(content, list):
        return [without_folders(one) for one in content]
    if not isinstance(content, dict):
        return content
    return {
        key: PurePath(value).name if key == "path" and isinstance(value, str) else without_folders(value)
        for key, value in content.items()
    }


def _embedded(name: str, found: Any) -> dict[str, Any]:
    """The JSON of a descriptor, or of the reason why there is none. Raises what else went wrong."""
    if isinstance(found, BaseException) and not isinstance(found, UnreadableError):
        raise found
    is_read = not isinstance(found, UnreadableError)
    return {
        "image": name,
        "descriptor": found.tolist() if is_read else None,
        "unreadable": None if is_read else str(found),
    }


def _gives(kind: Any, *statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route answers, for the OpenAPI document."""
    return {200: {"model": kind}, **problems(*statuses)}
