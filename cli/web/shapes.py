"""JSON that the API takes and gives, as its OpenAPI document describes it."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Side = Annotated[float, Field(ge=0, le=1)]
Box = tuple[Side, Side, Side, Side]
"""Left, top, right and bottom of a part, in [0, 1] of the upright image."""


class Asked(BaseModel):
    """Base of what a client may say: words that there are not are refused."""

    model_config = ConfigDict(extra="forbid")


def schema_of(kind: type[BaseModel]) -> dict[str, Any]:
    """The schema of a body for the OpenAPI document, which moves what it is made of (`$defs`) to its components."""
    return kind.model_json_schema(ref_template="#/components/schemas/{model}")


class SentImage(Asked):
    """An image in JSON: its bytes as base64, or its URL."""

    data: str | None = Field(default=None, description="The encoded image as base64; a data: URL does too.")
    url: str | None = Field(default=None, description="Where the image is, if the server fetches URLs (--allow-urls).")
    name: str = Field(default="image", description="What its answer is called.")
    box: Box | None = Field(
        default=None, description="Left, top, right, bottom of a part, in [0, 1] of the upright image."
    )


class SentImages(Asked):
    """Images in JSON."""

    images: list[SentImage] = Field(
        min_length=1, description="One image or several; those of an answer keep their order."
    )


class QueryWords(Asked):
    """What a query may say in its URL."""

    threshold: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Confidence below which there is no known landmark; else the calibrated one.",
    )
    top: int = Field(default=5, ge=1, le=1000, description="Landmarks listed for an image.")
    verify: bool | None = Field(
        default=None, description="Compare neighbours by local features; else as the server does."
    )


class SearchWords(Asked):
    """What a search may say in its URL."""

    image_id: str | None = Field(
        default=None, description="An image of the index to search by, instead of one that is sent."
    )
    box: str | None = Field(
        default=None,
        description="Part to search by: left,top,right,bottom in [0, 1] of the upright image.",
        examples=["0,0,1,1"],
    )
    landmark: str | None = Field(default=None, description="Only images of the landmark of this landmark_id.")
    first: int = Field(default=0, ge=0, le=10_000, description="Neighbours passed over: those of the pages before.")
    n: int = Field(default=20, ge=1, le=1000, description="Neighbours of a page.")
    sort: Literal["similarity", "megapixels", "pixels_per_inch"] = Field(
        default="similarity", description="Best first by this."
    )
    fold: bool = Field(default=True, description="List near-duplicates under the best of them.")
    sure: bool = Field(default=False, description="Only neighbours whose landmark is surely that of the image.")


class ListWords(Asked):
    """What a list of landmarks may say in its URL."""

    search: str = Field(default="", max_length=200, description="Part of a name or landmark_id.")
    first: int = Field(default=0, ge=0, le=10_000_000, description="Landmarks passed over.")
    n: int = Field(default=50, ge=1, le=1000, description="Landmarks of a page.")


class ImageWords(Asked):
    """What the request of an image may say in its URL."""

    size: Literal["thumbnail", "original"] = Field(
        default="thumbnail", description="The original only with --allow-originals."
    )


class NoWords(Asked):
    """Of a request that may say nothing in its URL."""


class SentFeedback(Asked):
    """A verdict on the answer to an image, or on the label of an image of the index."""

    verdict: Literal["right", "wrong", "other", "none"] = Field(
        description="right, wrong, other: it shows the landmark of landmark_id; none: it shows no landmark."
    )
    landmark_id: str = Field("", description="With other: a landmark of the index by its id or name, or a new one.")
    answered: str | None = Field(None, description="The landmark_id that was answered, null or blank for none.")
    confidence: float | None = Field(None, ge=0, le=1, description="The confidence of the answer.")
    image_id: str = Field("", description="An image of the index, where the verdict is on its label.")
    sha256: str = Field("", description="Of the image, where it is not sent: 64 small hexadecimal digits.")
    keep: bool = Field(False, description="The image that is sent may be kept, where the server keeps any.")
    id: str = Field("", description="One for each verdict, so that it counts once however often it is sent.")


class FeedbackShape(BaseModel):
    """A verdict as it was recorded.

    state: unchanged where it was there already. kept: whether the image is. note: why not, where it might be.
    """

    id: str
    state: Literal["recorded", "unchanged"]
    verdict: Literal["right", "wrong", "other", "none"]
    landmark_id: str | None
    answered: str | None
    image_id: str | None
    sha256: str | None
    kept: bool
    note: str


class ChangeShape(BaseModel):
    """A change of the index.

    state: unchanged where all was so already. there: images that the index had already, as they were sent. images: of
    the index now. served: whether this server answers by it already; others on the same index follow in a moment.
    """

    state: Literal["changed", "unchanged"]
    added: int
    removed: int
    there: int
    images: int
    served: bool
    warnings: list[str]


class LandmarkScoreShape(BaseModel):
    """A landmark that got votes; without calibration its confidence is null."""

    landmark_id: str
    name: str
    confidence: float | None
    score: float


class NeighbourShape(BaseModel):
    """A labelled image that is near. score: cosine. inliers: null where it was not compared.

    columns: what the own columns of the index's manifests say of it.
    """

    image_id: str
    landmark_id: str
    score: float
    path: str
    name: str
    inliers: int | None
    columns: dict[str, str]


class AnswerShape(BaseModel):
    """The answer to an image, as `lmr query --json` prints it; landmark_id is null for no known landmark."""

    image: str
    landmark_id: str | None
    name: str
    address: str
    confidence: float | None
    threshold: float | None
    landmarks: list[LandmarkScoreShape]
    neighbours: list[NeighbourShape]
    verified: bool | None
    in_index: str | None
    unreadable: str | None
    reason: str


class DescriptorShape(BaseModel):
    """The unit descriptor of an image, before the whitening of the index; null where the image cannot be read."""

    image: str
    descriptor: list[float] | None
    unreadable: str | None


class FoldedShape(BaseModel):
    """An image that is nearly the same as a neighbour."""

    image_id: str
    landmark_id: str
    score: float


class SimilarShape(BaseModel):
    """A neighbour. rank: by similarity, from 1, copies counted. score: cosine. Sizes: null where the file is gone.

    columns: what the own columns of the index's manifests say of it.
    """

    rank: int
    image_id: str
    landmark_id: str
    name: str
    score: float
    confidence: float | None
    votes: bool
    path: str
    width: int | None
    height: int | None
    megapixels: float | None
    pixels_per_inch: float | None
    dpi: float | None
    columns: dict[str, str]
    folded: list[FoldedShape]


class PageShape(BaseModel):
    """A page of neighbours. n_rows_looked_at: images of the index that are in order up to here."""

    items: list[SimilarShape]
    n_rows_looked_at: int
    has_more: bool


class ListedShape(BaseModel):
    """A landmark of a list. image_id: of its most typical image."""

    landmark_id: str
    name: str
    address: str
    n_images: int
    image_id: str


class LandmarkListShape(BaseModel):
    """Some landmarks of those that were found. n_found: all of them."""

    items: list[ListedShape]
    n_found: int


class NearShape(BaseModel):
    """An image beside another one."""

    image_id: str
    landmark_id: str
    name: str
    path: str
    score: float


class OwnShape(BaseModel):
    """An image of a landmark. similarity: mean cosine with its other images."""

    image_id: str
    path: str
    similarity: float
    nearest: NearShape | None


class ConfusedShape(BaseModel):
    """A landmark that another one is confused with, and how often in either direction."""

    landmark_id: str
    name: str
    n_images: int
    n_taken: int
    n_given: int
    n_nearest: int


class ClosestShape(BaseModel):
    """The two most similar images of two landmarks."""

    own: NearShape
    other: NearShape
    similarity: float


class LandmarkShape(BaseModel):
    """What there is to say of a landmark, as `lmr explain --json` prints it."""

    landmark_id: str
    name: str
    n_images: int
    similarity: float | None
    typical: list[OwnShape]
    deviant: list[OwnShape]
    n_asked: int
    n_right: int | None
    confused: list[ConfusedShape]
    closest: ClosestShape | None
    notes: list[str]


class StateShape(BaseModel):
    """The state of the server."""

    status: Literal["ok", "ready"]


class ProblemShape(BaseModel):
    """An error (RFC 9457). detail: one line that says what, where, what was received and what to do."""

    type: str
    title: str
    status: int
    detail: str


_IMAGE = {"type": "string", "format": "binary"}
_TEXTS = {"type": "array", "items": {"type": "string"}}
_FORM = {
    "type": "object",
    "properties": {
        "image": {"type": "array", "items": _IMAGE, "description": "Files; a field may have any name."},
        "url": {**_TEXTS, "description": "Where further images are, if the server fetches URLs."},
        "box": {**_TEXTS, "description": "left,top,right,bottom of a part of each image; none or one for each."},
    },
}
_EXAMPLE = {
    "images": [
        {
            "name": "dot.png",
            "data": "iVBORw0KGgoAAAANSUhEUgAAACAAAAAgCAIAAAD8GO2jAAAALUlEQVR4nGM8UaHBQEvARFPTRy0YtWDUglELRi0YtWDUglELRi"
            "0YtWDUAioCAJv+Aai8/qzNAAAAAElFTkSuQmCC",
        }
    ]
}
BODY: dict[str, Any] = {
    "requestBody": {
        "content": {
            "application/json": {"schema": schema_of(SentImages), "example": _EXAMPLE},
            "multipart/form-data": {"schema": _FORM},
            "application/octet-stream": {"schema": _IMAGE},
            "image/jpeg": {"schema": _IMAGE},
        },
    }
}
"""The bodies that hold images, for the OpenAPI document."""
