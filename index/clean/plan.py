"""All checks of a training set, in their order, to one decision an image: the first reason that is found counts."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from index.clean.config import CleaningRule
from index.clean.decisions import Decisions, first_labels
from index.clean.inputs import CleaningInputs
from index.clean.labels import Consistency, judge_labels
from index.clean.neighbours import Block
from retrieval.arrays import BoolArray, IntArray, LongArray, Matrix, ObjArray
from retrieval.data.manifest import Manifest
from retrieval.data.near_duplicates import HashArray, components, near_pairs
from retrieval.images.quality import ImageFacts
from retrieval.images.screen import pixels_per_inch
from retrieval.words import counted

_MOST_ODDS = 1e6  # above, a number says no more

Verify = Callable[[LongArray], LongArray]  # rows still kept -> how many neighbours of each one show the same place
# Plain and nearly plain images have equal hashes whatever they show; their descriptors then have to agree too.
HASH_SIMILARITY = 0.5
_PAIRS_AT_ONCE = 4096  # whose descriptors are held at a time


@dataclass(slots=True)
class _Findings:
    """The first reason of each row, with its evidence."""

    reason: ObjArray
    evidence: ObjArray
    relabelled: BoolArray = field(init=False)

    def __post_init__(self) -> None:
        self.relabelled = np.zeros(len(self.reason), dtype=np.bool_)

    def add(self, row: int, reason: str, evidence: str) -> None:
        """Notes why an image is left out, unless a reason is noted already."""
        if not self.reason[row]:
            self.reason[row], self.evidence[row] = reason, evidence

    @property
    def kept(self) -> BoolArray:
        """(n,) True where an image has no reason to be left out."""
        return np.asarray(self.reason == "", dtype=np.bool_)


def decide(inputs: CleaningInputs, rule: CleaningRule, around: Block | None, verify: Verify | None = None) -> Decisions:
    """Decides on each image.

    around: of `inputs.judged`, None where there are fewer than two. verify: called with the rows that are left.
    """
    n = len(inputs.manifest)
    findings = _Findings(_blank(n), _blank(n))
    labels = first_labels(inputs.manifest)
    judged = inputs.judged
    consistency = None if around is None else judge_labels(around.support, inputs.codes)
    suggested = _suggestions(inputs.manifest, consistency, judged)
    _find_unreadable(findings, inputs)
    if "quality" in rule.checks:
        _find_faults(findings, inputs, rule)
    if "duplicates" in rule.checks:
        _find_copies(findings, inputs, rule, labels, around=around, consistency=consistency)
    if around is not None and consistency is not None:
        if "background" in rule.checks:
            _find_background(findings, around, judged, rule)
        if "labels" in rule.checks:
            _find_mislabelled(findings, consistency, judged, suggested, rule)
        if "components" in rule.checks:
            _find_apart(findings, inputs.manifest, around, judged, rule)
    if verify is not None:
        _find_unverified(findings, verify, judged, rule)
    final = np.where(findings.relabelled, suggested, labels)
    _find_few(findings, final, rule)
    return _table(inputs, findings, labels, suggested, around=around, consistency=consistency)


def _find_unreadable(findings: _Findings, inputs: CleaningInputs) -> None:
    for row, reason in inputs.unreadable.items():
        findings.add(row, "unreadable", reason)


def _find_faults(findings: _Findings, inputs: CleaningInputs, rule: CleaningRule) -> None:
    for row, facts in enumerate(inputs.facts.rows if inputs.facts else ()):
        if isinstance(facts, ImageFacts):
            if fault := image_fault(facts, rule):
                findings.add(row, "quality", fault)
        else:
            findings.add(row, "unreadable", facts)


def _find_copies(
    findings: _Findings,
    inputs: CleaningInputs,
    rule: CleaningRule,
    labels: ObjArray,
    *,
    around: Block | None,
    consistency: Consistency | None,
) -> None:
    """Finds copies; those kept are the labelled ones, then those whose label is not wrong, is likely, the larger."""
    judged, n = inputs.judged, len(labels)
    pairs = [np.zeros((0, 2), dtype=np.int64)]
    n_pixels, likely, wrong = np.zeros(n), np.zeros(n), np.zeros(n)
    if around is not None and consistency is not None:
        pairs.append(judged[around.copies])
        likely[judged] = consistency.own > 0.5
        wrong[judged] = consistency.log_odds >= np.log(rule.odds)  # it would be left out after its copies
    if inputs.facts is not None:
        readable = inputs.facts.readable
        pairs.append(readable[equal_files(inputs.facts.column("sha256"))])
        pairs.append(readable[equal_looks(inputs.facts.hashes, rule.near_bits, inputs.vectors.select(readable))])
        sizes = inputs.facts.column("width") * inputs.facts.column("height")
        n_pixels[readable] = sizes.astype(np.float64)
    both = np.concatenate(pairs)
    both = both[findings.kept[both].all(axis=1)]
    place = np.empty(n, dtype=np.int64)
    place[np.lexsort((np.arange(n), -n_pixels, -likely, wrong, labels == ""))] = np.arange(n)
    instead = copies_to_leave_out(both, place)
    for row in np.flatnonzero(instead >= 0):
        first = instead[row]
        other = f", which is labelled {labels[first] or 'as no landmark'}" if labels[first] != labels[row] else ""
        findings.add(int(row), "duplicate", f"copy of {inputs.manifest.image_id[first]}{other}")


def _find_background(findings: _Findings, around: Block, judged: LongArray, rule: CleaningRule) -> None:
    own, background = around.own_similarity, around.background_similarity
    with np.errstate(invalid="ignore"):  # NaN, where there is nothing to compare with, is never above
        found = (background - own > rule.background_margin) & ~(around.other_similarity > background)
    for i in np.flatnonzero(found):
        text = f"similarity to the background {background[i]:.2f}, to its landmark {own[i]:.2f}"
        findings.add(int(judged[i]), "non-landmark", text)


def _find_mislabelled(
    findings: _Findings, consistency: Consistency, judged: LongArray, suggested: ObjArray, rule: CleaningRule
) -> None:
    kept = findings.kept
    for i in np.flatnonzero(consistency.log_odds >= np.log(rule.odds)):
        row = int(judged[i])
        odds = float(np.exp(min(consistency.log_odds[i], np.log(_MOST_ODDS))))
        times = "more than a million times" if odds >= _MOST_ODDS else f"{odds:.3g} times"
        findings.add(row, "mislabelled", f"{suggested[row]} is {times} as probable")
        findings.relabelled[row] = kept[row] and rule.relabel and consistency.confident[i]


def _find_apart(findings: _Findings, manifest: Manifest, around: Block, judged: LongArray, rule: CleaningRule) -> None:
    kept = findings.kept[judged]
    landmark = np.where(kept, manifest.landmark[judged], -1).astype(np.int32)
    joined = around.joined[kept[around.joined].all(axis=1)]
    outside, size = outside_largest(joined, landmark, rule.component_share)
    counts = np.bincount(landmark[kept], minlength=1)
    for i in np.flatnonzero(outside):
        text = f"hangs together with {size[i] - 1} of the {counts[landmark[i]] - 1} other pictures of its landmark"
        findings.add(int(judged[i]), "apart", text)


def _find_unverified(findings: _Findings, verify: Verify, judged: LongArray, rule: CleaningRule) -> None:
    rows = judged[findings.kept[judged]]
    for row, n_same in zip(rows.tolist(), verify(rows).tolist(), strict=True):
        if n_same < rule.min_verified:
            text = (
                f"{counted(n_same, 'neighbour')} of its landmark with {rule.min_inliers} inliers, "
                f"{rule.min_verified} are asked"
            )
            findings.add(row, "unverified", text)


def _find_few(findings: _Findings, labels: ObjArray, rule: CleaningRule) -> None:
    """labels: (n,) as they will be."""
    left = findings.kept | findings.relabelled
    names, counts = np.unique(labels[left & (labels != "")].astype(str), return_counts=True)
    few = {str(name): int(count) for name, count in zip(names, counts, strict=True) if count < rule.min_per_landmark}
    for row in np.flatnonzero(left & np.isin(labels.astype(str), list(few))):
        findings.relabelled[row] = False
        findings.reason[row] = "few"
        findings.evidence[row] = f"{counted(int(few[labels[row]]), 'picture')} left, {rule.min_per_landmark} are asked"


def _table(
    inputs: CleaningInputs,
    findings: _Findings,
    labels: ObjArray,
    suggested: ObjArray,
    *,
    around: Block | None,
    consistency: Consistency | None,
) -> Decisions:
    n, judged = len(inputs.manifest), inputs.judged
    decision = np.where(findings.kept, "keep", np.where(findings.relabelled, "relabel", "drop")).astype(object)
    probability, log_odds = np.full(n, np.nan), np.full(n, np.nan)
    neighbours = _blank(n)
    if around is not None and consistency is not None:
        probability[judged], log_odds[judged] = consistency.own, consistency.log_odds
        for i, near in enumerate(around.nearest):
            neighbours[judged[i]] = "|".join(inputs.manifest.image_id[judged[near[near >= 0]]])
    columns: dict[str, Any] = {"label_probability": probability, "log_odds": log_odds, "neighbours": neighbours}
    return Decisions(
        image_id=inputs.manifest.image_id[:],
        landmark=labels,
        decision=decision,
        suggested=suggested,
        reason=findings.reason,
        evidence=findings.evidence,
        **columns,
    )


def _suggestions(manifest: Manifest, consistency: Consistency | None, judged: LongArray) -> ObjArray:
    """(n,) landmark_id that is more probable than the label, '' = none."""
    suggested = _blank(len(manifest))
    if consistency is not None:
        better = consistency.log_odds > 0
        present = np.unique(manifest.landmark[judged])
        names = np.array(manifest.landmarks, dtype=object)[present]
        suggested[judged[better]] = names[consistency.suggested[better]]
    return suggested


def _blank(n: int) -> ObjArray:
    return np.full(n, "", dtype=object)


def equal_files(sha256: ObjArray) -> LongArray:
    """Pairs of rows (m, 2) with equal digests (n,), each row with the first one."""
    _, first, group = np.unique(sha256.astype(str), return_index=True, return_inverse=True)
    rows = np.arange(len(sha256))
    others = first[group] != rows
    return np.stack([first[group][others], rows[others]], axis=1).astype(np.int64)


def equal_looks(hashes: HashArray, max_bits: int, vectors: Matrix) -> LongArray:
    """Pairs of rows (m, 2) whose hashes (n,) nearly agree, and their descriptors (n, d) too where both have one.

    A descriptor of zeros stands for none.
    """
    pairs = near_pairs(hashes, max_bits)
    alike = [_agree(vectors, pairs[i : i + _PAIRS_AT_ONCE]) for i in range(0, len(pairs), _PAIRS_AT_ONCE)]
    kept: LongArray = pairs[np.concatenate([np.zeros(0, dtype=np.bool_), *alike])]
    return kept


def copies_to_leave_out(pairs: LongArray, preference: LongArray) -> LongArray:
    """(n,) of each row the row that is kept in its place, -1 where the row itself is kept.

    pairs: (m, 2) of copies. preference: (n,) all different; of a group of copies the row with the lowest is kept.
    """
    n = len(preference)
    group = components(pairs, n)
    order = np.lexsort((preference, group))
    first = order[np.searchsorted(group[order], np.arange(group.max(initial=-1) + 1))]
    kept = first[group]
    return np.where(kept == np.arange(n), -1, kept).astype(np.int64)


def _agree(vectors: Matrix, pairs: LongArray) -> BoolArray:
    """(m,) whether the descriptors of the pairs (m, 2) agree, or one has none."""
    one, other = vectors[pairs[:, 0]], vectors[pairs[:, 1]]
    alike: BoolArray = np.einsum("md,md->m", one, other) >= HASH_SIMILARITY
    return np.asarray(alike | ~one.any(axis=1) | ~other.any(axis=1))


def outside_largest(pairs: LongArray, landmark: IntArray, share: float) -> tuple[BoolArray, LongArray]:
    """Finds the rows outside the largest component of their landmark, (n,), and the size of each row's own, (n,).

    pairs: (m, 2) rows of one landmark that are joined; landmark: (n,) int32, -1 = not considered. Components of at
    least `share` of the largest are not outside. Where the largest is a single image nothing hangs together, and none
    lies outside.
    """
    group = components(pairs, len(landmark))
    sizes = np.bincount(group, minlength=1)
    size = sizes[group]
    largest = np.zeros(int(landmark.max(initial=-1)) + 2, dtype=np.int64)
    np.maximum.at(largest, landmark, size)
    of_row = largest[landmark]
    outside: BoolArray = (landmark >= 0) & (size < share * of_row) & (of_row > 1)
    return outside, size.astype(np.int64)


def image_fault(facts: ImageFacts, rule: CleaningRule) -> str:
    """The first fault in words, '' for none."""
    ppi = round(float(pixels_per_inch(facts.width, facts.height, rule.diagonal_in)), 1)  # 224 x 224 is 18, not 17.999
    low, high = rule.ppi_low, rule.ppi_high
    if (low is not None and ppi < low) or (high is not None and ppi > high):
        return f"{ppi:.1f} pixels per inch, not {_span(low, high)}"
    if min(facts.width, facts.height) < rule.min_side_px:
        return f"{facts.width} x {facts.height} pixels, the shorter side under {rule.min_side_px}"
    if facts.brightness < rule.min_brightness:
        return f"too dark: brightness {facts.brightness:.1f} under {rule.min_brightness:g}"
    if facts.brightness > rule.max_brightness:
        return f"too bright: brightness {facts.brightness:.1f} over {rule.max_brightness:g}"
    if facts.contrast < rule.min_contrast:
        return f"flat: contrast {facts.contrast:.1f} under {rule.min_contrast:g}"
    if facts.sharpness < rule.min_sharpness:
        return f"blurred: sharpness {facts.sharpness:.1f} under {rule.min_sharpness:g}"
    return ""


def _span(low: float | None, high: float | None) -> str:
    if low is None:
        return f"at most {high:g}"
    return f"at least {low:g}" if high is None else f"{low:g} to {high:g}"
