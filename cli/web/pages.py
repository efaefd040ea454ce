"""The pages: HTML that the server renders, whole, or a part of a page where its script asks for one by X-Fragment."""

import asyncio
import json
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal, ParamSpec, TypeVar

from fastapi import APIRouter, Form, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from cli.report.explanation import render_explanation
from cli.report.html import file_name, small_image
from cli.report.pair import DrawnImage, drawn_compared, drawn_images
from cli.web.api import embedded, run
from cli.web.problems import ProblemError
from cli.web.settings import WebSettings
from cli.web.uploads import Upload, read_pictures, token_of, vector_of
from cli.web.views import STATIC, TYPES, in_path, views
from index.answer import Answer
from index.asking.answers import neighbour_of, unreadable_answer
from index.explain.comparison import Compared
from index.landmarks import Landmarks
from index.serving.browse import curve, landmark, landmarks_of, meaning
from index.serving.gallery import crop, kept_of, parse_box, read_row, row_of, size_of
from index.serving.page import Page, Similar
from index.serving.service import Service
from index.serving.similar import compare, search
from retrieval.arrays import FloatArray
from retrieval.errors import LmrError, UnreadableError
from retrieval.progress import SILENT

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound=Compared)

N_TILES = 24  # images of a page of a gallery: whole rows of 2, 3, 4 and 6
N_LANDMARKS = 48
N_SHOWN_FIRST = 12  # landmarks on the first page
KEPT = "private, no-cache"  # a browser that goes back shows the answers that its script had put there
PREVIEW_PX, PREVIEW_QUALITY = 640, 80  # of an image that no script shows
REPORTS = {"report.html": "Evaluation", "stats.html": "Statistics of the pictures"}  # beside the index folder
# A report runs apart from the other pages, and reaches nothing. Its own policy allows no script but its own.
REPORT_POLICY = (
    "sandbox allow-scripts; default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
)

# An explanation is the page of `lmr query --explain`, which runs no script.
EXPLANATION_POLICY = "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'"


class GalleryWords(BaseModel):
    """What a gallery shows: of which landmark, in which order, from which image on; copies apart, sure ones alone."""

    first: int = Field(default=0, ge=0, le=1_000_000)
    landmark: str = ""
    sort: Literal["similarity", "megapixels", "pixels_per_inch"] = "similarity"
    apart: bool = False
    sure: bool = False


class AskedWords(GalleryWords):
    """The gallery of an image that was asked before, by its descriptor."""

    descriptor: str = Field(max_length=1 << 20)


@dataclass(frozen=True, slots=True)
class Gallery:
    """Images on a page.

    landmarks: (landmark_id, name) to choose from. action: where more of them are. descriptor: what is sent there, ''
    where the address says it. row: the image_id that they are like, '' = that of no row.
    """

    page: Page
    words: GalleryWords
    landmarks: Sequence[tuple[str, str]]
    action: str
    descriptor: str = ""
    row: str = ""

    @property
    def items(self) -> tuple[Similar, ...]:
        """The images."""
        return self.page.items

    @property
    def next(self) -> int:
        """The number of the first image of the next page."""
        return self.words.first + len(self.items)


@dataclass(frozen=True, slots=True)
class Shown:
    """An answer on a page.

    preview: the image as a data: address, '' where the browser has it. meaning: a sentence on the confidence. sha256:
    of the image, for a verdict on the answer; '' where it is of a part of one.
    """

    answer: Answer
    preview: str = ""
    meaning: str = ""
    sha256: str = ""
    gallery: Gallery | None = None


