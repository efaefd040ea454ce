"""Draws the images of the documentation, from the landmarks that `lmr demo` renders and a table that is made up.

Runs the demo in --work (it goes on where it was; a quarter of an hour on two cores) and then the commands that the
pages show. Pages are photographed with Chromium, whose program --browser names; the page of lmr serve through
Playwright (extra `browser`).

    python scripts/images.py
"""

import argparse
import csv
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from cli.report import statistics as plots
from cli.report.lettering import draw_text, elide
from cli.report.plots import BLUE, GREEN, INK, ORANGE, PINK, legend, name_axes, new_figure, to_png

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
GALLERY_PX, PAGE_PX = (1280, 860), (1280, 2100)
PAGE_SHOWN_PX = 540  # width of a page in the documents
PHONE = {"viewport": {"width": 390, "height": 780}, "device_scale_factor": 1.5, "is_mobile": True, "has_touch": True}
SERVED_NUMBER, SERVED_LARGER = 7, 3  # which of the images that are answered rightly is asked on the page, and its size
TILE_PX, GAP_PX, MARGIN_PX, LABEL_PX, HEAD_PX = 84, 8, 18, 170, 46
FRAME_PX = 4
PARTS = ("train", "val", "test", "background")
N_SPLIT_LANDMARKS, N_SPLIT_IMAGES = 4, 9
NON_LANDMARKS = "no landmark"
VARIED = ("--size", "96", "--rotation", "15", "--blur", "0.3", "--erasing", "0.3", "--backbone", "resnet18")
COMPARED = ("knn-imagenet", "slides:epochs=6", "arcface:epochs=6")
SMALL = ("--backbone", "resnet18", "--set", "pretrained=false", "--set", "size=64", "--set", "last-layer=layer3")
INK_RGB = (28, 32, 38)


