"""A vector database in memory, which may die before any change that it is asked for."""

import numpy as np

from index.search.engine import Proposed
from retrieval.errors import LmrError


class KilledError(Exception):
    """Stands for the end of the process."""


class FakeEngine:
    """Rows and texts in dictionaries. lives: changes until it dies, None = it lives on. most: rows of one search."""

    def __init__(self, most=1000, kinds=("flat", "hnsw")):
        self.most, self.kinds, self.lives = most, kinds, None
        self.rows, self.texts, self.fields, self.lengths = {}, {}, {}, {}
        self.alias, self.built, self.asked = {}, {}, []

    def change(self):
        if self.lives is not None:
            self.lives -= 1
            if self.lives < 0:
                raise KilledError

    def told(self):
        return "Fake 1"

    def require_kind(self, kind):
        if kind not in self.kinds:
            raise LmrError(f"no {kind}")

    def held(self, name):
        name = self.alias.get(name, name)
        found = "rows" if name in self.rows else "files" if name in self.texts else "nothing"
        return "other" if self.fields.get(name) == "other" else found

    def create(self, name, d, fields):
        self.change()
        if fields:
            self.rows[name], self.fields[name], self.lengths[name] = {}, tuple(fields), d
        else:
            self.texts[name] = {}

    def drop(self, name):
        self.change()
        for kept in (self.rows, self.texts, self.fields, self.built):
            kept.pop(name, None)

    def publish(self, name, target):
        self.change()
        self.alias[name] = target

    def write(self, name, batch):
        self.change()
        for i, texts in enumerate(zip(batch.image_id, batch.landmark_id, strict=True)):
            vectors = {field: values[i].copy() for field, values in batch.vectors.items()}
            self.rows[name][batch.first + i] = (vectors, *texts)

    def count(self, name):
        return len(self.rows[name])

    def length(self, name, field):
        return self.lengths[name]

    def build(self, name, fields, kind, n):
        self.change()
        self.built[name] = kind
        assert len(self.rows[name]) == n

    def propose(self, name, field, queries, width, effort):
        rows = np.array(sorted(self.rows[name]), dtype=np.int64)
        vectors = np.stack([self.rows[name][row][0][field] for row in rows.tolist()])
        scores = queries @ vectors.T
        # Not by row where scores are equal, as a server may have it; and with little effort not all that are near.
        order = np.lexsort((-np.arange(len(rows))[None] + 0 * scores, -scores), axis=-1)
        if self.built[name] == "hnsw" and effort < 64:
            order = order[:, ::-1]
        order = order[:, :width]
        return Proposed(rows[order], np.take_along_axis(scores, order, 1).astype(np.float32), vectors[order])

    def vectors(self, name, field, rows):
        return np.stack([self.rows[name][row][0][field] for row in rows.tolist()])

    def put(self, name, texts):
        self.change()
        assert all(len(text) <= 60_000 for text in texts.values())
        self.texts[name] |= texts

    def get(self, name, keys):
        self.asked += keys
        return {key: self.texts[name][key] for key in keys if key in self.texts[name]}

    def there(self, name, keys):
        return {key for key in keys if key in self.texts[name]}

    def delete(self, name, keys):
        self.change()
        for key in keys:
            self.texts[name].pop(key, None)
