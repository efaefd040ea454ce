"""An answer in a line of text, and as a small page for notebooks."""

import base64
import io
from html import escape
from typing import TYPE_CHECKING

from retrieval.errors import UnreadableError
from retrieval.names import shown_name

if TYPE_CHECKING:
    from index.thumbnails import Kept
    from lmr import Answer

NO_LANDMARK = "no known landmark"
N_NEIGHBOURS = 5  # shown in a notebook
THUMBNAIL_PX, THUMBNAIL_QUALITY = 140, 75

_CELL = '<td style="text-align:left;vertical-align:top;padding:4px 8px">{}<br><small>{}</small></td>'


def headline(answer: "Answer") -> str:
    """The answer in a line: the landmark and how sure it is, or what was nearest and how far it was from enough."""
    best = answer.best
    if answer.unreadable is not None or best is None:
        return answer.reason if answer.unreadable is not None else f"{NO_LANDMARK} ({answer.reason})"
    name = shown_name(best.landmark_id, best.name)
    sure = certainty(best.confidence, best.score)
    if answer.landmark_id is not None:
        return f"{name}, {sure}"
    return f"{NO_LANDMARK}; nearest was {name}, {sure}, below {answer.threshold:.3f}"


def certainty(confidence: float | None, score: float) -> str:
    """A confidence, or the score where the index is not calibrated."""
    return f"score {score:.3f}" if confidence is None else f"confidence {confidence:.3f}"


def to_html(answer: "Answer") -> str:
    """The picture, the answer and the neighbours that voted, everything escaped, pictures inside."""
    cells = [_CELL.format(_picture(answer.image), f"<b>{escape(headline(answer))}</b><br>{escape(answer.image)}")]
    for near in answer.neighbours[:N_NEIGHBOURS]:
        name = shown_name(near.landmark_id, near.name)
        cells.append(
            _CELL.format(_picture(near.path, near.kept), f"{escape(name)} {near.score:.3f}<br>{escape(near.image_id)}")
        )
    return f"<table><tr>{''.join(cells)}</tr></table>"


def _picture(path: str, kept: "Kept | None" = None) -> str:
    """An <img> of the picture at a path, or of what the index keeps of it; '' where there is neither."""
    from index.thumbnails import read_shown
    from retrieval.images.decode import decode
    from retrieval.images.sizing import contain

    buffer = io.BytesIO()
    try:
        contain(decode(read_shown(path, kept), THUMBNAIL_PX), THUMBNAIL_PX).save(
            buffer, "JPEG", quality=THUMBNAIL_QUALITY
        )
    except UnreadableError:
        return ""
    return f'<img src="data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode("ascii")}">'