def main() -> None:
    """Draws all images into docs/."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--work", type=Path, default=Path("docs-pictures"), help="Folder for the demo and what it makes."
    )
    parser.add_argument("--browser", default="chromium", help="Program that photographs pages.")
    args = parser.parse_args()
    work, demo = args.work.resolve(), (args.work / "demo").resolve()
    work.mkdir(parents=True, exist_ok=True)
    lmr(work, "demo", demo)
    draw_query(demo, DOCS / "query.jpg")
    draw_explanations(demo, args.browser)
    draw_gallery(demo, args.browser, DOCS / "clean.jpg")
    draw_split(demo, work / "split", DOCS / "split.jpg")
    draw_batch(demo, DOCS / "batch.jpg")
    draw_comparison(demo, args.browser, DOCS / "compare.png")
    draw_served(demo, work)
    draw_statistics(work, DOCS / "stats.png")
    draw_download(DOCS / "download.png")
    draw_growth(ROOT / "scripts" / "bench" / "growth.json", DOCS / "growth.png")
    draw_plan(ROOT / "scripts" / "bench" / "plan.json", DOCS / "plan.png")
    draw_curve(ROOT / "scripts" / "bench" / "curve.json", DOCS / "curve.png")


def draw_query(demo: Path, image: Path) -> None:
    """Two test images that are answered, of different landmarks, and one that is turned away."""
    right, away = answered_rightly(demo)
    first, other = next(iter(right)), list(dict.fromkeys(right.values()))[1]
    second = next(name for name, landmark in right.items() if landmark == other)
    shown = [f"images/{name}.jpg" for name in (first, second, away[0])]
    lmr(demo, "query", *shown, "--save", "asked.png", "--overwrite")
    save(Image.open(demo / "asked.png"), image)


def answered_rightly(demo: Path) -> tuple[dict[str, str], list[str]]:
    """Test images that are answered rightly, each with its landmark, and non-landmarks that are turned away."""
    solution = {row["id"]: row["landmarks"] for row in read_rows(demo / "test_solution.csv")}
    said = {row["id"]: row["landmarks"].split() for row in read_rows(demo / "submission.csv")}
    calibration = json.loads((demo / "landmarks" / "calibration.json").read_text(encoding="utf-8"))
    threshold = calibration["threshold_precision"]["confidence"]
    answered = {name for name, words in said.items() if words and float(words[-1]) >= threshold}
    right = {name: true for name, true in solution.items() if name in answered and said[name][0] == true}
    return right, [name for name, true in solution.items() if not true and name not in answered]


def draw_explanations(demo: Path, browser: str) -> None:
    """The explanation of the image with most inliers, and the page of one that is turned away, on light and on dark."""
    right, away = answered_rightly(demo)
    lmr(demo, "query", *(f"images/{name}.jpg" for name in (*right, away[0])), "--explain", "explained", "--overwrite")
    told = {name: demo / "explained" / name for name in (*right, away[0])}
    found = {name: json.loads((told[name] / "explanation.json").read_text(encoding="utf-8")) for name in right}
    best = max(right, key=lambda name: found[name]["match"]["n_inliers"])
    save(Image.open(told[best] / "match.png").convert("RGB"), DOCS / "explained-match.jpg")
    save(Image.open(told[best] / "map-similarity.png").convert("RGB"), DOCS / "explained-similarity.jpg")
    save(Image.open(told[best] / "votes.png").convert("RGB"), DOCS / "explained-votes.png")
    shots = [
        photograph(told[name] / "explanation.html", browser, PAGE_PX, is_dark)
        for name, is_dark in ((best, False), (away[0], True))
    ]
    small = [ImageOps.contain(shot, (PAGE_SHOWN_PX, shot.height), Image.Resampling.LANCZOS) for shot in shots]
    save(in_a_row(small), DOCS / "explained.jpg")


def draw_gallery(demo: Path, browser: str, image: Path) -> None:
    """The beginning of the gallery, where a tenth of the labels was exchanged."""
    rows, rng = read_rows(demo / "train.csv"), np.random.default_rng(0)
    landmarks = sorted({row["landmark_id"] for row in rows})
    for row in rng.choice(len(rows), len(rows) // 10, replace=False).tolist():
        others = [name for name in landmarks if name != rows[row]["landmark_id"]]
        rows[row]["landmark_id"] = str(rng.choice(others))
    write_rows(demo / "mixed.csv", rows)
    lmr(demo, "clean", "mixed.csv", "--store", "train.h5", "--checks", "labels", "--overwrite")
    save(photograph(demo / "cleaned" / "gallery.html", browser), image)


def draw_batch(demo: Path, image: Path) -> None:
    """A batch as the network sees it."""
    lmr(demo, "train", "train.csv", "--batch-size", "8", *VARIED, "--show-batch", "batch.png", "--overwrite")
    save(Image.open(demo / "batch.png").convert("RGB"), image)


def draw_comparison(demo: Path, browser: str, image: Path) -> None:
    """The beginning of the page of a comparison of small networks, trained from random weights."""
    lmr(demo, "compare", *COMPARED, "--data", ".", *SMALL)
    save(photograph(demo / "compare" / "comparison-val.html", browser), image)


def photograph(page: Path, browser: str, size_px: tuple[int, int] = GALLERY_PX, is_dark: bool = False) -> Image.Image:
    """The beginning of an HTML page as a browser shows it."""
    size = f"--window-size={size_px[0]},{size_px[1]}"
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", size]
    if is_dark:
        command.append("--blink-settings=preferredColorScheme=0")
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        command += [f"--screenshot={shot}", page.resolve().as_uri()]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        return Image.open(shot).convert("RGB")


def draw_served(demo: Path, work: Path) -> None:
    """The page of `lmr serve`: an answer, a match, the landmarks; an answer and a part of a picture on a telephone."""
    page_bench = load_bench("page")
    right, _ = answered_rightly(demo)
    asked = work / "holiday.jpg"
    image = Image.open(demo / "images" / f"{sorted(right)[SERVED_NUMBER]}.jpg").convert("RGB")
    image.resize((image.width * SERVED_LARGER, image.height * SERVED_LARGER), Image.Resampling.LANCZOS).save(asked)
    with page_bench.served(demo / "landmarks", work) as url, page_bench.chromium() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 860}, base_url=url)
        ask_page(page, asked)
        save(shot(page), DOCS / "serve-answer.jpg")
        page.locator("form.gallery a.pic").first.click()
        page.locator("dialog figure img").last.wait_for()
        save(shot(page), DOCS / "serve-match.jpg")
        page.goto("/landmarks")
        save(shot(page), DOCS / "serve-landmarks.jpg")
        page.close()
        phones = []
        for scheme in ("light", "dark"):
            phone = browser.new_page(base_url=url, color_scheme=scheme, **PHONE)
            ask_page(phone, asked)
            if phones:
                phone.get_by_role("button", name="Search by a part").tap()
                phone.locator(".veil").wait_for()
            phone.evaluate("scrollTo(0, document.querySelector('article.answer').offsetTop - 16)")
            phones.append(shot(phone))
            phone.close()
        save(in_a_row(phones), DOCS / "serve-phone.jpg")


def ask_page(page: Any, image: Path) -> None:
    """The first page with the answer to an image."""
    page.goto("/")
    page.locator("#files").set_input_files(image)
    page.locator("article.answer").wait_for()


def shot(page: Any) -> Image.Image:
    """What is seen of a page, its images loaded."""
    page.wait_for_load_state("networkidle")
    return Image.open(BytesIO(page.screenshot())).convert("RGB")


def load_bench(name: str) -> Any:
    """A script of scripts/bench/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / "bench" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def draw_split(demo: Path, work: Path, image: Path) -> None:
    """Which images of a few landmarks go to which part; near-duplicates are framed."""
    if work.exists():
        shutil.rmtree(work)
    twins = dict(make_small_set(demo, work / "photos"))
    lmr(work, "split", "photos", "--output", "parts", "--val", "0.2", "--test", "0.2", "--at-least", "1")
    cells: dict[tuple[str, str], list[Path]] = {}
    for part in PARTS:
        for row in read_rows(work / "parts" / f"{'test_solution' if part == 'test' else part}.csv"):
            label = row["landmarks" if part == "test" else "landmark_id"]
            cells.setdefault((label or NON_LANDMARKS, part), []).append(Path(row["path"]))
    save(grid_of_parts(cells, twins), image)