def page_routes(service: Service, settings: WebSettings) -> APIRouter:
    """The routes of the pages over a service."""
    pages = _Pages(service, settings)
    routes = APIRouter(include_in_schema=False, default_response_class=HTMLResponse, route_class=_route_class(pages))
    routes.add_api_route("/", pages.start)
    routes.add_api_route("/ask", pages.ask, methods=["POST"])
    routes.add_api_route("/explain", pages.explain, methods=["POST"])
    routes.add_api_route("/neighbours", pages.neighbours, methods=["POST"])
    routes.add_api_route("/similar/{image_id:path}", pages.similar)
    routes.add_api_route("/compare", pages.compare, methods=["POST"])
    routes.add_api_route("/compare", pages.compare_rows)
    routes.add_api_route("/landmarks", pages.landmarks)
    routes.add_api_route("/landmarks/{landmark_id:path}", pages.landmark)
    routes.add_api_route("/reports", pages.reports)
    routes.add_api_route("/reports/{name}", pages.report)
    routes.add_api_route(STATIC + "/{digest}/{name}", pages.static)
    return routes


def _route_class(pages: "_Pages") -> type[APIRoute]:
    """Routes whose errors are pages too, but for the script of a page, which shows their line."""

    class PageRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def handle_or_tell(request: Request) -> Response:
                try:
                    return await handle(request)
                except (ProblemError, LmrError, HTTPException, RequestValidationError) as error:
                    if "x-fragment" in request.headers:
                        raise
                    return await pages.error(request, error)

            return handle_or_tell

    return PageRoute


