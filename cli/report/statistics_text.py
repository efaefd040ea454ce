"""The document of `lmr stats` in some thirty lines for people."""

from collections.abc import Iterator
from typing import Any

from cli.terminal import shown
from retrieval.words import agreeing, counted


def to_text(document: dict[str, Any]) -> str:
    """The summary that is printed."""
    parts = [_about(document), _landmarks(document), _beside(document), _images(document), _copies(document)]
    return "\n".join(line for part in parts for line in part)


def _about(d: dict[str, Any]) -> Iterator[str]:
    counts = (counted(d[f"{name}s"], name) for name in ("row", "picture", "landmark"))
    yield f"{d['source']}: {', '.join(counts)}"
    share = d["without_landmark"] / d["pictures"]
    yield f"without a landmark: {d['without_landmark']:,} ({share:.1%})"


def _landmarks(d: dict[str, Any]) -> Iterator[str]:
    counts = d["pictures_per_landmark"]
    if counts is None:
        return
    yield ""
    yield f"pictures per landmark: {counts['min']} to {counts['max']:,}, mean {counts['mean']:.1f}, " + (
        f"{counted(counts['single'], 'landmark')} {agreeing(counts['single'], 'has', 'have')} one"
    )
    yield "percentile  " + "".join(f"{percent:>9}" for percent in counts["percentiles"])
    yield "pictures    " + "".join(f"{value:>9,.6g}" for value in counts["percentiles"].values())
    shares = [f"{row['share']:.1%} in {row['k']:,}" for row in d["biggest"]]
    yield f"share of the biggest landmarks: {', '.join(shares)}; half of all in {d['half']:,}"
    lists = [("most frequent", "most_frequent"), ("least frequent", "least_frequent")]
    if d["landmarks"] <= len(d["most_frequent"]):
        lists = [("landmarks", "most_frequent")]
    for heading, key in lists:
        yield f"{heading}: {_named(d[key])}"


def _beside(d: dict[str, Any]) -> Iterator[str]:
    if any(d["blanks"].values()):
        yield "blank cells: " + ", ".join(f"{name} {n:,}" for name, n in d["blanks"].items() if n)
    for name in ("kinds", "usages"):
        if d[name]:
            yield f"{name}: " + ", ".join(
                f"{shown(value or '(blank)')} {n:,}" for value, n in list(d[name].items())[:12]
            )
    if d["hosts"]:
        top = ", ".join(f"{shown(row['host'])} {row['share']:.1%}" for row in d["hosts"]["top"][:5])
        yield f"hosts: {d['hosts']['hosts']:,}; {top}" if top else "hosts: none"
    if d["open_images"]:
        found = d["open_images"]
        per = found["labels_per_picture"]["mean"]
        yield (
            f"labels: {counted(found['kept'], 'row', of=found['rows'])} have confidence "
            f"{found['min_label_confidence']:g} "
            f"or more, {found['rejected']:,} have 0; {per:.2f} labels a picture"
        )
    if d["boxes"]:
        yield f"boxes: {d['boxes']['boxes']:,}, {d['boxes']['boxes_per_picture']['mean']:.2f} a picture"
    for row in d["subsets"] or ():
        yield (
            f"subset {shown(row['subset'] or '(blank)')}: {counted(row['pictures'], 'picture')}, "
            f"{row['labelled']:,} with a label, {row['labels_per_picture']:.2f} labels a picture"
        )
    if d["hierarchy"]:
        yield f"with all kinds of it: {_named(d['hierarchy'][:8])}"


def _images(d: dict[str, Any]) -> Iterator[str]:
    found = d["measured"]
    if found is None:
        return
    yield ""
    yield f"readable: {found['readable']:,}, unreadable: {found['unreadable']:,}"
    for name, reason in list(found["reasons"].items())[:5]:
        yield f"  {shown(name)}: {shown(reason)}"
    yield f"{'':16}" + "".join(f"{name:>12}" for name in ("min", "10 %", "median", "90 %", "max"))
    for name, row in found["measures"].items():
        table = row["percentiles"]
        cells = (row["min"], table["10"], table["50"], table["90"], row["max"])
        yield f"{name.replace('_', ' '):16}" + "".join(f"{_short(value):>12}" for value in cells)
    yield "outliers: " + ", ".join(f"{kind} {row['pictures']:,}" for kind, row in found["outliers"].items())


def _copies(d: dict[str, Any]) -> Iterator[str]:
    for name, row in (d["duplicates"] or {}).items():
        yield f"{name.replace('_', ' ')}: {_groups(row)}"
    if d["leakage"]:
        yield from _leakage(d["leakage"])
    if d["store"]:
        yield ""
        described = counted(d["store"]["pictures"], "picture", of=d["store"]["of"])
        yield f"{d['store']['source']}: describes {described}"
        yield f"near descriptors ({d['alike']['near_similarity']:g}): {_groups(d['alike'])}"
    if d["clusters"]:
        clusters, purity = d["clusters"]["clusters"], d["clusters"]["purity"]
        sizes = f"{clusters[-1]['pictures']:,} to {counted(clusters[0]['pictures'], 'picture')}"
        yield (
            f"{counted(len(clusters), 'cluster')} of {sizes}" + (f", purity {purity:.3f}" if purity is not None else "")
        )


def _leakage(found: dict[str, Any]) -> Iterator[str]:
    yield ""
    said = [f"{found[key]['pictures']:,} {what}" for key, what in (("same_id", "by id"), ("same_url", "by address"))]
    for key, what in (("same_bytes", "by their bytes"), ("same_look", "by their look")):
        if found[key]:
            said.append(f"{found[key]['test_pictures']:,} {what}")
    yield f"of {counted(found['test_pictures'], 'test picture')} these are there too: {', '.join(said)}"


def _named(rows: list[dict[str, Any]]) -> str:
    """Landmarks with their numbers of images."""
    return ", ".join(f"{shown(row['name'] or row['landmark_id'])} {row['pictures']:,}" for row in rows)


def _groups(row: dict[str, Any]) -> str:
    across = f"{row['across_landmarks']:,} of them across landmarks"
    return f"{counted(row['pictures'], 'picture')} in {counted(row['groups'], 'group')}, {across}"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
