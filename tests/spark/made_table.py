"""A small table of pictures in Parquet's part files, as Spark writes one of Open Images, and its labels."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

LABELS = ("/m/arch", "/m/dome", "/m/tower")
N_OF_LABEL = 12


def picture(label: int, number: int) -> bytes:
    """JPEG: stripes of the label's slant, of another size for each number."""
    side = 40 + number
    y, x = np.mgrid[:side, :side] / side
    wave = np.sin(20 * (x * np.cos(label) + y * np.sin(label)) + number)
    noise = np.random.default_rng([label, number]).normal(0, 20, (side, side, 3))
    pixels = 128 + 80 * wave[..., None] * np.eye(3)[label] + noise
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=95)
    return file.getvalue()


def write_table(folder: Path, n_parts: int = 3, *, broken: bool = True) -> Path:
    """ImageID, LabelName as landmark_id, and the picture; the last one is broken where asked for."""
    rows = [
        {"ImageID": f"{label}-{i:02d}", "landmark_id": LABELS[label], "image": picture(label, i)}
        for i in range(N_OF_LABEL)
        for label in range(len(LABELS))
    ]
    if broken:
        rows[-1]["image"] = b"no picture"
    folder.mkdir()
    for part in range(n_parts):
        there = rows[part * len(rows) // n_parts : (part + 1) * len(rows) // n_parts]
        pq.write_table(pa.Table.from_pylist(there), folder / f"part-{part:05d}-7f3a.snappy.parquet", row_group_size=5)
    (folder / "_SUCCESS").touch()
    return folder


def write_labels(path: Path) -> Path:
    """Labels of Open Images: of each picture its own, and for some a second one of less confidence."""
    lines = ["ImageID,Source,LabelName,Confidence"]
    for label in range(len(LABELS)):
        for i in range(N_OF_LABEL):
            lines.append(f"{label}-{i:02d},verification,{LABELS[label]},1")
            if i % 4 == 0:
                lines.append(f"{label}-{i:02d},machine,{LABELS[(label + 1) % len(LABELS)]},0.6")
    path.write_text("\n".join(lines) + "\n")
    return path
