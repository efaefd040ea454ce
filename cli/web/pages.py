"""The pages: HTML that the server renders, whole, or as a part where the page asks for one by X-Fragment."""

import asyncio
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from cli.report.html import new_environment, small_image
from cli.web.problems import ProblemError
from cli.web.settings import WebSettings
from index.answer import Answer
from index.serving.service import Service
from retrieval.errors import UnreadableError

PREVIEW_PX, PREVIEW_QUALITY = 640, 80  # of a picture that was asked, where no script shows it
STATIC = {"app.css": "text/css", "icon.svg": "image/svg+xml", "ask.js": "text/javascript"}
FOR_EVER = "public, max-age=31536000, immutable"  # as the address of a static file holds its digest
WORDS = ((0.99, "as good as certain"), (0.9, "very likely"), (0.7, "likely"), (0.4, "a guess"), (0.0, "unlikely"))


def page_routes(service: Service, settings: WebSettings) -> APIRouter:
    """The routes of the pages over a service."""
    routes = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
    pages = _Pages(service, settings)
    routes.add_api_route("/", pages.start)
    routes.add_api_route("/ask", pages.ask, methods=["POST"])
    routes.add_api_route("/static/{digest}/{name}", pages.static)
    return routes


class _Pages:
    """The pages over a service."""

    def __init__(self, service: Service, settings: WebSettings) -> None:
        self._service, self._settings = service, settings
        folder = Path(__file__).parent / "static"
        self._static = {name: (folder / name).read_bytes() for name in STATIC}
        self._digest = sha256(b"".join(self._static.values())).hexdigest()[:16]
        self._environment = new_environment("web/templates")
        self._environment.filters |= {"in_path": in_path, "in_words": in_words}

    async def start(self) -> str:
        """The page that asks for pictures."""
        return self._render("ask.html", here="/", answers=(), warnings=self._service.landmarks.warnings)

    async def ask(self, request: Request) -> str:
        """The answers to pictures: a page of them, or one answer as a part of a page."""
        async with request.form() as form:
            sent = [
                (part.filename or "image", await part.read())
                for part in form.getlist("image")
                if not isinstance(part, str)
            ]
        sent = [(name, data) for name, data in sent if data]
        if not sent:
            raise ProblemError(400, "no picture was sent; choose one")
        answers = await asyncio.gather(*(asyncio.wrap_future(self._service.query(data, name)) for name, data in sent))
        is_part = "x-fragment" in request.headers
        previews = [
            "" if is_part else await self._preview(answer, data)
            for answer, (_, data) in zip(answers, sent, strict=True)
        ]
        shown = list(zip(answers, previews, strict=True))
        return self._render("answers.html" if is_part else "ask.html", here="", answers=shown, warnings=())

    async def static(self, digest: str, name: str) -> Response:
        """A script, the stylesheet or the icon."""
        if name not in self._static:
            raise ProblemError(404, f"there is no file {name}")
        headers = {"Cache-Control": FOR_EVER if digest == self._digest else "no-cache"}
        return Response(self._static[name], media_type=STATIC[name], headers=headers)

    async def _preview(self, answer: Answer, data: bytes) -> str:
        if answer.unreadable is not None:
            return ""
        try:
            return await asyncio.wrap_future(self._service.run(small_image, data, PREVIEW_PX, PREVIEW_QUALITY))
        except UnreadableError:
            return ""

    def _render(self, name: str, **values: Any) -> str:
        landmarks = self._service.landmarks
        rows = landmarks.folder.rows
        every = {
            "static": f"/static/{self._digest}",
            "n_images": len(rows),
            "n_landmarks": len(rows.landmarks),
            "calibrated": landmarks.is_calibrated,
            "allow_urls": self._settings.allow_urls,
        }
        return self._environment.get_template(name).render(**every, **values)


def in_path(text: str) -> str:
    """An id as a part of an address."""
    return quote(text, safe="")


def in_words(confidence: float) -> str:
    """A confidence in words."""
    return next(words for least, words in WORDS if confidence >= least)
