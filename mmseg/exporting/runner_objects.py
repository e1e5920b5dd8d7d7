"""The policy of models that follow objects (GSFM) with NumPy alone; a copy lies in the exports that need it.

As :mod:`mmseg.models.networks.gsfm.tracking`, which says why; objects cannot be removed.
"""

import numpy as np


class Followed:
    """The objects of one video and what is remembered of them.

    Objects that came on the same frame are a group: they have the same frames in memory.
    """

    def __init__(self, runner):
        self.run, self.policy = runner.run, runner.policy
        self.groups = []  # (ids, Bank), in order of appearance
        self.pending, self.last_memory = None, 0

    @property
    def ids(self):
        """Their ids, in order of appearance; row k + 1 of the results is about the k-th."""
        return [number for ids, _ in self.groups for number in ids]

    def take(self, number, img, given=None, objects=None):
        """Probabilities (k + 1, H, W) of background and objects for frame `number`, None if nothing is followed yet.

        Args:
            img: (1, 3, H, W).
            given: (H, W) whole numbers, a mask that is shown with the frame.
            objects: ids that it speaks about; None: those that occur in it.
        """
        policy = self.policy
        left, right, top, bottom = policy["margins"]
        new = self._checked(number, img, given, objects)
        self._remember()
        if not self.groups and not new:
            return None
        state = {"img": img, **self.run("embed", {"img": img})}
        probabilities = self._predicted(state)
        if given is not None:
            labels = np.pad(np.asarray(given), ((top, bottom), (left, right)))
            probabilities = self._with_given(probabilities, labels, new)
        due = given is not None or number - self.last_memory >= policy["mem_every"]
        if due:
            self.last_memory = number
        if due or policy["include_last"]:
            # copies: the caller may write into the frame and the results
            self.pending = ({**state, "img": img.copy()}, probabilities[1:].copy(), not due)
        height, width = probabilities.shape[1:]
        return probabilities[:, top : height - bottom, left : width - right]

    def _checked(self, number, img, given, objects):
        """The ids that a mask speaks about."""
        if given is None:
            return []
        given, largest = np.asarray(given), self.policy["largest_id"]
        if given.shape != img.shape[2:]:
            raise ValueError(f"frame {number}: a mask {given.shape} for a frame {img.shape[2:]}: resize it")
        if given.dtype.kind not in "iu":
            raise ValueError(f"frame {number}: a mask of {given.dtype}: it must be whole numbers, one for each object")
        ids = list(dict.fromkeys(map(int, np.unique(given) if objects is None else objects)))
        ids = [i for i in ids if i]
        if wrong := [i for i in ids if not 0 < i <= largest]:
            raise ValueError(f"frame {number}: object ids {wrong[:5]}, not 1 to {largest}: renumber the objects")
        return ids

    def _predicted(self, state):
        """(k + 1, H, W) of the objects that are followed; None without any."""
        if not self.groups:
            return None
        readouts = [self.run("read", {**state, **bank.content()})["readout"] for _, bank in self.groups]
        return self.run("decode", {**state, "readout": np.concatenate(readouts)})["probabilities"]

    def _with_given(self, probabilities, labels, ids):
        """`probabilities` with what a mask says in their place; new objects are followed from now on."""
        masks = np.zeros((0, *labels.shape), np.float32) if probabilities is None else probabilities[1:]
        if new := [i for i in ids if i not in self.ids]:
            self.groups.append((new, Bank(self.policy["max_memory_frames"])))
        masks = np.concatenate([masks, np.zeros((len(new), *labels.shape), np.float32)])
        masks[:, np.isin(labels, ids)] = 0
        for i in ids:
            masks[self.ids.index(i)] = labels == i
        return aggregate(masks, self.policy["clamp"])

    def _remember(self):
        """Put the frame before this one into the memory, if that is due."""
        if self.pending is None:
            return
        (state, masks, temporary), self.pending = self.pending, None
        values, row = self.run("remember", {**state, "masks": masks})["memory_values"], 0
        for ids, bank in self.groups:
            bank.add(state["key"], values[:, row : row + len(ids)], temporary)
            row += len(ids)


class Bank:
    """Frames in memory: permanent ones, and at most one that the next one replaces."""

    def __init__(self, max_frames):
        self.max_frames, self.permanent, self.temporary, self.joined = max_frames, [], [], None
        self.oldest = 1  # of those that may leave

    def add(self, keys, values, temporary):
        """Remember keys (P, C) and values (P, k, D) of a frame; the first one always stays."""
        self.temporary, self.joined = [], None
        if temporary and self.permanent:
            self.temporary = [(keys, values)]
        elif self.max_frames is None or len(self.permanent) < self.max_frames:
            self.permanent.append((keys, values))
        elif self.max_frames > 1:
            self.permanent[self.oldest] = (keys, values)
            self.oldest = self.oldest % (self.max_frames - 1) + 1

    def content(self):
        """All frames as inputs of `read`."""
        if self.joined is None:
            keys, values = zip(*self.permanent, *self.temporary)
            self.joined = {"memory_keys": np.stack(keys), "memory_values": np.stack(values)}
        return self.joined


def aggregate(masks, clamp):
    """Probabilities (k + 1, H, W) of background and objects from those (k, H, W) of objects by themselves."""
    p = np.concatenate([np.prod(1 - masks, axis=0, keepdims=True), masks]).clip(clamp, 1 - clamp)
    odds = p / (1 - p)
    return odds / odds.sum(0)
