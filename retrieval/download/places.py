"""Where a picture is kept, and where it is while it is not whole."""

import os
from pathlib import Path

from retrieval.download.rules import Layout

WORK_FOLDER = ".lmr-partial"  # in the images folder: files that are not whole; emptied by the next run


class Places:
    """File names below an images folder, as the other commands look for them."""

    def __init__(self, images: Path, layout: Layout) -> None:
        self.images = images
        self.work = images / WORK_FOLDER
        self._root, self._layout = str(images), layout

    def path(self, image_id: str) -> str:
        """Raises ValueError for an id that leads out of the folder or into its work folder."""
        parts = image_id.replace("\\", "/").split("/")
        if not {"", ".", ".."}.isdisjoint(parts) or "\0" in image_id or parts[0] == WORK_FOLDER:
            raise ValueError(f"image_id {image_id!r} leads out of the images folder")
        if self._layout == "google" and len(image_id) >= 3 and len(parts) == 1:
            return os.path.join(self._root, *image_id[:3], f"{image_id}.jpg")
        return os.path.join(self._root, f"{image_id}.jpg")

    def make_work_folder(self) -> None:
        """Made anew: what a killed run left in it is removed."""
        self.work.mkdir(parents=True, exist_ok=True)
        for path in self.work.iterdir():
            path.unlink()

    def remove_work_folder(self) -> None:
        """At the end of a run, when nothing needs it any more; also one that a killed run left."""
        if not self.work.exists():
            return
        for path in self.work.iterdir():
            path.unlink()
        self.work.rmdir()
