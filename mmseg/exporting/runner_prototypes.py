"""Prototypes of CFFM++ with NumPy alone, for the runner; a copy lies in the exports that need it.

As :mod:`mmseg.models.decode_heads.cffm.video_prototypes`, but for the random numbers: the first centres are other rows.
"""

import numpy as np


class LivePrototypes:
    """Prototypes of the frames so far, made anew after frames 1, 2, 4, 8 ... of a bounded sample of their rows."""

    def __init__(self, clusters, max_rows=8192, seed=0):
        self.clusters, self.max_rows, self.frames = clusters, max_rows, 0
        self.random, self.rows, self.found = np.random.default_rng(seed), None, None

    def observe(self, rows):
        """Take notice of the rows (n, C) of the next frame."""
        self.frames += 1
        new = self.draw(rows, self.max_rows // self.frames)
        self.rows = new if self.rows is None else np.concatenate([self.draw(self.rows, self.max_rows - len(new)), new])
        if self.frames & (self.frames - 1) == 0:
            self.found = None

    def centers(self):
        """The present prototypes (n, C)."""
        if self.found is None:
            self.found = kmeans(self.rows, self.clusters, self.random)
        return self.found

    def draw(self, rows, count):
        return rows[self.random.permutation(len(rows))[: max(count, 1)]]


def kmeans(rows, clusters, random, iterations=10, tolerance=1e-4):
    """Centres (n, C) of rows (m, C); a cluster without members becomes the zero vector."""
    distinct = np.unique(rows, axis=0)
    centers = distinct[random.permutation(len(distinct))[:clusters]]
    for _ in range(iterations):
        nearest = (2 * rows @ centers.T - (centers**2).sum(1)).argmax(1)
        sums, counts = np.zeros_like(centers), np.bincount(nearest, minlength=len(centers))
        np.add.at(sums, nearest, rows)
        before, centers = centers, sums / np.maximum(counts, 1)[:, None].astype(rows.dtype)
        if ((centers - before) ** 2).sum() <= tolerance:
            break
    return centers


def video_prototypes(runner, frames):
    """The prototypes of a whole video, from some of its frames (C, H, W), ten of them spread over it as published."""
    rows = [rows_of(runner.run("embed", {"img": frame[None]}, ["half"])["half"]) for frame in frames]
    return kmeans(np.concatenate(rows), runner.policy["prototypes"]["clusters"], np.random.default_rng(0))


def rows_of(maps):
    """(1, C, h, w) -> (h * w, C)."""
    return maps[0].reshape(maps.shape[1], -1).T
