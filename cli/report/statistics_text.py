"""The statistics of `lmr stats` in some thirty lines for people."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from cli.terminal import shown
from retrieval.words import agreeing, counted

if TYPE_CHECKING:
    from index.stats.data import DataCounts, LandmarkImages
    from index.stats.job import Statistics
    from index.stats.measured import ImageCounts, ImageGroups, Leakage
    from index.stats.open_images import RolledUp


def to_text(found: "Statistics") -> str:
    """The summary that is printed."""
    data = found.data
    parts = [_about(data), _landmarks(data), _beside(data), _images(found.measured), _copies(found)]
    return "\n".join(line for part in parts for line in part)


def _about(data: "DataCounts") -> Iterator[str]:
    rows, landmarks = counted(data.rows, "row"), counted(data.counts.landmarks, "landmark")
    yield f"{data.source}: {rows}, {counted(data.pictures, 'picture')}, {landmarks}"
    share = data.without_landmark / data.pictures
    yield f"without a landmark: {data.without_landmark:,} ({share:.1%})"


def _landmarks(data: "DataCounts") -> Iterator[str]:
    sizes = data.counts.pictures_per_landmark
    if sizes is None:
        return
    yield ""
    yield f"pictures per landmark: {sizes.min} to {sizes.max:,}, mean {sizes.mean:.1f}, " + (
        f"{counted(sizes.single, 'landmark')} {agreeing(sizes.single, 'has', 'have')} one"
    )
    yield "percentile  " + "".join(f"{percent:>9}" for percent in sizes.percentiles)
    yield "pictures    " + "".join(f"{value:>9,.6g}" for value in sizes.percentiles.values())
    shares = [f"{row.share:.1%} in {row.k:,}" for row in data.counts.biggest]
    yield f"share of the biggest landmarks: {', '.join(shares)}; half of all in {data.counts.half:,}"
    if data.counts.landmarks <= len(data.most_frequent):
        yield f"landmarks: {_named(data.most_frequent)}"
    else:
        yield f"most frequent: {_named(data.most_frequent)}"
        yield f"least frequent: {_named(data.least_frequent)}"


def _beside(data: "DataCounts") -> Iterator[str]:
    if any(data.blanks.values()):
        yield "blank cells: " + ", ".join(f"{name} {n:,}" for name, n in data.blanks.items() if n)
    for name, values in (("kinds", data.kinds), ("usages", data.usages)):
        if values:
            yield f"{name}: " + ", ".join(
                f"{shown(value or '(blank)')} {n:,}" for value, n in list(values.items())[:12]
            )
    if data.hosts:
        top = ", ".join(f"{shown(row.host)} {row.share:.1%}" for row in data.hosts.top[:5])
        yield f"hosts: {data.hosts.hosts:,}; {top}" if top else "hosts: none"
    if data.open_images:
        labels = data.open_images
        yield (
            f"labels: {counted(labels.kept, 'row', of=labels.rows)} have confidence {labels.min_label_confidence:g} "
            f"or more, {labels.rejected:,} have 0; {labels.labels_per_picture.mean:.2f} labels a picture"
        )
    if data.boxes:
        yield f"boxes: {data.boxes.boxes:,}, {data.boxes.boxes_per_picture.mean:.2f} a picture"
    for row in data.subsets or ():
        yield (
            f"subset {shown(row.subset or '(blank)')}: {counted(row.pictures, 'picture')}, "
            f"{row.labelled:,} with a label, {row.labels_per_picture:.2f} labels a picture"
        )
    if data.hierarchy:
        yield f"with all kinds of it: {_named(data.hierarchy[:8])}"


def _images(found: "ImageCounts | None") -> Iterator[str]:
    if found is None:
        return
    yield ""
    yield f"readable: {found.readable:,}, unreadable: {found.unreadable:,}"
    for name, reason in list(found.reasons.items())[:5]:
        yield f"  {shown(name)}: {shown(reason)}"
    yield f"{'':16}" + "".join(f"{name:>12}" for name in ("min", "10 %", "median", "90 %", "max"))
    for name, row in found.measures.items():
        table = row.percentiles
        cells = (row.min, table["10"], table["50"], table["90"], row.max)
        yield f"{name.replace('_', ' '):16}" + "".join(f"{_short(value):>12}" for value in cells)
    yield "outliers: " + ", ".join(f"{kind} {row.pictures:,}" for kind, row in found.outliers.items())


def _copies(found: "Statistics") -> Iterator[str]:
    if found.duplicates:
        yield f"same bytes: {_groups(found.duplicates.same_bytes)}"
        yield f"same look: {_groups(found.duplicates.same_look)}"
    if found.leakage:
        yield from _leakage(found.leakage)
    if found.store:
        yield ""
        yield f"{found.store.source}: describes {counted(found.store.pictures, 'picture', of=found.store.of)}"
    if found.alike:
        yield f"near descriptors ({found.alike.near_similarity:g}): {_groups(found.alike.groups)}"
    if found.clusters:
        clusters, purity = found.clusters.clusters, found.clusters.purity
        sizes = f"{clusters[-1].pictures:,} to {counted(clusters[0].pictures, 'picture')}"
        yield (
            f"{counted(len(clusters), 'cluster')} of {sizes}" + (f", purity {purity:.3f}" if purity is not None else "")
        )


def _leakage(found: "Leakage") -> Iterator[str]:
    yield ""
    said = [f"{found.same_id.pictures:,} by id", f"{found.same_url.pictures:,} by address"]
    for shared, what in ((found.same_bytes, "by their bytes"), (found.same_look, "by their look")):
        if shared:
            said.append(f"{shared.test_pictures:,} {what}")
    yield f"of {counted(found.test_pictures, 'test picture')} these are there too: {', '.join(said)}"


def _named(rows: "Sequence[LandmarkImages | RolledUp]") -> str:
    """Landmarks with their numbers of images."""
    return ", ".join(f"{shown(row.name or row.landmark_id)} {row.pictures:,}" for row in rows)


def _groups(row: "ImageGroups") -> str:
    across = f"{row.across_landmarks:,} of them across landmarks"
    return f"{counted(row.pictures, 'picture')} in {counted(row.groups, 'group')}, {across}"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
