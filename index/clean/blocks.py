"""Blocks of a long search kept on disk, so that a run that was stopped goes on after the last one."""

import io
import zipfile
from dataclasses import fields
from pathlib import Path

import numpy as np

from index.clean.config import CleaningRule
from index.clean.labels import Support
from index.clean.neighbours import Block, CentredSpace, join_blocks, look_around, n_blocks
from index.search.flat import FlatIndex
from retrieval.arrays import IntArray
from retrieval.files.atomic import write_bytes
from retrieval.progress import SILENT, Progress


def look_around_all(
    space: CentredSpace,
    landmark: IntArray,
    rule: CleaningRule,
    work: Path | None,
    *,
    device: str = "auto",
    progress: Progress = SILENT,
) -> Block:
    """All blocks of the labelled rows, those in the folder `work` taken from there and new ones put there.

    landmark: (n,) int32, none -1.
    Raises LmrError when the folder cannot be written or the disk is full; what was written before stays.
    """
    blocks: list[Block] = []
    index: FlatIndex | None = None
    progress.begin("comparing", len(landmark))
    for number in range(n_blocks(len(landmark))):
        path = None if work is None else work / f"block-{number:06d}.npz"
        block = _read(path)
        if block is None:
            index = index or FlatIndex.build(space.labelled, device=device)
            block = look_around(index, space, landmark, number, rule)
            _write(path, block)
        blocks.append(block)
        progress.add(len(block.nearest))
    progress.end()
    return join_blocks(blocks)


def _read(path: Path | None) -> Block | None:
    """None where there is none, or where it is damaged: it is then made again."""
    if path is None:
        return None
    try:
        with np.load(path, allow_pickle=False) as content:
            found = {name: content[name] for name in content.files}
        own = {item.name: found[f"support_{item.name}"] for item in fields(Support)}
        return Block(Support(**own), *(found[item.name] for item in fields(Block) if item.name != "support"))
    except (FileNotFoundError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
        return None


def _write(path: Path | None, block: Block) -> None:
    if path is None:
        return
    arrays = {item.name: getattr(block, item.name) for item in fields(Block) if item.name != "support"}
    arrays |= {f"support_{item.name}": getattr(block.support, item.name) for item in fields(Support)}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_bytes(path, buffer.getvalue())