class _Pages:
    """The pages over a service."""

    def __init__(self, service: Service, settings: WebSettings) -> None:
        self._service, self._settings, self._beside = service, settings, service.path.absolute().parent

    async def start(self) -> Response:
        """The page that asks for images."""
        landmarks = self._service.landmarks
        make = partial(landmarks_of, landmarks, n=N_SHOWN_FIRST)
        some = await self._run(kept_of(landmarks).lists.get, "first page", make)
        page = self._render("ask.html", here="/", shown=(), some=some, warnings=landmarks.warnings)
        return HTMLResponse(page, headers={"Cache-Control": KEPT})

    async def ask(self, request: Request) -> str:
        """The answers to images: a page of them, or as parts of one."""
        pictures = await read_pictures(request, self._settings, least=0)
        if not pictures:
            raise ProblemError(422, "there is no picture to look at; choose one")
        has_script = "x-fragment" in request.headers
        urls = (await request.form()).getlist("url")
        asked = (
            self._asked(one, preview=not has_script or one.name in urls or one.box is not None) for one in pictures
        )
        shown = await asyncio.gather(*asked)
        if has_script:
            return self._render("answers.html", shown=shown)
        return self._render("ask.html", here="", shown=shown, some=None, warnings=())

    async def explain(self, request: Request) -> Response:
        """Why an image, the first that is sent, gets its answer: votes and terms that add up, the match, the maps."""
        picture = await self._first(request)
        page = await self._run(_explained, self._service.landmarks, picture, self._service.verifies)
        return HTMLResponse(page, headers={"Content-Security-Policy": EXPLANATION_POLICY})

    async def neighbours(self, request: Request, words: Annotated[AskedWords, Form()]) -> str:
        """More of the images that are like one that was asked, by its descriptor."""
        landmarks = self._service.landmarks
        vector = vector_of(landmarks, words.descriptor)
        gallery = await self._run(_gallery, landmarks, vector, words, "/neighbours", words.descriptor)
        return self._render_gallery(request, gallery, "Pictures that are like it")

    async def similar(
        self, request: Request, image_id: str, words: Annotated[GalleryWords, Query()], box: str = ""
    ) -> str:
        """An image of the index and those that are like it, or like a part of it."""
        landmarks = self._service.landmarks
        row = await self._run(row_of, landmarks, image_id)
        part: Shown | None = None
        address = f"/similar/{in_path(image_id)}"
        if box:
            data = await self._run(read_row, landmarks, image_id)
            part = await self._asked(Upload(image_id, data, parse_box(box)), preview=True)
            gallery = part.gallery
        else:
            gallery = await self._run(_gallery, landmarks, image_id, words, address)
        if "x-fragment" in request.headers and gallery is not None:
            return self._render_gallery(request, gallery, image_id)
        own = neighbour_of(landmarks.folder, row, 1.0)
        size = await self._run(size_of, landmarks, row)
        return self._render("similar.html", own=own, size=size, part=part, gallery=gallery, box=box)

    async def compare(self, request: Request, image_id: str) -> str:
        """An image that is sent beside one of the index, with the lines of their match and their similarity map."""
        picture = await self._first(request)
        return await self._compared(picture.name, picture.data, image_id, "pair.html")

    async def compare_rows(self, request: Request, row: str, image_id: str) -> str:
        """Two images of the index beside each other."""
        data = await self._run(read_row, self._service.landmarks, row)
        template = "pair.html" if "x-fragment" in request.headers else "comparison.html"
        return await self._compared(row, data, image_id, template)

    async def _first(self, request: Request) -> Upload:
        """The first image that is sent, or the part of it within its box; decoded once within the server's limits."""
        picture, *_ = await read_pictures(request, self._settings)
        limits = self._service.limits
        if picture.box is None:
            await self._run(self._service.landmarks.embedder.prepare, picture.data, limits)
            return picture
        data = await self._run(crop, picture.data, picture.box, limits)
        return replace(picture, name=f"a part of {picture.name}", data=data)

    async def _compared(self, name: str, data: bytes, image_id: str, template: str) -> str:
        landmarks = self._service.landmarks
        found, drawn = await self._run(_drawn, landmarks, name, data, image_id)
        return self._render(template, asked=name, found=found, drawn=drawn)

    async def landmarks(self, first: Annotated[int, Query(ge=0)] = 0, search: str = "") -> str:
        """The landmarks of the index, by name."""
        found = await self._run(landmarks_of, self._service.landmarks, search, first=first, n=N_LANDMARKS)
        return self._render("landmarks.html", here="/landmarks", found=found, search=search, first=first)

    async def landmark(self, landmark_id: str) -> str:
        """A landmark: its typical images and its deviant ones, and what it is confused with."""
        landmarks = self._service.landmarks
        found = await self._run(landmark, landmarks, landmark_id)
        known = landmarks.folder.names.get(landmark_id)
        return self._render("landmark.html", found=found, address=known.address if known else "")

    async def reports(self) -> str:
        """What is known of the index and its answers."""
        folder, verified = self._service.landmarks.folder, self._service.verifies
        if verified and folder.calibration is not None and folder.calibration.verified is not None:
            folder = replace(folder, calibration=folder.calibration.of_verified)
        files = [(name, title) for name, title in REPORTS.items() if (self._beside / name).is_file()]
        return self._render("reports.html", here="/reports", folder=folder, files=files)

    async def report(self, name: str) -> Response:
        """A report that lies beside the index folder."""
        if name not in REPORTS:
            raise ProblemError(404, f"there is no report {name}; /reports lists those that there are")
        try:
            content = await self._run((self._beside / name).read_bytes)
        except OSError as error:
            raise ProblemError(404, f"there is no report {name} beside the index folder") from error
        return HTMLResponse(content, headers={"Content-Security-Policy": REPORT_POLICY})

    async def static(self, request: Request, digest: str, name: str) -> Response:
        """A script, the stylesheet or the icon."""
        if name not in views().files:
            raise ProblemError(404, f"there is no file {name}")
        headers = {"Cache-Control": views().caching(digest), "Vary": "Accept-Encoding"}
        files = views().files
        if "gzip" in request.headers.get("accept-encoding", ""):
            files, headers["Content-Encoding"] = views().packed, "gzip"
        return Response(files[name], media_type=TYPES[Path(name).suffix], headers=headers)

    async def error(self, request: Request, error: Exception) -> Response:
        """The page of an error, with the line and the status that programs get."""
        handlers = request.app.exception_handlers
        handler = next(handlers[kind] for kind in type(error).__mro__ if kind in handlers)
        told: Response = await handler(request, error)
        if told.media_type == "text/html":
            return told
        detail = json.loads(bytes(told.body))["detail"]
        headers = {name: told.headers[name] for name in ("Retry-After", "Allow") if name in told.headers}
        return HTMLResponse(self._render("error.html", detail=detail), told.status_code, headers)

    async def _asked(self, picture: Upload, *, preview: bool) -> Shown:
        """The answer to an image or a part of it, and the images that are like it."""
        data = picture.data
        try:
            if picture.box is not None:
                data = await self._run(crop, data, picture.box, self._service.limits)
                picture = replace(picture, name=f"a part of {picture.name}")
            landmarks, vector = await embedded(self._service, data)
        except UnreadableError as error:
            return Shown(unreadable_answer(picture.name, str(error)))
        how = {"verify": self._service.verifies, "preview": preview}
        return await self._run(_shown, landmarks, vector, replace(picture, data=data), **how)

    async def _run(self, function: Callable[P, R], *args: P.args, **words: P.kwargs) -> R:
        return await run(self._service, function, *args, **words)

    def _render_gallery(self, request: Request, gallery: Gallery, title: str) -> str:
        if "x-fragment" in request.headers:
            return self._render("gallery.html", gallery=gallery)
        return self._render("neighbours.html", gallery=gallery, title=title)

    def _render(self, name: str, here: str = "", **values: Any) -> str:
        landmarks = self._service.landmarks
        rows = landmarks.folder.rows
        every = {
            "here": here,
            "n_images": len(rows),
            "n_landmarks": len(rows.landmarks),
            "calibrated": landmarks.is_calibrated,
            "allow_urls": self._settings.allow_urls,
            "keeps_images": self._settings.keep_mb > 0,
            "allow_originals": self._settings.allow_originals,
            "points": curve(landmarks, verified=self._service.verifies),
        }
        return views().render(name, **{**every, **values})


