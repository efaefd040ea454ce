"""A server of `lmr serve`, asked over HTTP: the same answers, with no network and no index here."""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote
from uuid import uuid4

import aiohttp
import numpy as np
from yarl import URL

from index.answer import Answer
from index.asking.answers import unreadable_answer
from index.landmarks import N_LANDMARKS, name_of
from index.serving.browse import LandmarkList, Listed
from index.serving.config import SearchJob
from index.serving.feedback import Verdict
from index.serving.page import Page
from retrieval.errors import LmrError, UnreadableError
from retrieval.images.fetch_rules import FetchRules
from retrieval.images.given import GivenImages
from retrieval.images.http import as_fetch_error, open_session, run_here
from retrieval.jobs import build, option_of, word_of
from retrieval.version import program_version

if TYPE_CHECKING:
    from typing import Unpack

    from index.folder.thumbnails import Kept
    from index.keywords import SearchWords
    from index.serving.gallery import Box
    from retrieval.arrays import FloatArray
    from retrieval.images.given import ImageLike

TOKEN_VARIABLE = "LMR_TOKEN"  # of the environment: the token of a server
N_AT_ONCE = 8  # requests; the server computes together what comes at the same time
AGAIN_S = 1.0  # before a server is asked again that does not say when
LATER = (429, 503)  # statuses of a server that answers later
NOT_FOUND, TOO_LARGE = 404, 413

T = TypeVar("T")


