"""The HTTP API, version 1."""

import asyncio
import hashlib
import json
from dataclasses import replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec, TypeVar

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response

from cli.web.problems import ProblemError, problems
from cli.web.settings import WebSettings
from cli.web.shapes import (
    BODY,
    AnswerShape,
    DescriptorShape,
    ImageWords,
    LandmarkListShape,
    LandmarkShape,
    ListWords,
    NoWords,
    PageShape,
    QueryWords,
    SearchWords,
    StateShape,
)
from cli.web.uploads import Upload, read_pictures
from index.serving.browse import landmark, landmarks_of
from index.serving.gallery import crop, original, parse_box, read_row, thumbnail
from index.serving.service import Service
from index.serving.similar import search as search_index
from retrieval.errors import UnreadableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Future

    from index.answer import Answer
    from index.landmarks import Landmarks
    from index.serving.page import Page
    from retrieval.arrays import FloatArray

P = ParamSpec("P")
T = TypeVar("T")

N_TRIES = 3  # of an image whose index is replaced while it is embedded
CACHED_S = 3600  # that a browser shows an image of the index without asking again

_OF_BODIES = (400, 403, 413, 415, 422, 503)


class ExactJson(JSONResponse):
    """JSON with exact values, in ASCII as the command line prints it: names that are no UTF-8 keep their bytes."""

    def render(self, content: Any) -> bytes:
        """The bytes of a document; of paths their last part, as a server's folders concern nobody."""
        return json.dumps(without_folders(content), allow_nan=False).encode("ascii")


def api_routes(service: Service, settings: WebSettings) -> APIRouter:
    """The routes of the API over a service."""
    routes = APIRouter(default_response_class=ExactJson)

    @routes.post("/v1/query", responses=_gives(list[AnswerShape], *_OF_BODIES), openapi_extra=BODY)
    async def query(request: Request, words: Annotated[QueryWords, Query()]) -> Response:
        """Names the landmark in images: an answer for each, in their order, as `lmr query --json` prints them."""
        answers = await ask(service, await read_pictures(request, settings), words)
        return ExactJson([answer.to_json() for answer in answers])

    @routes.post("/v1/search", responses=_gives(PageShape, *_OF_BODIES, 404), openapi_extra=BODY)
    async def search(request: Request, words: Annotated[SearchWords, Query()]) -> Response:
        """Finds the images of the index that are most similar to an image that is sent, or to one of them."""
        if words.image_id is None:
            pictures = await read_pictures(request, settings)
            if len(pictures) != 1:
                raise ProblemError(422, f"a search is by one image, got {len(pictures)}; send each by itself")
            return ExactJson((await find(service, pictures[0], words)).to_json())
        if await request.body():
            raise ProblemError(422, "a search is by `image_id` or by an image that is sent, got both; leave one out")
        return ExactJson((await find(service, None, words)).to_json())

    @routes.post("/v1/embed", responses=_gives(list[DescriptorShape], *_OF_BODIES), openapi_extra=BODY)
    async def embed(request: Request, _: Annotated[NoWords, Query()]) -> Response:
        """Turns images into descriptors of the model of the index."""
        pictures = await cropped(service, await read_pictures(request, settings))
        found = await asyncio.gather(*[_embedded(service, picture) for picture in pictures])
        return ExactJson(found)

    _add_browsing(routes, service, settings)
    _add_states(routes, service)
    return routes


def _add_browsing(routes: APIRouter, service: Service, settings: WebSettings) -> None:
    """The routes by which a client looks at what is in the index."""

    @routes.get("/v1/landmarks", responses=_gives(LandmarkListShape, 422, 503))
    async def landmark_list(words: Annotated[ListWords, Query()]) -> Response:
        """Lists the landmarks of the index, by name."""
        how = {"first": words.first, "n": words.n}
        found = await run(service, landmarks_of, service.landmarks, words.search, **how)
        return ExactJson({"items": [one.to_json() for one in found.items], "n_found": found.n_found})

    @routes.get("/v1/landmarks/{landmark_id:path}", responses=_gives(LandmarkShape, 404, 422, 503))
    async def one_landmark(landmark_id: str, _: Annotated[NoWords, Query()]) -> Response:
        """Tells what is typical of a landmark and what it is confused with, as `lmr explain --json` does."""
        found = await run(service, landmark, service.landmarks, landmark_id)
        return ExactJson(found.to_json())

    @routes.get("/v1/images/{image_id:path}", responses=_GIVES_IMAGE, response_class=Response)
    async def image(request: Request, image_id: str, words: Annotated[ImageWords, Query()]) -> Response:
        """Sends an image of the index as a JPEG without metadata: its thumbnail, or all of it where that is allowed."""
        if words.size == "original":
            if not settings.allow_originals:
                raise ProblemError(403, "this server sends thumbnails alone; start lmr serve with --allow-originals")
            found = await run(service, original, service.landmarks, image_id)
        else:
            small = await run(service, thumbnail, service.landmarks, image_id)
            found = None if small is None else (small, "image/jpeg")
        if found is None:
            raise ProblemError(404, f"the file of {image_id} is gone, and the index keeps no thumbnail of it")
        return image_response(request, *found)

    routes.head("/v1/images/{image_id:path}", include_in_schema=False)(image)


