"""The routes by which clients say what is right, and change the index."""

import asyncio
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from cli.terminal import with_options
from cli.web.problems import ProblemError, problems
from cli.web.settings import WebSettings
from cli.web.shapes import FeedbackShape, SentFeedback
from cli.web.uploads import FORM, JSON, media_type, read_json, read_pictures, validated
from index.serving.feedback import Feedback, FeedbackFolder, NoRowError, TwiceError, completed, feedback_folder
from index.serving.kept import FullError
from index.serving.service import Service
from retrieval.errors import LmrError
from retrieval.images.limits import Limits

if TYPE_CHECKING:
    from index.answer import Answer

RETRY_S = 60  # after which a full or broken disk may be mended

_IMAGE = {"type": "string", "format": "binary"}
_SCHEMA = SentFeedback.model_json_schema(ref_template="#/components/schemas/{model}")
_FEEDBACK_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            JSON: {"schema": _SCHEMA, "example": {"verdict": "other", "landmark_id": "arch", "image_id": "train-0"}},
            FORM: {"schema": {**_SCHEMA, "properties": {**_SCHEMA["properties"], "image": _IMAGE}}},
        },
    }
}


def change_routes(service: Service, settings: WebSettings) -> APIRouter:
    """The routes over a service."""
    routes = APIRouter()
    folder = FeedbackFolder(settings.feedback_folder or feedback_folder(service.path), round(settings.keep_mb * 1e6))

    @routes.post(
        "/v1/feedback",
        status_code=201,
        responses={
            200: {"model": FeedbackShape, "description": "It was there already"},
            201: {"model": FeedbackShape},
            **problems(400, 404, 409, 413, 415, 422, 503),
        },
        openapi_extra=_FEEDBACK_BODY,
    )
    async def feedback(request: Request) -> JSONResponse:
        """Records a verdict on an answer or on a label; it is on the disk when this answers."""
        sent, image = await _read_feedback(request, settings)
        answer = None
        if image is not None:
            answer = await asyncio.wrap_future(service.query(image))
            if answer.unreadable is not None:
                raise ProblemError(422, f"the image cannot be read: {answer.unreadable}")
        recording = _Recording(service, folder, Limits(max_pixels=settings.max_pixels))
        said, is_new, note = await asyncio.wrap_future(service.run(recording.record, sent, image, answer))
        return JSONResponse(_told(said, note, is_new=is_new), 201 if is_new else 200)

    return routes


async def _read_feedback(request: Request, settings: WebSettings) -> tuple[SentFeedback, bytes | None]:
    """The verdict of a request, and the image that came with it."""
    if media_type(request) == JSON:
        return await read_json(request, SentFeedback), None
    if media_type(request) != FORM:
        raise ProblemError(415, f"Content-Type is {media_type(request) or 'missing'}; send {JSON}, or a form ({FORM})")
    images = await read_pictures(request, settings, {*SentFeedback.model_fields}, least=0)
    if len(images) > 1:
        raise ProblemError(422, f"the form holds {len(images)} images; a verdict is on one, send one form for each")
    words = {name: text for name, text in (await request.form()).multi_items() if isinstance(text, str)}
    known = {name: text for name, text in words.items() if name in SentFeedback.model_fields}
    filled = {name: text for name, text in known.items() if text or name == "answered"}
    return validated(SentFeedback, filled), images[0].data if images else None


class _Recording:
    """The recording of one verdict."""

    def __init__(self, service: Service, folder: FeedbackFolder, limits: Limits) -> None:
        self._service, self._folder, self._limits = service, folder, limits

    def record(self, sent: SentFeedback, image: bytes | None, answer: "Answer | None") -> tuple[Feedback, bool, str]:
        """Records a verdict; it, whether it is new, and why the image is not kept."""
        digest = sent.sha256 if image is None else sha256(image).hexdigest()
        if sent.sha256 and sent.sha256 != digest:
            raise ProblemError(422, f"sha256 is {sent.sha256}, that of the image is {digest}; send one of them")
        said = Feedback(
            verdict=sent.verdict,
            landmark_id=sent.landmark_id,
            answered=sent.answered or "",
            confidence=sent.confidence,
            image_id=sent.image_id,
            sha256=digest,
            id=sent.id,
        )
        is_answered = "answered" in sent.model_fields_set
        try:
            said = completed(said, self._service.landmarks.folder, answer, is_answered=is_answered)
        except NoRowError as error:
            raise ProblemError(404, str(error)) from error
        try:
            said, note = self._keep(said, image) if sent.keep and image is not None else (said, "")
            said, is_new = self._folder.add(said)
        except TwiceError as error:
            raise ProblemError(409, str(error)) from error
        except LmrError as error:
            raise ProblemError(503, str(error), {"Retry-After": str(RETRY_S)}) from error
        return said, is_new, note

    def _keep(self, said: Feedback, image: bytes) -> tuple[Feedback, str]:
        """Keeps the image of a verdict; the verdict with its place, and why it is not kept."""
        if said.image_id:
            return said, "the index has the image"
        try:
            return self._folder.keep(said, image, self._limits), ""
        except FullError as error:
            return said, with_options(str(error))


def _told(said: Feedback, note: str, *, is_new: bool) -> dict[str, Any]:
    return {
        "id": said.id,
        "state": "recorded" if is_new else "unchanged",
        "verdict": said.verdict,
        "landmark_id": said.landmark_id or None,
        "answered": said.answered or None,
        "image_id": said.image_id or None,
        "sha256": said.sha256 or None,
        "kept": bool(said.image),
        "note": note,
    }
