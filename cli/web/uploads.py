"""Images that a request sends: as raw bytes, in a form, in JSON; and descriptors of those that were sent before."""

import base64
import binascii
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ValidationError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile

from cli.web.guards import fetch_picture
from cli.web.problems import ProblemError, told_errors
from cli.web.settings import WebSettings
from cli.web.shapes import SentImage, SentImages
from index.landmarks import Landmarks
from index.serving.gallery import Box, parse_box
from retrieval.arrays import FloatArray
from retrieval.errors import LmrError
from retrieval.files.json_file import parse_json

M = TypeVar("M", bound=BaseModel)

FORM, JSON = "multipart/form-data", "application/json"
MAX_FIELDS = 100  # of a form, beside its files
MAX_FIELD_BYTES = 1 << 16
LENGTH_TOLERANCE = 1e-3  # of a unit descriptor
NAME_CHARACTERS = 255  # of the name of a file

_HOW = f"send it as the body (Content-Type: image/jpeg), as a file of a form ({FORM}), or in JSON ({JSON})"


@dataclass(frozen=True, slots=True)
class Upload:
    """An image that was sent. name: of its file. box: the part that is meant, in [0, 1] of the upright image."""

    name: str
    data: bytes
    box: Box | None = None


async def read_pictures(
    request: Request, settings: WebSettings, fields: Collection[str] = (), *, least: int = 1
) -> list[Upload]:
    """The images of a request, in their order.

    fields: names of a form that mean something else to the caller, who finds them by `request.form()`. least: 0 = there
    may be none.
    Raises ProblemError for a body that holds no image or cannot be understood, for too many images, and for a URL that
    may not or cannot be fetched. Whether an image can be decoded is not looked at.
    """
    kind = media_type(request)
    if kind == FORM:
        found = await _of_form(await _form(request, settings), settings, fields)
    elif kind == JSON:
        sent = await read_json(request, SentImages)
        _require_number(len(sent.images), settings)
        found = [await _of_json(image, i, settings) for i, image in enumerate(sent.images)]
    elif kind in ("", "application/octet-stream") or kind.startswith("image/"):
        body = await request.body()
        found = [Upload("image", body)] if body or kind else []
    else:
        raise ProblemError(415, f"Content-Type is {kind}, which is no image; {_HOW}")
    if len(found) < least:
        raise ProblemError(422, f"the request holds no image; {_HOW}")
    return found


def require_whole(uploads: Sequence[Upload], what: str) -> None:
    """Refuses parts of images. what: what is about whole ones. Raises ProblemError."""
    if any(upload.box is not None for upload in uploads):
        raise ProblemError(422, f"{what} is of a whole image, and `box` means nothing here; send the part as an image")


async def read_json(request: Request, kind: type[M]) -> M:
    """The JSON body of a request, read strictly. Raises ProblemError that names what does not fit."""
    if (found := media_type(request)) != JSON:
        raise ProblemError(415, f"Content-Type is {found or 'missing'}; send {JSON}")
    body = await request.body()
    try:
        content = await run_in_threadpool(parse_json, body, "the body", "send valid JSON")
    except LmrError as error:
        raise ProblemError(400, str(error)) from error
    return validated(kind, content)


def validated(kind: type[M], content: Any) -> M:
    """What a client said, as a shape. Raises ProblemError that names what does not fit."""
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise ProblemError(422, told_errors(error.errors(include_url=False), kind.model_json_schema())) from error


async def _form(request: Request, settings: WebSettings) -> FormData:
    """The form of a request. Raises ProblemError for one that ends too early, which the parser takes for shorter."""
    _, given = parse_options_header(request.headers.get("Content-Type"))
    end = b"--%b--" % given.get(b"boundary", b"")
    if end not in (await request.body())[-len(end) - 4096 :]:
        raise ProblemError(400, "the form ends too early: its last boundary is missing; send it again")
    limits = {"max_files": settings.max_pictures, "max_fields": MAX_FIELDS, "max_part_size": MAX_FIELD_BYTES}
    return await request.form(**limits)


async def _of_form(form: FormData, settings: WebSettings, fields: Collection[str]) -> list[Upload]:
    found: list[Upload] = []
    boxes: list[Box] = []
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            data = await value.read()
            if data or value.filename:  # a browser sends an empty file without a name where none was chosen
                found.append(Upload((value.filename or "image")[:NAME_CHARACTERS], data))
            await value.close()
        elif name == "url" and value:
            _require_number(len(found) + 1, settings)
            found.append(Upload(value, await fetch_picture(value, settings)))
        elif name == "box" and value:
            boxes.append(parse_box(value))
        elif name == "image" and "image" not in fields:
            raise ProblemError(422, "the field image of the form is a text; send a file (curl -F image=@holiday.jpg)")
        elif name not in ("url", "box") and name not in fields:
            known = ", ".join(("files", *fields)) + (" and url" if fields else ", url and box")
            raise ProblemError(422, f"the form has a field {name}, which means nothing here; {known} do")
    if boxes and len(boxes) != len(found):
        raise ProblemError(422, f"the form has {len(boxes)} `box` for {len(found)} images; give one for each, or none")
    return [replace(one, box=box) for one, box in zip(found, boxes, strict=True)] if boxes else found


async def _of_json(image: SentImage, i: int, settings: WebSettings) -> Upload:
    if (image.data is None) == (image.url is None):
        raise ProblemError(422, f"images[{i}] must have either data (base64) or url")
    if image.url is not None:
        name = image.name if "name" in image.model_fields_set else image.url
        return Upload(name, await fetch_picture(image.url, settings), image.box)
    text = image.data or ""
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        data = await run_in_threadpool(base64.b64decode, text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ProblemError(422, f"images[{i}].data is not base64 ({error}); encode the file as base64") from error
    if not data:
        raise ProblemError(422, f"images[{i}].data is empty; encode the file as base64")
    return Upload(image.name[:NAME_CHARACTERS], data, image.box)


def media_type(request: Request) -> str:
    """The Content-Type of a request without its parameters."""
    return request.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def _require_number(n: int, settings: WebSettings) -> None:
    if n > settings.max_pictures:
        raise ProblemError(413, f"a request may hold {settings.max_pictures} images, got {n}; send them in several")


def token_of(landmarks: Landmarks, vector: FloatArray) -> str:
    """A descriptor as text for a form, with the model that it is of."""
    return f"{landmarks.folder.fingerprint[:16]}.{base64.b64encode(vector.astype('<f4').tobytes()).decode()}"


def vector_of(landmarks: Landmarks, token: str) -> FloatArray:
    """The unit descriptor (d,) in a text. Raises ProblemError for one of another model, and for no descriptor."""
    fingerprint, _, text = token.partition(".")
    if fingerprint != landmarks.folder.fingerprint[:16]:
        raise ProblemError(409, "the index has another model by now; ask with the picture again")
    try:
        vector = np.frombuffer(base64.b64decode(text, validate=True), "<f4").astype(np.float32)
    except (binascii.Error, ValueError) as error:
        raise ProblemError(422, "the descriptor is damaged; ask with the picture again") from error
    length = float(np.linalg.norm(vector.astype(np.float64)))
    if vector.shape != (landmarks.folder.n_columns,) or not abs(length - 1) < LENGTH_TOLERANCE:
        raise ProblemError(422, "the descriptor is damaged; ask with the picture again")
    return vector
