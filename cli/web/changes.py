"""The routes by which clients say what is right, and change the index."""

import asyncio
from asyncio import wrap_future as wrap
from collections.abc import Callable
from hashlib import sha256
from typing import TYPE_CHECKING, Any, ParamSpec

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from cli.terminal import with_options
from cli.web.access import open_token
from cli.web.limits import image_limits
from cli.web.problems import ProblemError, problems
from cli.web.settings import WebSettings
from cli.web.shapes import ChangeShape, FeedbackShape, SentFeedback
from cli.web.uploads import FORM, JSON, media_type, read_json, read_pictures, require_whole, validated
from index.serving.changes import ImageChanges, new_image
from index.serving.feedback import Feedback, FeedbackFolder, TwiceError, completed, feedback_folder
from index.serving.kept import FullError
from index.serving.service import Service
from index.update.job import IndexChange
from retrieval.errors import DamageError, LmrError
from retrieval.images.limits import Limits

if TYPE_CHECKING:
    from index.answer import Answer

P = ParamSpec("P")

RETRY_S = 60  # after which a full or broken disk may be mended
SWAP_S, LOOK_S = 15.0, 0.05  # how long is waited for the service to answer by the changed index, and looked

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

_TEXTS = {"type": "array", "items": {"type": "string"}, "minItems": 1}
_IMAGES_FORM = {
    "type": "object",
    "properties": {"image": {"type": "array", "items": _IMAGE}, "image_id": _TEXTS, "landmark_id": _TEXTS},
    "required": ["image", "image_id", "landmark_id"],
}
_IMAGES_BODY = {"requestBody": {"required": True, "content": {FORM: {"schema": _IMAGES_FORM}}}}
_CHANGE_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"model": ChangeShape, "description": "Removed, or all was so already"},
    201: {"model": ChangeShape, "description": "Added"},
    **problems(400, 403, 404, 409, 413, 415, 422, 503),
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
            answer = await wrap(service.query(image))
            if answer.unreadable is not None:
                raise ProblemError(422, f"the image cannot be read: {answer.unreadable}")
        recording = _Recording(service, folder, image_limits(settings))
        recorded = wrap(service.run(recording.record, sent, image, answer))
        said, is_new, note = await asyncio.shield(recorded)  # also where a person has left the page meanwhile
        return JSONResponse(_told(said, note, is_new=is_new), 201 if is_new else 200)

    changing = _Changing(service, settings)
    how: dict[str, Any] = {"responses": _CHANGE_RESPONSES, "response_class": JSONResponse}
    routes.add_api_route(
        "/v1/pictures", changing.add, methods=["POST"], status_code=201, openapi_extra=_IMAGES_BODY, **how
    )
    routes.add_api_route("/v1/pictures/{image_id:path}", changing.remove, methods=["DELETE"], **how)
    return routes


async def _read_feedback(request: Request, settings: WebSettings) -> tuple[SentFeedback, bytes | None]:
    """The verdict of a request, and the image that came with it."""
    if media_type(request) == JSON:
        return await read_json(request, SentFeedback), None
    if media_type(request) != FORM:
        raise ProblemError(415, f"Content-Type is {media_type(request) or 'missing'}; send {JSON}, or a form ({FORM})")
    images = await read_pictures(request, settings, (*SentFeedback.model_fields,), least=0)
    if len(images) > 1:
        raise ProblemError(422, f"the form holds {len(images)} images; a verdict is on one, send one form for each")
    require_whole(images, "a verdict")
    words = {name: text for name, text in (await request.form()).multi_items() if isinstance(text, str)}
    known = {name: text for name, text in words.items() if name in SentFeedback.model_fields}
    filled = {name: text for name, text in known.items() if text or name == "answered"}
    return validated(SentFeedback, filled), images[0].data if images else None


class _Changing:
    """The routes by which the index is changed; each answers when the service answers by the changed one."""

    def __init__(self, service: Service, settings: WebSettings) -> None:
        self._service, self._settings = service, settings
        self._changes = ImageChanges(service.path, round(settings.added_mb * 1e6))
        if settings.allow_changes and open_token(settings) is None:
            raise LmrError("`allow_changes` needs a token; give `token_file`")

    async def add(self, request: Request) -> JSONResponse:
        """Adds images, each with its image_id and landmark_id: parts of a form of these names, in the same order."""
        self._require_allowed()
        sent = await self._read(request)
        limits = image_limits(self._settings)
        run = self._service.run
        images = await asyncio.gather(*(wrap(run(new_image, *one, limits)) for one in sent))
        landmarks = self._service.landmarks
        vectors = await asyncio.gather(*(wrap(self._service.embed(image.jpeg)) for image in images))
        change = await self._change(self._changes.add, images, np.stack(vectors), landmarks.folder.fingerprint)
        return await self._told(change, 201 if change.state == "changed" else 200)

    async def remove(self, image_id: str) -> JSONResponse:
        """Removes an image from the index."""
        self._require_allowed()
        return await self._told(await self._change(self._changes.remove, image_id), 200)

    def _require_allowed(self) -> None:
        if not self._settings.allow_changes:
            raise ProblemError(403, "this server changes no index; start it with --allow-changes and a token")

    async def _read(self, request: Request) -> list[tuple[bytes, str, str]]:
        """The images of a form, each with its image_id and landmark_id."""
        if media_type(request) != FORM:
            raise ProblemError(415, f"Content-Type is {media_type(request) or 'missing'}; send a form ({FORM})")
        uploads = await read_pictures(request, self._settings, ("image_id", "landmark_id"))
        require_whole(uploads, "a row of the index")
        form = await request.form()
        words = [[one for one in form.getlist(name) if isinstance(one, str)] for name in ("image_id", "landmark_id")]
        if {len(uploads)} != {*map(len, words)}:
            raise ProblemError(
                422,
                f"the form has {len(uploads)} images, {len(words[0])} of image_id and {len(words[1])} of landmark_id; "
                "give one of each for each image",
            )
        if len(set(words[0])) < len(words[0]):
            raise ProblemError(422, "the form has an image_id twice; give each image one of its own")
        return [(upload.data, *of_one) for upload, *of_one in zip(uploads, *words, strict=True)]

    async def _change(self, function: Callable[P, IndexChange], *args: P.args, **words: P.kwargs) -> IndexChange:
        """A change, made in a thread. Raises ProblemError where nothing can be written, and as the function does."""
        try:
            return await wrap(self._service.run(function, *args, **words))
        except (FullError, DamageError) as error:
            raise ProblemError(503, str(error), {"Retry-After": str(RETRY_S)}) from error

    async def _told(self, change: IndexChange, status: int) -> JSONResponse:
        """What a change came to, once the service answers by it or SWAP_S are over."""
        clock = asyncio.get_running_loop()
        end = clock.time() + SWAP_S
        while not (served := self._digest() == change.info.inputs_digest) and clock.time() < end:
            await asyncio.sleep(LOOK_S)
        index = self._service.path
        warnings = [line.replace(str(index), index.name) for line in change.warnings]
        if change.n_without_local:
            warnings.append("images without local features, so that nothing verifies them; lmr index add takes those")
        content = {
            "state": change.state,
            "added": change.n_added,
            "removed": change.n_removed + (change.n_background if not change.n_added else 0),
            "there": change.n_there,
            "images": change.info.n_rows,
            "served": served,
            "warnings": warnings,
        }
        return JSONResponse(content, status)

    def _digest(self) -> str:
        """Digest of the index that answers now."""
        return self._service.landmarks.folder.info.inputs_digest


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
        said = completed(said, self._service.landmarks, answer, is_answered=is_answered)
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