def make_small_set(demo: Path, folder: Path) -> Iterator[tuple[str, str]]:
    """A folder of folders; of each third image a smaller, darker copy. Yields copy and original."""
    rows = read_rows(demo / "train.csv")
    landmarks = sorted({row["landmark_id"] for row in rows})[:N_SPLIT_LANDMARKS]
    chosen = []
    for name in landmarks:
        chosen += [(name, row["id"]) for row in rows if row["landmark_id"] == name][:N_SPLIT_IMAGES]
    chosen += [("", row["id"]) for row in read_rows(demo / "background.csv")[:N_SPLIT_IMAGES]]
    for i, (name, image_id) in enumerate(chosen):
        (folder / name).mkdir(parents=True, exist_ok=True)
        original = Image.open(demo / "images" / f"{image_id}.jpg").convert("RGB")
        original.save(folder / name / f"{image_id}.jpg", quality=90)
        if i % 3 == 0:
            copy = f"{image_id}-copy.jpg"
            smaller = original.resize((original.width * 3 // 4, original.height * 3 // 4), Image.Resampling.LANCZOS)
            smaller.point(lambda value: value * 0.85).save(folder / name / copy, quality=60)
            yield copy, f"{image_id}.jpg"


def grid_of_parts(cells: dict[tuple[str, str], list[Path]], twins: dict[str, str]) -> Image.Image:
    """A line for each landmark, a column for each part; an image and its near copy stand in one frame."""
    lines = sorted({label for label, _ in cells}, key=lambda label: (label == NON_LANDMARKS, label))
    ordered = {key: beside_twins(paths, twins) for key, paths in cells.items()}
    across = {part: min(4, max(2, *(len(ordered.get((line, part), [])) for line in lines))) for part in PARTS}
    down = {line: max(1, *(-(-len(ordered.get((line, part), [])) // across[part]) for part in PARTS)) for line in lines}
    step = TILE_PX + GAP_PX
    width = 2 * MARGIN_PX + LABEL_PX + sum(across[part] * step + 2 * GAP_PX for part in PARTS)
    height = 2 * MARGIN_PX + HEAD_PX + sum(down[line] * step + 2 * GAP_PX for line in lines)
    sheet = Image.new("RGB", (width, height), (255, 255, 255))
    pen = ImageDraw.Draw(sheet)
    top = MARGIN_PX + HEAD_PX
    for line in lines:
        write(pen, (MARGIN_PX, top + TILE_PX // 2 - 8), line, LABEL_PX - 12, 14)
        left = MARGIN_PX + LABEL_PX
        for part in PARTS:
            if line == lines[0]:
                write(pen, (left, MARGIN_PX), f"{part}.csv", across[part] * step, 17)
            for i, path in enumerate(ordered.get((line, part), [])):
                at = (left + i % across[part] * step, top + i // across[part] * step)
                put(sheet, path, at, framed=path.name in twins or path.name in twins.values())
            left += across[part] * step + 2 * GAP_PX
        top += down[line] * step + 2 * GAP_PX
        pen.line((MARGIN_PX, top - GAP_PX - 4, width - MARGIN_PX, top - GAP_PX - 4), fill=(220, 223, 228))
    return sheet


def beside_twins(paths: Sequence[Path], twins: dict[str, str]) -> list[Path]:
    """The images, each copy after its original, pairs first."""
    return sorted(paths, key=lambda path: (original_of(path, twins) not in twins.values(), path.name))


def original_of(path: Path, twins: dict[str, str]) -> str:
    """The name of the image that this one is, or is a copy of."""
    return twins.get(path.name, path.name)


def put(sheet: Image.Image, path: Path, at: tuple[int, int], *, framed: bool) -> None:
    """A square of the image, in a frame where it has a near copy."""
    tile = ImageOps.fit(Image.open(path).convert("RGB"), (TILE_PX, TILE_PX), Image.Resampling.LANCZOS)
    sheet.paste(tile, at)
    if framed:
        box = (at[0], at[1], at[0] + TILE_PX - 1, at[1] + TILE_PX - 1)
        ImageDraw.Draw(sheet).rectangle(box, outline=ORANGE, width=FRAME_PX)


def draw_statistics(work: Path, image: Path) -> None:
    """Histogram, density and long tail of the table that scripts/bench/stats.py writes."""
    bench = load_bench("stats")
    bench.write_table(work / "table.csv", bench.N_ROWS)
    found = json.loads(lmr(work, "stats", "table.csv", "--json"))
    drawn = [
        plots.plot_histogram(found["histogram"]),
        plots.plot_density(found["density"]),
        plots.plot_long_tail(found["long_tail"], found["half"], "labelled pictures"),
    ]
    save(in_a_row([on_white(figure) for figure in drawn]), image)


def draw_growth(measured: Path, image: Path) -> None:
    """Processor time and memory against the number of rows, as scripts/bench/growth.py keeps them."""
    found = json.loads(measured.read_text(encoding="utf-8"))
    rows, images, exponents = found["rows"], found["images"], found["exponents"]
    panels = (
        ("processor seconds", (("embed_cpu_s", "embedding", images), ("build_cpu_s", "building", rows))),
        ("ms a query", (("exact_cpu_ms", "exact", rows), ("search_cpu_ms", "inverted file", rows))),
        ("MB of its own", (("build_own_mb", "building", rows), ("open_and_one_query_own_mb", "one query", rows))),
    )
    drawn = []
    for unit, lines in panels:
        figure = new_figure((4.2, 3.3))
        axes = figure.add_subplot()
        for (name, label, of), (colour, style) in zip(lines, ((ORANGE, "s--"), (BLUE, "o-")), strict=True):
            n, y = [int(size) for size in of], [one[name] for one in of.values()]
            axes.plot(n, y, style, color=colour, label=f"{label}: $n^{{{exponents[name]:.2f}}}$")
        axes.set_xscale("log")
        axes.set_yscale("log")
        name_axes(axes, "rows or images, n", unit)
        legend(axes)
        drawn.append(on_white(figure))
    save(in_a_row(drawn), image)


def draw_curve(measured: Path, image: Path) -> None:
    """GAP and top-1 against the images of a landmark, as scripts/bench/curve.py keeps them; bars: their range."""
    found = json.loads(measured.read_text(encoding="utf-8"))
    mean = round(found["images"]["images"] / found["images"]["landmarks"])
    drawn = []
    for figure_name, unit in (("gap", "GAP"), ("top1", "top-1")):
        figure = new_figure((4.6, 3.4))
        axes = figure.add_subplot()
        styles = zip(("o-", "s--", "^:"), (BLUE, ORANGE, GREEN), strict=True)
        for (system, of), (style, colour) in zip(found["points"].items(), styles, strict=False):
            x = [mean if n == "all" else int(n) for n in of]
            values = [[one[figure_name] for one in seeds] for seeds in of.values()]
            y = [sum(each) / len(each) for each in values]
            reach = [
                [at - min(v) for at, v in zip(y, values, strict=True)],
                [max(v) - at for at, v in zip(y, values, strict=True)],
            ]
            axes.errorbar(x, y, reach, fmt=style, color=colour, label=system, markersize=4, capsize=2)
        axes.set_xscale("log")
        ticks = [1, 2, 5, 10, mean]
        axes.set_xticks(ticks, labels=[*map(str, ticks[:-1]), f"all ({mean})"])
        axes.set_xticks([], minor=True)
        name_axes(axes, "images of a landmark", unit)
        legend(axes)
        drawn.append(on_white(figure))
    save(in_a_row(drawn), image)


def draw_plan(planned: Path, image: Path) -> None:
    """Hours by executors with their knees, tasks a slot, shards of an index, as scripts/bench/plan.py keeps them."""
    found = json.loads(planned.read_text(encoding="utf-8"))
    dashes, colours = ("o-", "s--", "^:", "D-."), (BLUE, ORANGE, GREEN, PINK)
    hours = {f"{float(n):.0e}".replace("e+0", "e"): of_size for n, of_size in found["jobs"].items()}
    largest = max(found["search"], key=float)
    panels = (
        ("executors of 16 cores", "hours", {n: total_hours(of_size) for n, of_size in hours.items()}),
        ("tasks a slot", "time / ideal time", found["tasks"]["over_ideal"]),
        (
            f"shards of an index of {float(largest):.0e}".replace("e+0", "e"),
            "seconds",
            found["search"][largest]["seconds"],
        ),
    )
    drawn = []
    for x, y, lines in panels:
        figure = new_figure((4.2, 3.5))
        axes = figure.add_subplot()
        for (label, line), style, colour in zip(lines.items(), dashes, colours, strict=False):
            name = f"blocks of {int(label):,}" if label.isdigit() else label
            axes.plot([int(at) for at in line], list(line.values()), style, color=colour, label=name, markersize=4)
        if y == "hours":
            for one in found["knees"].values():
                axes.plot(one["executors"], one["total_hours"], "o", color=INK, markersize=11, fillstyle="none")
        axes.set_xscale("log")
        axes.set_yscale("linear" if lines is panels[1][2] else "log")
        ticks = [int(at) for at in next(iter(lines.values()))]
        axes.set_xticks(ticks, labels=[f"{at}" for at in ticks])
        axes.set_xticks([], minor=True)
        name_axes(axes, x, y)
        legend(axes)
        drawn.append(on_white(figure))
    save(in_a_row(drawn), image)


def total_hours(jobs: dict[str, Any]) -> dict[str, float]:
    """Hours of a job by its executors."""
    return {k: one["total_hours"] for k, one in jobs.items()}


def draw_download(image: Path) -> None:
    """What becomes of a row, from the CSV file to the ledger."""
    figure = new_figure((9.6, 4.1))
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 96), ylim=(1, 42))
    axes.axis("off")
    axes.plot((8.5, 40.8), (8, 8), color="#646b75", linewidth=1)
    boxes = (
        (1, 25, "a row of train.csv", "id, url", INK),
        (21, 25, "in the ledger?", "and the file has its size", BLUE),
        (41, 25, "fetch", "64 at once, 8 from a host", BLUE),
        (61, 25, "decode and resize", "upright, on white, JPEG", BLUE),
        (80, 25, "images/<id>.jpg", "ledger: done", BLUE),
        (41, 4, "images/failed.csv", "ledger: failed, with its cause", ORANGE),
    )
    for x, y, title, note, colour in boxes:
        axes.text(x + 7.5, y + 5.4, title, ha="center", va="center", color="#1c2026", fontsize=10, weight="bold")
        axes.text(x + 7.5, y + 2.4, note, ha="center", va="center", color="#1c2026", fontsize=7)
        axes.add_patch(rounded(x, y, colour))
    arrows = (
        ((16.2, 29), (20.8, 29), 0.0),
        ((36.2, 29), (40.8, 29), 0.0),
        ((56.2, 29), (60.8, 29), 0.0),
        ((76.2, 29), (79.8, 29), 0.0),
        ((28.5, 24.8), (28.5, 18.2), 0.0),
        ((48.5, 24.8), (48.5, 12.4), 0.0),
        ((66, 24.8), (56.3, 9), 0.0),
        ((51.5, 33.2), (45.5, 33.2), 1.3),
        ((8.5, 8), (8.5, 24.8), 0.0),
    )
    for start, end, bend in arrows:
        style = {"arrowstyle": "-|>", "color": "#646b75", "connectionstyle": f"arc3,rad={bend}"}
        axes.annotate("", end, start, arrowprops=style)
    notes = (
        (38.5, 30, "no", "center"),
        (29.3, 21.5, "yes", "left"),
        (28.5, 16.6, "nothing to do", "center"),
        (49.3, 19.3, "404, no such host,\ntoo large, ...", "left"),
        (63.2, 15, "a web page,\nhalf a picture", "left"),
        (48.5, 38.6, "429, 5xx, timeouts: again after 1, 2, 4 s or as Retry-After says", "center"),
        (24.8, 9.4, "--retry-failed", "center"),
    )
    for x, y, text, side in notes:
        axes.text(x, y, text, ha=side, va="center", color="#646b75", fontsize=8)
    save(on_white(figure), image)


def rounded(x: float, y: float, colour: str) -> Any:
    """A box of 15 by 8."""
    from matplotlib.patches import FancyBboxPatch

    return FancyBboxPatch((x, y), 15, 8, boxstyle="round,pad=0,rounding_size=1", fill=False, edgecolor=colour, lw=1.6)


def on_white(figure: Any) -> Image.Image:
    """The figure as an RGB image."""
    drawn = Image.open(BytesIO(to_png(figure)))
    return Image.alpha_composite(Image.new("RGBA", drawn.size, "white"), drawn.convert("RGBA")).convert("RGB")


def in_a_row(images: Sequence[Image.Image]) -> Image.Image:
    """The images beside each other."""
    height = max(image.height for image in images)
    sheet = Image.new("RGB", (sum(image.width for image in images), height), "white")
    left = 0
    for image in images:
        sheet.paste(image, (left, 0))
        left += image.width
    return sheet


def write(pen: ImageDraw.ImageDraw, at: tuple[int, int], text: str, width: int, size: int) -> None:
    """A line of text, cut to a width in pixels."""
    draw_text(pen, at, elide(text.replace("_", " "), size, width), size, INK_RGB)


def save(image: Image.Image, path: Path) -> None:
    """The image in the format of its suffix, small; says its size."""
    if path.suffix == ".png":
        image.quantize(128).save(path, optimize=True)
    else:
        image.save(path, quality=76, optimize=True)
    print(f"{path}: {image.width} x {image.height}, {path.stat().st_size // 1000} kB")


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file by column."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_rows(path: Path, rows: list[dict[str, str]]) -> None:
    """The rows as a CSV file."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def lmr(folder: Path, *words: object) -> str:
    """Runs one command in a folder and returns what it printed; stops when it fails."""
    command = [str(Path(sys.executable).with_name("lmr")), *(str(word) for word in words)]
    return subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=True).stdout


if __name__ == "__main__":
    main()