def _shown(landmarks: Landmarks, vector: FloatArray, picture: Upload, *, verify: bool, preview: bool) -> Shown:
    how: dict[str, Any] = {"verify": verify, "progress": SILENT}
    answer = landmarks.answer_descriptors(vector[None], [picture.name], [picture.data], **how)[0]
    told = meaning(landmarks, answer.confidence, verified=verify)
    descriptor = token_of(landmarks, vector)
    return Shown(
        answer,
        small_image(picture.data, PREVIEW_PX, PREVIEW_QUALITY) if preview else "",
        "" if told is None else told.text,
        "" if picture.box is not None else sha256(picture.data).hexdigest(),
        _gallery(landmarks, vector, GalleryWords(), "/neighbours", descriptor),
    )


def _explained(landmarks: Landmarks, picture: Upload, verify: bool) -> str:
    explained = landmarks.explain(picture.data, verify=verify, progress=SILENT)
    explained = _placeless(replace(explained, answer=replace(explained.answer, image=picture.name)))
    return render_explanation(explained, list(drawn_images(explained)), Path(Path(str(landmarks.folder)).name), None)


def _placeless(found: C) -> C:
    """The same, without the place on disk of an image that cannot be shown."""
    row, near = found.row, found.neighbour
    if row is None or near is None or not near.path:
        return found
    return replace(found, row=replace(row, note=row.note.replace(near.path, file_name(near.path))))


def _drawn(landmarks: Landmarks, name: str, data: bytes, image_id: str) -> tuple[Compared, list[DrawnImage]]:
    found = _placeless(compare(landmarks, data, image_id))
    return found, list(drawn_compared(found, name))


def _gallery(
    landmarks: Landmarks, query: FloatArray | str, words: GalleryWords, action: str, descriptor: str = ""
) -> Gallery:
    """Images that are like a descriptor or a row, and the landmarks of the first of them."""
    label, sure = words.landmark or None, words.sure and landmarks.is_calibrated
    how: dict[str, Any] = {"n": N_TILES, "fold": not words.apart}
    page = search(landmarks, query, first=words.first, landmark=label, sort=words.sort, sure=sure, **how)
    first = search(landmarks, query, **how).items
    known = {item.neighbour.landmark_id: item.neighbour.name for item in (*first, *page.items)}
    row = query if isinstance(query, str) else ""
    return Gallery(page, words, sorted(known.items(), key=lambda one: one[1]), action, descriptor, row)
