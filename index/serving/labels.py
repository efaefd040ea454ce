"""Feedback turned into labels: the manifests, decisions and tables that the other commands read."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY, asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from index.folder.config import INDEX_FOLDER
from retrieval.data.request import TableJob
from retrieval.errors import LmrError
from retrieval.files.digest import sha256_json
from retrieval.files.lock import output_locks
from retrieval.jobs import WritingJob, option

if TYPE_CHECKING:
    from index.clean.decisions import Decisions
    from index.folder.folder import IndexFolder
    from index.serving.feedback import Feedback
    from retrieval.data.manifest import Manifest

NEW, HELD_OUT, RELABEL, REMOVE, LEFT_OUT = "images.csv", "held-out.csv", "labels.csv", "remove.csv", "left-out.csv"
DECISIONS, TRAIN = "decisions.csv", "train.csv"
_REMEDY = "give `overwrite` or another `output`"
_ID_DIGITS = 16  # of the sha256 of an image, in its image_id


@dataclass(frozen=True)
class FeedbackJob(TableJob, WritingJob):
    """Turn the feedback on an index into labels."""

    _: KW_ONLY
    index: Path = option(INDEX_FOLDER, help="Index folder that the feedback is on.")
    output: Path = option(Path("feedback"), help="Folder to write into.")
    feedback_folder: Path | None = option(
        None, default_text="INDEX.feedback, beside the index", help="Folder of the table of feedback."
    )
    manifest: Path | None = option(
        None, help="Manifest that the index was built from; writes what lmr clean `review` and lmr train read."
    )
    queries: Path | None = option(
        None, help="Manifest of the queries that calibrated the index; images held out are added to them."
    )
    images: Path | None = option(
        None, default_text="images/ beside each manifest", help="Images of `manifest` and `queries`."
    )
    held_out: float = option(0.25, low=0, high=1, help="Share of the images of known landmarks that is held out.")
    at_least: int = option(1, low=1, help="Verdicts that must say the same of an image.")


@dataclass(frozen=True, slots=True)
class FeedbackReport:
    """What the feedback came to.

    n_verdicts: lines of the table, on n_images images. n_confirmed: labels that are right; n_relabelled, n_removed:
    rows of the index that get another or leave; n_decided: images of the manifest that do. n_new: images to add,
    n_held_out: to calibrate with, of which n_non_landmarks show no landmark. left_out: images that nothing follows for,
    by the reason.
    """

    index: Path
    output: Path
    state: Literal["written", "unchanged"]
    n_verdicts: int
    n_images: int
    n_confirmed: int
    n_relabelled: int
    n_removed: int
    n_decided: int
    n_new: int
    n_held_out: int
    n_non_landmarks: int
    left_out: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        """As one JSON object."""
        return {**asdict(self), "index": str(self.index), "output": str(self.output)}


@dataclass(frozen=True, slots=True)
class _Image:
    """An image that verdicts are on.

    image_id: of the row, or the one that it would get. place: where it was kept, None = it was not. before: its label
    in the index, or else in the manifest, '' = none; None = it is in neither.
    """

    image_id: str
    said: "tuple[Feedback, ...]"
    place: Path | None
    before: str | None


@dataclass(slots=True)
class _Labels:
    """What follows, by image_id.

    labels: of images of the index or the manifest, as they were or others, '' = they leave. new, held_out: label and
    place of further ones. evidence: in words. left_out: the reason of those that nothing follows for.
    """

    labels: dict[str, str] = field(default_factory=dict)
    new: dict[str, tuple[str, Path]] = field(default_factory=dict)
    held_out: dict[str, tuple[str, Path]] = field(default_factory=dict)
    evidence: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def turn_into_labels(job: FeedbackJob) -> FeedbackReport:
    """Settles the verdicts on each image by majority, and writes what follows from them.

    Images that show a landmark come into the index; of those whose landmark it has a share is held out, and so are all
    that show none. Raises LmrError: no feedback, damage, something else in the place of the output.
    """
    from index.folder.folder import open_folder
    from index.serving.feedback import feedback_folder, read_feedback

    with output_locks(job.output, wait=job.wait, progress=job.progress):
        place = job.feedback_folder or feedback_folder(job.index)
        said = read_feedback(place)
        folder = open_folder(job.index, device="cpu", calibrated=False, on_server=True)
        manifest, queries = _read(job.manifest, "manifest", job), _read(job.queries, "queries", job)
        inputs = {
            "feedback": sha256_json([one.to_line() for one in said]),
            "index": folder.info.inputs_digest,
            "manifest": None if manifest is None else manifest.digest,
            "queries": None if queries is None else queries.digest,
            "held_out": job.held_out,
            "at_least": job.at_least,
        }
        rows = _rows(said, folder)
        images = _images(said, folder, rows, manifest, place)
        found = _Labels()
        for image in images:
            _settle(image, set(folder.rows.landmarks), found, job)
        before = {image.image_id: image.before for image in images}
        changed = {name: label for name, label in found.labels.items() if name in rows and label != before[name]}
        decisions = None if manifest is None else _decide(manifest, found)
        files = _files(found, changed, queries)
        if manifest is not None and decisions is not None:
            files |= _files_of_manifest(found, manifest, decisions)
        state = _write(job, files, inputs)
    return FeedbackReport(
        job.index,
        job.output,
        state,
        n_verdicts=len(said),
        n_images=len(images),
        n_confirmed=sum(label == before[name] for name, label in found.labels.items()),
        n_relabelled=sum(map(bool, changed.values())),
        n_removed=[*changed.values()].count(""),
        n_decided=0 if decisions is None else int((decisions.decision != "keep").sum()),
        n_new=len(found.new),
        n_held_out=len(found.held_out),
        n_non_landmarks=sum(not label for label, _ in found.held_out.values()),
        left_out=dict(Counter(found.left_out.values())),
    )


def _read(path: Path | None, word: str, job: FeedbackJob) -> "Manifest | None":
    """A labelled manifest with the places of its images."""
    from retrieval.data.locate import locate_images
    from retrieval.data.overview import load_manifest

    if path is None:
        return None
    names = job.column_names if path == job.manifest else job.column_names_beside
    manifest = load_manifest(path, job.progress, names)
    if not manifest.has_labels:
        raise LmrError(f"`{word}` {path} has no landmark_id column; give one with labels")
    located = locate_images(manifest, job.images, job.progress)
    if located.folder is None:
        raise LmrError(f"`{word}` {path}: none of its images was found; give `images`")
    return located.manifest


def _name_of(sha256: str) -> str:
    """The image_id that an image which was sent gets."""
    return f"feedback-{sha256[:_ID_DIGITS]}"


def _rows(said: "Iterable[Feedback]", folder: "IndexFolder") -> dict[str, int]:
    """The rows of the index that verdicts may be on, by image_id."""
    from index.update.change import rows_named

    names = {name for one in said for name in (one.image_id, one.sha256 and _name_of(one.sha256)) if name}
    return rows_named(folder.rows.image_id, sorted(names))


def _images(
    said: "Iterable[Feedback]", folder: "IndexFolder", rows: Mapping[str, int], manifest: "Manifest | None", place: Path
) -> list[_Image]:
    """The images that verdicts are on, in the order of the first one on each."""
    from index.clean.decisions import first_labels
    from index.serving.feedback import FeedbackFolder

    labels = {} if manifest is None else dict(zip(manifest.image_id, first_labels(manifest), strict=True))
    labels |= {image_id: folder.rows.landmarks[folder.rows.landmark[row]] for image_id, row in rows.items()}
    on: dict[str, list[Feedback]] = {}
    kept = FeedbackFolder(place).images
    for one in said:
        name = _name_of(one.sha256) if one.sha256 else one.image_id
        on.setdefault(one.image_id if one.image_id in labels else name, []).append(one)
    images = []
    for image_id, verdicts in on.items():
        sent = (kept.path_of(one.sha256) for one in verdicts if one.sha256)
        there = next((path for path in sent if path.is_file()), None)
        images.append(_Image(image_id, tuple(verdicts), there, labels.get(image_id)))
    return images


def _settle(image: _Image, known: set[str], found: _Labels, job: FeedbackJob) -> None:
    """Adds what follows from the verdicts on one image. known: the landmarks of the index."""
    label, evidence, problem = _majority(image, job.at_least)
    if problem or label is None:
        found.left_out[image.image_id] = problem
        return
    found.evidence[image.image_id] = evidence
    if image.before is not None:
        found.labels[image.image_id] = label
    elif image.place is None:
        found.left_out[image.image_id] = "the image was not kept"
    elif not label or (label in known and _share(image.image_id) < job.held_out):
        found.held_out[image.image_id] = label, image.place
    else:
        found.new[image.image_id] = label, image.place


def _majority(image: _Image, at_least: int) -> tuple[str | None, str, str]:
    """What more verdicts say an image shows than say otherwise, '' = no landmark; in words; why there is no such thing.

    A label that more say is wrong than right, of an image of the index or the manifest, leaves with its image.
    """
    claims = Counter(_claim(one) for one in image.said if one.verdict != "wrong")
    against = Counter(one.answered for one in image.said if one.verdict == "wrong")
    n = len(image.said)
    for label, n_for in claims.items():
        if n_for > claims.total() - n_for + against[label]:
            evidence = f"feedback: {n_for} of {n} say {label or 'no landmark'}"
            return label, evidence, "" if n_for >= at_least else "too few verdicts say the same"
    if image.before is None:
        return None, "", "the verdicts disagree" if claims else "wrong, and nobody says what it shows"
    n_against = against[image.before] + claims.total() - claims[image.before]
    if n_against > claims[image.before]:
        evidence = f"feedback: {n_against} of {n} say that it is not {image.before or 'without a landmark'}"
        return "", evidence, "" if n_against >= at_least else "too few verdicts say the same"
    return None, "", "the verdicts disagree"


def _claim(said: "Feedback") -> str:
    """The landmark that a verdict says is shown; '' = none."""
    return {"right": said.answered, "other": said.landmark_id}.get(said.verdict, "")


def _share(image_id: str) -> float:
    """A number in [0, 1) that an image keeps, whatever further ones come."""
    return int(sha256_json(image_id)[:8], 16) / 2**32


def _files(found: _Labels, changed: Mapping[str, str], queries: "Manifest | None") -> dict[str, Iterable[str]]:
    """The texts of the files that are always written, by their names. changed: labels of rows of the index."""
    from retrieval.data.csv_cells import csv_line
    from retrieval.data.manifest_lines import csv_lines, manifest_lines
    from retrieval.texts import Texts

    relabelled = {name: label for name, label in changed.items() if label}
    return {
        NEW: manifest_lines(_manifest(found.new)),
        HELD_OUT: manifest_lines(_joined(queries, found.held_out)),
        RELABEL: csv_lines([("image_id", Texts.of(relabelled)), ("landmark_id", Texts.of(relabelled.values()))]),
        REMOVE: csv_lines([("image_id", Texts.of(name for name, label in changed.items() if not label))]),
        LEFT_OUT: map(csv_line, [("image_id", "reason"), *found.left_out.items()]),
    }


def _files_of_manifest(found: _Labels, manifest: "Manifest", decisions: "Decisions") -> dict[str, Iterable[str]]:
    """The texts of the files that follow from a manifest."""
    from index.clean.decisions import apply_decisions, decision_lines
    from retrieval.data.manifest_lines import manifest_lines

    trained = _joined(apply_decisions(manifest, decisions), found.new)
    return {DECISIONS: decision_lines(decisions), TRAIN: manifest_lines(trained)}


def _manifest(images: Mapping[str, tuple[str, Path]]) -> "Manifest":
    """A manifest of images by their image_id, each with its label and place."""
    import numpy as np

    from retrieval.data.manifest import Manifest
    from retrieval.texts import Texts

    landmarks = sorted({label for label, _ in images.values()} - {""})
    code = {"": -1} | {label: i for i, label in enumerate(landmarks)}
    return Manifest(
        source="feedback",
        image_id=Texts.of(images),
        landmark=np.array([code[label] for label, _ in images.values()], dtype=np.int32),
        landmarks=tuple(landmarks),
        path=Texts.of(str(path) for _, path in images.values()),
    )


def _joined(manifest: "Manifest | None", images: Mapping[str, tuple[str, Path]]) -> "Manifest":
    """A manifest, if there is one, and further images that it does not have."""
    import numpy as np

    from retrieval.texts import Texts

    if manifest is None:
        return _manifest(images)
    there = set(images) & set(manifest.image_id)
    more = _manifest({name: image for name, image in images.items() if name not in there})
    landmarks = sorted({*manifest.landmarks, *more.landmarks})
    code = {label: i for i, label in enumerate(landmarks)}
    of_old, of_new = ([*(code[name] for name in part.landmarks), -1] for part in (manifest, more))
    old, new = np.array(of_old, dtype=np.int32), np.array(of_new, dtype=np.int32)
    blank = np.full(len(more), "", dtype=object)
    paths = Texts.of(np.full(len(manifest), "", dtype=object)) if manifest.path is None else manifest.path
    return replace(
        manifest,
        image_id=Texts.joined([manifest.image_id, more.image_id]),
        landmark=np.concatenate([old[manifest.landmark], new[more.landmark]]),
        landmarks=tuple(landmarks),
        more_landmarks={row: tuple(of_old[c] for c in codes) for row, codes in manifest.more_landmarks.items()},
        path=Texts.joined([paths, more.path or Texts.of(())]),
        url=None if manifest.url is None else Texts.joined([manifest.url, Texts.of(blank)]),
        kind=None if manifest.kind is None else np.concatenate([manifest.kind, blank + "feedback"]),
        usage=None if manifest.usage is None else np.concatenate([manifest.usage, blank + "Public"]),
    )


def _decide(manifest: "Manifest", found: _Labels) -> "Decisions":
    """The decisions on the images of a manifest, as lmr clean reads them."""
    import numpy as np

    from index.clean.decisions import Decisions, first_labels

    n, before = len(manifest), first_labels(manifest)
    decision, suggested, reason, evidence = (np.full(n, text, dtype=object) for text in ("keep", "", "", ""))
    for row, image_id in enumerate(manifest.image_id):
        label = found.labels.get(image_id)
        if label is None or label == before[row]:
            continue
        decision[row], suggested[row] = ("relabel", label) if label else ("drop", "")
        reason[row] = "mislabelled" if label else "non-landmark"
        evidence[row] = found.evidence[image_id]
    nan = np.full(n, np.nan)
    blank = np.full(n, "", dtype=object)
    return Decisions(manifest.image_id[:], before, decision, suggested, reason, evidence, nan, nan, blank)


def _write(
    job: FeedbackJob, files: Mapping[str, Iterable[str]], inputs: Mapping[str, Any]
) -> Literal["written", "unchanged"]:
    """Writes the files that are not there yet. Raises LmrError where others are in their places."""
    from retrieval.files.atomic import write_error
    from retrieval.files.made_of import is_made_of, record_path, write_with_record

    there = {name for name in files if not job.overwrite and is_made_of(job.output / name, inputs, _REMEDY)}
    if len(there) == len(files):
        return "unchanged"
    try:
        job.output.mkdir(parents=True, exist_ok=True)
        for name in (DECISIONS, TRAIN):  # of another run, with a manifest
            if name not in files and record_path(job.output / name).exists():
                (job.output / name).unlink(missing_ok=True)
                record_path(job.output / name).unlink()
    except OSError as error:
        raise write_error(job.output, error) from error
    for name, text in files.items():
        if name not in there:
            write_with_record(job.output / name, text, inputs)
    return "written"