class Connection:
    """A server that is asked what images show; nothing is sent before something is asked.

    timeout_s: for an image, with all waiting for a server that has too much to do. Each method raises LmrError for a
    server that does not answer, and with its own line where it refuses.
    """

    def __init__(self, url: str, token: str | None = None, *, timeout_s: float = 60.0) -> None:
        """Raises LmrError for what is no URL of a server, and no token. White space around a token is not of it."""
        if not url.startswith(("http://", "https://")):
            raise LmrError(f"{url} is no URL of a server; give one such as http://127.0.0.1:8080")
        self.url, self.timeout_s = url.rstrip("/"), timeout_s
        if token is not None and not token.strip().isprintable():
            raise LmrError("the token holds a character that cannot be seen; give the one line of its file")
        self._headers = {} if token is None else {"Authorization": f"Bearer {token.strip()}"}

    def __repr__(self) -> str:
        return f"<Connection to {self.url}>"

    def query(
        self,
        images: Sequence["ImageLike"],
        *,
        threshold: float | None = None,
        n_landmarks: int = N_LANDMARKS,
        allow_private: bool = False,
        verify: bool | None = None,
    ) -> list[Answer]:
        """One answer for each image (paths, URLs, encoded bytes or PIL images), in their order, as `Landmarks.query`.

        allow_private: whether URLs, which are fetched here, may lead to loopback, private and link-local addresses.
        verify: None = as the server does.
        """
        words = {"threshold": threshold, "top": n_landmarks, "verify": verify}
        told = self._ask_each("/v1/query", images, words, allow_private)
        return [self._answer(name_of(image), one) for image, one in zip(images, told, strict=True)]

    def embed(
        self, images: Sequence["ImageLike"], *, allow_private: bool = False
    ) -> "tuple[FloatArray, dict[int, str]]":
        """Unit descriptors (b, d) of the readable images in their order, and position -> reason of the others."""
        told = self._ask_each("/v1/embed", images, {}, allow_private)
        vectors, unreadable = [], {}
        for i, one in enumerate(told):
            reason = str(one) if isinstance(one, UnreadableError) else one["unreadable"]
            if reason is None:
                vectors.append(one["descriptor"])
            else:
                unreadable[i] = str(reason)
        return np.array(vectors, np.float32).reshape(len(vectors), -1), unreadable

    def search(
        self,
        image: "ImageLike | None" = None,
        *,
        image_id: str | None = None,
        box: "Box | None" = None,
        allow_private: bool = False,
        **words: "Unpack[SearchWords]",
    ) -> Page:
        """The images of the index that are most similar to an image, or to one of it, as `Landmarks.search`.

        Raises besides UnreadableError for an image that cannot be read here, or is more than the server takes.
        """
        if image is None and image_id is None:
            raise LmrError("give an image or an `image_id`, one of them")
        job = build(SearchJob, words)
        asked = {word_of(item): getattr(job, item.name) for item in fields(job) if option_of(item) is not None}
        asked |= {"image_id": image_id, "box": None if box is None else ",".join(map(repr, box))}
        data = None if image is None else GivenImages([image], allow_private).read(0)
        told = self._ask(_Asked("POST", "/v1/search", asked, lambda: data))
        return self._understood(partial(Page.from_json, kept=self._kept), told)

    def landmarks(self, search: str = "", *, first: int = 0, n: int = 50) -> LandmarkList:
        """The landmarks of the index whose name or landmark_id has this text in it, by name."""
        words = {"search": search, "first": first, "n": n}
        return self._understood(_listed, self._ask(_Asked("GET", "/v1/landmarks", words)))

    def thumbnail(self, image_id: str) -> bytes | None:
        """The thumbnail of an image of the index (a JPEG); None where the server has none."""
        path = f"/v1/images/{quote(image_id, safe='', errors='surrogateescape')}"
        return self._ask_bytes(_Asked("GET", path, may_lack=True))

    def feedback(
        self,
        verdict: Verdict,
        image: "ImageLike | None" = None,
        *,
        answer: Answer | None = None,
        image_id: str | None = None,
        landmark_id: str | None = None,
        keep: bool = False,
    ) -> Mapping[str, Any]:
        """Says of the answer to an image, or of the label of an image of the index, that it is right or wrong.

        landmark_id: of the right one, with the verdict `other`. keep: whether the server may keep the image. What was
        recorded, as `POST /v1/feedback` tells it. Raises besides UnreadableError for the image.
        """
        said: dict[str, Any] = {"verdict": verdict, "id": uuid4().hex, "landmark_id": landmark_id, "image_id": image_id}
        said["keep"] = keep if image is not None else None
        if answer is not None:
            said |= {"answered": answer.landmark_id or "", "confidence": answer.confidence}
        data = None if image is None else GivenImages([image], allow_private=False).read(0)
        asked = _Asked("POST", "/v1/feedback", body=lambda: _form(_texts(said), data))
        return self._understood(dict, self._ask(asked))

    def _answer(self, name: str, told: Any) -> Answer:
        if isinstance(told, UnreadableError):
            return unreadable_answer(name, str(told))
        return self._understood(lambda told: replace(Answer.from_json(told, self._kept), image=name), told)

    def _kept(self, image_id: str) -> "Kept":
        return partial(self.thumbnail, image_id)

    def _ask_each(
        self, path: str, images: Sequence["ImageLike"], words: Mapping[str, Any], allow_private: bool
    ) -> list[Any]:
        """What the server says of each image, or UnreadableError for one that cannot be read here, or is too large."""
        given, gate = GivenImages(images, allow_private), asyncio.Semaphore(N_AT_ONCE)

        async def ask(session: aiohttp.ClientSession, i: int) -> Any:
            async with gate:
                try:
                    data = await asyncio.to_thread(given.read, i)
                    told = await self._send(session, _Asked("POST", path, words, lambda: data))
                except UnreadableError as error:
                    return error
            return self._understood(lambda told: json.loads(told)[0], told)

        async def ask_all() -> list[Any]:
            async with self._session() as session:
                return await asyncio.gather(*(ask(session, i) for i in range(len(images))))

        return run_here(ask_all)

    def _ask(self, asked: "_Asked") -> Any:
        """The JSON of an answer."""
        return self._understood(json.loads, self._ask_bytes(asked))

    def _ask_bytes(self, asked: "_Asked") -> bytes | None:
        async def ask() -> bytes | None:
            async with self._session() as session:
                return await self._send(session, asked)

        return run_here(ask)

    async def _send(self, session: aiohttp.ClientSession, asked: "_Asked") -> bytes | None:
        """The body of an answer; None for what is not there where it may be missing. A busy server is asked again.

        Raises UnreadableError for an image that is more than the server takes.
        """
        now = asyncio.get_running_loop().time
        until = now() + self.timeout_s
        while True:
            try:
                async with asyncio.timeout_at(until):
                    status, headers, content = await self._try(session, asked)
            except aiohttp.ClientError as error:
                raise LmrError(f"{self.url} cannot be asked: {as_fetch_error(error)}; is lmr serve there?") from error
            except TimeoutError as error:
                raise LmrError(f"{self.url} did not answer within {self.timeout_s:g} s; try again later") from error
            if 200 <= status < 300:
                return content
            if asked.may_lack and status == NOT_FOUND:
                return None
            if status == TOO_LARGE and asked.body() is not None:
                raise UnreadableError(_detail(status, headers, content))
            wait_s = _wait_s(headers)
            if status not in LATER or now() + wait_s > until:
                raise LmrError(f"{self.url}: {_detail(status, headers, content)}")
            await asyncio.sleep(wait_s)

    async def _try(self, session: aiohttp.ClientSession, asked: "_Asked") -> tuple[int, Mapping[str, str], bytes]:
        url = URL(f"{self.url}{asked.path}", encoded=True).with_query(_texts(asked.words))
        sent: dict[str, Any] = {"data": asked.body(), "headers": self._headers, "allow_redirects": False}
        async with session.request(asked.method, url, **sent) as response:
            return response.status, response.headers, await response.read()

    def _session(self) -> aiohttp.ClientSession:
        rules = FetchRules(
            connections=N_AT_ONCE,
            per_host=N_AT_ONCE,
            idle_s=self.timeout_s,
            allow_private=True,  # the server is whom the user names
            user_agent=f"lmr/{program_version()}",
        )
        return open_session(rules)

    def _understood(self, read: Callable[[Any], T], told: Any) -> T:
        """What is read of JSON. Raises LmrError where it is not as this program tells it."""
        try:
            return read(told)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise LmrError(
                f"{self.url} does not answer as lmr serve of this version does; use the same on both sides"
            ) from error


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request. body: makes what is sent, for each try anew. may_lack: 404 is an answer too."""

    method: str
    path: str
    words: Mapping[str, Any] = field(default_factory=dict)
    body: Callable[[], Any] = lambda: None
    may_lack: bool = False


def _texts(words: Mapping[str, Any]) -> dict[str, str]:
    """Words as a URL has them; without those that are None."""
    given = {name: value for name, value in words.items() if value is not None}
    return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in given.items()}


def _form(said: Mapping[str, str], image: bytes | None) -> aiohttp.FormData:
    form = aiohttp.FormData(said, default_to_multipart=True)
    if image is not None:
        form.add_field("image", image, filename="image", content_type="application/octet-stream")
    return form


def _listed(told: Mapping[str, Any]) -> LandmarkList:
    return LandmarkList(tuple(Listed(**one) for one in told["items"]), told["n_found"])


def _wait_s(headers: Mapping[str, str]) -> float:
    """Seconds after which a server asks to be asked again."""
    try:
        return max(0.0, float(headers.get("Retry-After", AGAIN_S)))
    except ValueError:
        return AGAIN_S


def _detail(status: int, headers: Mapping[str, str], content: bytes) -> str:
    """The line of a problem; for what comes from another program its status."""
    try:
        return str(json.loads(content)["detail"])
    except (KeyError, TypeError, ValueError):
        if "Location" in headers:
            return f"it has moved to {headers['Location']}; give that URL"
        return f"it answered {status}; is lmr serve there?"