def _add_states(routes: APIRouter, service: Service) -> None:
    """The routes by which the server is watched."""

    @routes.get("/healthz", responses=_gives(StateShape))
    async def healthz() -> Response:
        """Tells that the server runs."""
        return ExactJson({"status": "ok"})

    @routes.get("/readyz", responses=_gives(StateShape, 503))
    async def readyz() -> Response:
        """Tells whether images are answered: not any more when the server is about to end."""
        if not service.is_ready:
            raise ProblemError(503, "the server is about to end; ask another one", {"Retry-After": "5"})
        return ExactJson({"status": "ready"})

    for path, state in (("/healthz", healthz), ("/readyz", readyz)):
        routes.head(path, include_in_schema=False)(state)  # as balancers of load ask


async def ask(service: Service, pictures: list[Upload], words: QueryWords) -> "list[Answer]":
    """The answers to images, in their order. Raises BusyError, and LmrError for words that the index cannot follow."""
    pictures = await cropped(service, pictures)
    how: dict[str, Any] = {"threshold": words.threshold, "n_landmarks": words.top, "verify": words.verify}
    return await _gathered(service.query(picture.data, picture.name, **how) for picture in pictures)


async def _gathered(asked: "Iterable[Future[T]]") -> list[T]:
    """What comes of all that is asked; where one fails, what was not begun of the others is not done."""
    begun: list[asyncio.Future[T]] = []
    try:
        for one in asked:
            begun.append(asyncio.wrap_future(one))
        return list(await asyncio.gather(*begun))
    finally:
        for other in begun:
            other.cancel()


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


async def find(service: Service, picture: Upload | None, words: SearchWords) -> "Page":
    """The neighbours of an image that was sent, or else of `words.image_id`; of a part of it where a box is given.

    Raises BusyError, ProblemError, UnreadableError, and UnknownError for what the index does not have.
    """
    landmarks = service.landmarks
    if picture is None:
        assert words.image_id is not None
        if words.box is None:
            return await run(service, _search, landmarks, words.image_id, words)
        picture = Upload(words.image_id, await run(service, read_row, landmarks, words.image_id))
    if words.box is not None:
        picture = replace(picture, box=parse_box(words.box))
    (part,) = await cropped(service, [picture])
    landmarks, vector = await embedded(service, part.data)
    return await run(service, _search, landmarks, vector, words)


async def embedded(service: Service, data: bytes) -> "tuple[Landmarks, FloatArray]":
    """The descriptor of an image, and the index whose model made it. Raises BusyError, UnreadableError."""
    for _ in range(N_TRIES):
        landmarks = service.landmarks
        vector = await asyncio.wrap_future(service.embed(data))
        if service.landmarks is landmarks:
            return landmarks, vector
    raise ProblemError(503, "the index is replaced again and again; try again later", {"Retry-After": "5"})


async def run(service: Service, function: "Callable[P, T]", *args: "P.args", **words: "P.kwargs") -> T:
    """What a function that takes long gives. Raises BusyError."""
    return await asyncio.wrap_future(service.run(function, *args, **words))


def _search(landmarks: "Landmarks", by: "FloatArray | str", words: SearchWords) -> "Page":
    how = words.model_dump(exclude={"image_id", "box"})
    return search_index(landmarks, by, leave_out=words.image_id if not isinstance(by, str) else None, **how)


async def cropped(service: Service, pictures: list[Upload]) -> list[Upload]:
    """The images, in place of those that have a box the part in it. Raises LmrError for a box, BusyError."""
    return list(await asyncio.gather(*(_cropped(service, picture) for picture in pictures)))


async def _cropped(service: Service, picture: Upload) -> Upload:
    if picture.box is None:
        return picture
    try:
        part = await run(service, crop, picture.data, picture.box, service.limits)
    except UnreadableError:  # which is told by what is asked of it
        part = picture.data
    return replace(picture, data=part, box=None)


def image_response(request: Request, data: bytes, media_type: str) -> Response:
    """An image that a browser may keep, or 304 where it has it already."""
    tag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Cache-Control": f"private, max-age={CACHED_S}"}
    known = [one.strip().removeprefix("W/") for one in request.headers.get("If-None-Match", "").split(",")]
    if tag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    return Response(data, headers=headers, media_type=media_type)


async def _embedded(service: Service, picture: Upload) -> dict[str, Any]:
    """The JSON of a descriptor, or of the reason why there is none. Raises BusyError."""
    try:
        vector = await asyncio.wrap_future(service.embed(picture.data))
    except UnreadableError as error:
        return {"image": picture.name, "descriptor": None, "unreadable": str(error)}
    return {"image": picture.name, "descriptor": vector.tolist(), "unreadable": None}


def _gives(kind: Any, *statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route answers, for the OpenAPI document."""
    return {200: {"model": kind}, **problems(*statuses)}


_GIVES_IMAGE: dict[int | str, dict[str, Any]] = {
    200: {"description": "The image", "content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}},
    304: {"description": "It has not changed since"},
    **problems(403, 404, 422, 503),
}
