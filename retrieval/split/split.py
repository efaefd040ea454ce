"""A manifest split into train, val, test and non-landmarks, by landmark and with near-duplicates kept together."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from retrieval.arrays import IntArray, LongArray, ObjArray, UInt8Array, read_only
from retrieval.data.manifest import Manifest
from retrieval.data.near_duplicates import components
from retrieval.split.quotas import SHARE, Quota, Quotas, Share
from retrieval.split.roles import IGNORED, KNOWN, RARE, RARE_DROPPED, UNKNOWN, UNPICKED, Choice, Roles
from retrieval.split.roles import choose_landmarks as choose_landmarks
from retrieval.split.stratify import TEST, VAL, deal, targets

DROPPED = 3
KINDS = {KNOWN: "landmark", UNKNOWN: "unknown-landmark", RARE: "rare-landmark"}
NON_LANDMARK_KIND = "non-landmark"
DROPPED_FOR = {UNPICKED: "landmark not picked", RARE_DROPPED: "rare landmark", IGNORED: "Usage is Ignored"}

_PUBLIC = Quotas(Share(0.5), Share(0))  # of the test rows


@dataclass(frozen=True, slots=True)
class SplitRule:
    """Rule by which a manifest is split.

    val, test: of each landmark. at_least: as in Quotas. non_landmark_val, non_landmark_test: shares of the
    non-landmarks of each kind; None = that of val or test, or for a count what it comes to of the landmark images.
    """

    val: Quota = field(default_factory=lambda: Share(SHARE))
    test: Quota = field(default_factory=lambda: Share(SHARE))
    at_least: int = 0
    non_landmark_val: float | None = None
    non_landmark_test: float | None = None
    choice: Choice = field(default_factory=Choice)
    seed: int = 0

    def __post_init__(self) -> None:
        shares = [quota.fraction for quota in (self.val, self.test) if isinstance(quota, Share)]
        if sum(shares) >= 1:
            raise ValueError(f"val and test must leave something to train, got {' and '.join(map(str, shares))}")


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Part of each row of a manifest, and its role.

    manifest: all rows, with the landmarks and kinds that they have in the split; usage is Public or Private in test.
    part: (n,) uint8, TRAIN, VAL, TEST or DROPPED. roles: what landmarks and rows are used as.
    """

    manifest: Manifest
    part: UInt8Array
    roles: Roles

    def __post_init__(self) -> None:
        if self.part.shape != (len(self.manifest),):
            raise ValueError(f"part must have {len(self.manifest)} rows, got {self.part.shape}")
        object.__setattr__(self, "part", read_only(self.part))

    def rows(self, part: int, *, of_landmarks: bool | None = None) -> LongArray:
        """The rows of a part, in order: all, or those that show a known landmark, or those that do not."""
        chosen = self.part == part
        if of_landmarks is not None:
            chosen &= (self.manifest.landmark >= 0) == of_landmarks
        return np.flatnonzero(chosen)

    @property
    def dropped(self) -> Mapping[str, int]:
        """Rows that were dropped, by reason."""
        counts = {reason: int((self.roles.of_row == role).sum()) for role, reason in DROPPED_FOR.items()}
        return {reason: n for reason, n in counts.items() if n}


def split(manifest: Manifest, group: LongArray, rule: SplitRule) -> Split:
    """Splits a manifest. group: (n,) int64 in [0, n); rows of one number are near-duplicates and stay together.

    Rows whose usage is Ignored are dropped. A landmark of one image goes to train, and each landmark that is in val
    or test has an image in train. Landmarks held out as unknown and rare ones, which count as non-landmarks, go to one
    part each as a whole. Raises LmrError where there are not as many landmarks as were asked for.
    """
    rng = np.random.default_rng(rule.seed)
    roles = choose_landmarks(manifest, group, rule.choice, rng)
    rare = roles.of_row == RARE
    if rare.any():
        group = _with_landmarks_whole(group, manifest.landmark, np.flatnonzero(rare))
    kind = _kinds(manifest, roles)
    part = np.full(len(manifest), DROPPED, dtype=np.uint8)
    unknown = np.flatnonzero(roles.of_row == UNKNOWN)
    if len(unknown):
        counts = np.bincount(roles.landmark[roles.landmark >= 0], minlength=len(manifest.landmarks))
        part[unknown] = _deal_landmarks(manifest.landmark[unknown], counts, rule, rng)
        _take_along(part, group, unknown, roles)
    free = np.flatnonzero((part == DROPPED) & ~np.isin(roles.of_row, list(DROPPED_FOR)))
    part[free] = _deal_strata(roles.landmark[free], kind[free], group[free], rule, rng)
    relabelled = replace(
        manifest,
        landmark=roles.landmark,
        more_landmarks=roles.more_landmarks,
        kind=kind,
        usage=_usage(part, roles.landmark, kind, group, rng),
    )
    return Split(relabelled, part, roles)


