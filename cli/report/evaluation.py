"""The report of an evaluation, put together from what the index room found."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from index.evaluation import Evaluation, Queries
    from index.folder import IndexFolder
