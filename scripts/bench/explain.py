"""How long the explanation of a query takes, part by part, once the model is loaded.

Asks an index for images, explains each answer and writes its page, images and numbers. The first explanation, which
loads what a process needs, is told apart from the others. The match and the bars are drawn with matplotlib too, the
match as hloc does. Prints one JSON document with processor and wall seconds.

    python scripts/bench/explain.py --index landmarks --images photos
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import lmr
from cli.report.bars import draw_bars, vote_sections
from cli.report.explanation import render_explanation, write_explanation
from cli.report.pair import draw_pair, drawn_images, png, with_caption
from index.explain import explanation
from retrieval.explain import saliency, similarity
from retrieval.images.given import list_images

T = TypeVar("T")
DPI = 130


class Clock:
    """Processor and wall seconds of named parts."""

    def __init__(self) -> None:
        self.spent: dict[str, list[tuple[float, float]]] = defaultdict(list)

    def run(self, name: str, work: Callable[[], T]) -> T:
        """The outcome of work, timed."""
        begin = time.process_time(), time.perf_counter()
        done = work()
        self.spent[name].append((time.process_time() - begin[0], time.perf_counter() - begin[1]))
        return done

    def seconds(self, first: bool) -> dict[str, dict[str, float]]:
        """Of the first run, or the medians of the others."""
        chosen = {name: runs[:1] if first else runs[1:] or runs for name, runs in self.spent.items()}
        return {
            name: {
                "cpu_s": round(statistics.median(cpu for cpu, _ in runs), 4),
                "wall_s": round(statistics.median(wall for _, wall in runs), 4),
            }
            for name, runs in chosen.items()
        }


def main() -> None:
    """Explains, draws in both ways, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", type=Path, required=True, help="index folder")
    parser.add_argument("--images", type=Path, required=True, help="folder of images to ask")
    parser.add_argument("--count", type=int, default=10, help="how many of them (default %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="of the processor (default %(default)s)")
    given = parser.parse_args()
    clock, images = Clock(), [image.where for image in list_images([str(given.images)])[: given.count]]
    landmarks = clock.run("open", lambda: lmr.open_index(given.index, device="cpu", threads=given.threads, workers=1))
    for module, name in ((explanation, "match_images"), (similarity, "similarity_maps"), (saliency, "saliency_maps")):
        timed(clock, module, name)
    with tempfile.TemporaryDirectory() as folder:
        for i, image in enumerate(images):
            place = Path(folder) / str(i)
            place.mkdir()
            explained = clock.run("explain", partial(landmarks.explain, image))
            clock.run("write", partial(write_explanation, place, explained, given.index, place))
            parts(clock, explained, given.index, place)
    seconds = {"first": clock.seconds(first=True), "others": clock.seconds(first=False)}
    total = {name: round(of["explain"]["wall_s"] + of["write"]["wall_s"], 3) for name, of in seconds.items()}
    of = seconds["others"]
    ratio = of["matplotlib"]["cpu_s"] / (of["pair"]["cpu_s"] + of["bars"]["cpu_s"])
    n = {"images": len(images), "threads": given.threads}
    print(json.dumps({**n, "explanation_wall_s": total, "matplotlib_over_ours": round(ratio, 2), **seconds}, indent=1))


def timed(clock: Clock, module: Any, name: str) -> None:
    """Has a function of a module tell the clock of its time."""
    function = getattr(module, name)
    setattr(module, name, lambda *given: clock.run(name, partial(function, *given)))


def parts(clock: Clock, explained: Any, index: Path, place: Path) -> None:
    """The parts of writing by themselves, and what matplotlib takes for two of them."""
    drawn = clock.run("all images", lambda: [*drawn_images(explained)])
    clock.run("page", lambda: render_explanation(explained, drawn, index, place))
    clock.run("pair", lambda: png(with_caption(pair_of(explained), "title", "about")))
    clock.run("bars", lambda: png(draw_bars("title", vote_sections(explained))))
    clock.run("matplotlib", lambda: (draw_matplotlib_pair(explained), draw_matplotlib_bars(explained)))


def pair_of(explained: Any) -> Any:
    """The match as lmr draws it."""
    return draw_pair(explained.query.pixels, explained.row.pixels, explained.match)


def draw_matplotlib_pair(explained: Any) -> bytes:
    """Both images, keypoints and lines between them, as hloc draws them."""
    from matplotlib.figure import Figure
    from matplotlib.patches import ConnectionPatch

    figure = Figure(figsize=(11, 5), dpi=DPI)
    sides = figure.subplots(1, 2)
    points = [explained.match.match.points_query, explained.match.match.points_row]
    sizes = [explained.match.query.size, explained.match.row.size]
    for axes, shown, own, size in zip(sides, (explained.query, explained.row), points, sizes, strict=True):
        axes.imshow(np.asarray(shown.pixels), extent=(0, size[0], size[1], 0))
        axes.scatter(own[:, 0], own[:, 1], s=6, linewidths=0)
        axes.axis("off")
    for here, there in zip(*points, strict=True):
        line = ConnectionPatch(here, there, "data", "data", axesA=sides[0], axesB=sides[1], color="lime", lw=1.5)
        figure.add_artist(line)
    return figure_bytes(figure)


def draw_matplotlib_bars(explained: Any) -> bytes:
    """The three panels of bars."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 9), dpi=DPI, layout="constrained")
    for axes, section in zip(figure.subplots(3, 1), vote_sections(explained), strict=True):
        rows = section.rows
        axes.barh(range(len(rows)), [r.bar.end - r.bar.start for r in rows], left=[r.bar.start for r in rows])
        axes.set_yticks(range(len(rows)), [r.label for r in rows])
        axes.invert_yaxis()
        axes.set_title(section.heading)
    return figure_bytes(figure)


def figure_bytes(figure: Any) -> bytes:
    """A figure as a PNG file in memory."""
    content = BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()


if __name__ == "__main__":
    main()