def _kinds(manifest: Manifest, roles: Roles) -> ObjArray:
    """The manifest's own kinds; of unknown and rare landmarks, and where it has none, what the rows are."""
    if manifest.kind is None:
        kind = np.full(len(manifest), NON_LANDMARK_KIND, dtype=object)
        kind[roles.of_row == KNOWN] = KINDS[KNOWN]
    else:
        kind = manifest.kind.copy()
    for role in (UNKNOWN, RARE):
        kind[roles.of_row == role] = KINDS[role]
    return kind


def _with_landmarks_whole(group: LongArray, landmark: IntArray, rows: LongArray) -> LongArray:
    """The groups joined so that all of these rows that have one landmark are in one."""
    pairs = [_chained(group, np.arange(len(group))), _chained(landmark, rows)]
    return components(np.concatenate(pairs), len(group))


def _chained(values: LongArray | IntArray, rows: LongArray) -> LongArray:
    """Pairs (m, 2) of rows that join all rows of one value."""
    order = rows[np.argsort(values[rows], kind="stable")]
    same = values[order[:-1]] == values[order[1:]]
    return np.stack([order[:-1][same], order[1:][same]], axis=1)


def _deal_landmarks(landmark: IntArray, counts: LongArray, rule: SplitRule, rng: np.random.Generator) -> UInt8Array:
    """VAL or TEST for rows of landmarks that are held out, by landmark and in the proportion of the known images."""
    codes, number = np.unique(landmark, return_inverse=True)
    n_val, n_test = (quota.wanted(counts).sum() for quota in (rule.val, rule.test))
    if not n_val + n_test:
        raise ValueError("unknown landmarks need a val or a test part")
    n_to_val = round(len(codes) * float(n_val / (n_val + n_test)))
    if n_val and n_test and len(codes) > 1:
        n_to_val = min(max(n_to_val, 1), len(codes) - 1)
    part = np.full(len(codes), TEST, dtype=np.uint8)
    part[rng.permutation(len(codes))[:n_to_val]] = VAL
    return part[number]


def _take_along(part: UInt8Array, group: LongArray, rows: LongArray, roles: Roles) -> None:
    """Gives the near-duplicates of rows that have a part the same part; they are non-landmarks all."""
    of_group = np.full(len(group), DROPPED, dtype=np.uint8)
    of_group[group[rows]] = part[rows]
    others = np.flatnonzero((part == DROPPED) & ~np.isin(roles.of_row, list(DROPPED_FOR)))
    part[others] = of_group[group[others]]


def _deal_strata(
    landmark: IntArray, kind: ObjArray, group: LongArray, rule: SplitRule, rng: np.random.Generator
) -> UInt8Array:
    """TRAIN, VAL or TEST for each row: landmarks by the rule, the non-landmarks of each kind by their shares."""
    stratum, n_landmarks, n_kinds = _strata(landmark, kind)
    counts = np.bincount(stratum, minlength=n_landmarks + n_kinds)
    known, others = counts[:n_landmarks], counts[n_landmarks:]
    of_known = targets(known, Quotas(rule.val, rule.test, 1, rule.at_least), rng)
    val = _share(rule.non_landmark_val, rule.val, of_known[:, 0], known)
    test = _share(rule.non_landmark_test, rule.test, of_known[:, 1], known)
    of_others = targets(others, Quotas(val, test), rng)
    n_kept = np.repeat([1, 0], [n_landmarks, n_kinds])
    return deal(stratum, group, np.concatenate([of_known, of_others]), n_kept, rng)


def _share(asked: float | None, quota: Quota, target: LongArray, counts: LongArray) -> Share:
    if asked is not None:
        return Share(asked)
    return quota if isinstance(quota, Share) else Share(float(target.sum() / counts.sum()))


def _strata(landmark: IntArray, kind: ObjArray) -> tuple[LongArray, int, int]:
    """(n,) the landmark's number, or for non-landmarks that of their kind after those; how many there are of each."""
    codes, stratum = np.unique(landmark, return_inverse=True)
    n_landmarks = int((codes >= 0).sum())
    if n_landmarks == len(codes):
        return stratum.astype(np.int64), n_landmarks, 0
    others = np.flatnonzero(landmark < 0)
    number = {name: i for i, name in enumerate(dict.fromkeys(kind[others].tolist()))}
    stratum = stratum.astype(np.int64) - 1
    stratum[others] = [n_landmarks + number[name] for name in kind[others].tolist()]
    return stratum, n_landmarks, len(number)


def _usage(
    part: UInt8Array, landmark: IntArray, kind: ObjArray, group: LongArray, rng: np.random.Generator
) -> ObjArray:
    """Public or Private for the rows of test, half of each landmark or kind; blank for the others."""
    usage = np.full(len(part), "", dtype=object)
    rows = np.flatnonzero(part == TEST)
    if len(rows):
        stratum, n_landmarks, n_kinds = _strata(landmark[rows], kind[rows])
        target = targets(np.bincount(stratum, minlength=n_landmarks + n_kinds), _PUBLIC, rng)
        is_public = deal(stratum, group[rows], target, np.zeros(len(target), dtype=np.int64), rng) == VAL
        usage[rows] = np.where(is_public, "Public", "Private")
    return usage
