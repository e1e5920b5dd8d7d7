"""Runs an exported model on the frames of a video, with NumPy and onnxruntime alone; a copy lies in every export.

runner = Runner("export")                  # the folder of model.json
for frame in video:                        # (C, H, W) float32, normalised as model.json says
    logits = runner.step(frame)            # (K, h, w)
"""

import hashlib
import importlib
import json
from pathlib import Path

import numpy as np

FORMAT = 1  # of model.json


def open_graph(path):
    """A function from the names of outputs and a dict of input arrays to the output arrays, of one ONNX file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=onnxruntime.get_available_providers()).run


class Runner:
    """One video; :meth:`reset` begins another one. A policy is a method ``_<kind>`` that takes a frame."""

    def __init__(self, folder, open_graph=open_graph, prototypes=None):
        self.about = read_export(folder)
        self.policy, self.graphs = self.about["policy"], self.about["graphs"]
        self.runs = {name: open_graph(Path(folder) / graph["file"]) for name, graph in self.graphs.items()}
        self.prototypes = prototypes  # (n, C) of CFFM++, if they are at hand
        self.reset()

    def reset(self):
        """Forget all frames."""
        self.count, self.memory, self.live = 0, {}, None

    def run(self, part, values, outputs=None):
        """The outputs of a graph, or those that are named, from a dict that holds its inputs."""
        outputs = list(outputs or self.graphs[part]["outputs"])
        inputs = {name: values[name] for name in self.graphs[part]["inputs"]}
        return dict(zip(outputs, self.runs[part](outputs, inputs)))

    def push(self, img, **inputs):
        """Take in the next frame (C, H, W): a list of (frame number, values), of this frame and earlier ones.

        Raises ValueError for a frame of another size or type, of which nothing is kept.
        """
        check("an input", img, (self.about["input"]["channels"], *self.about["input"]["size"]), np.float32)
        answers = getattr(self, f"_{self.policy['kind']}")(img[None], **inputs)
        self.count += 1
        return answers

    def finish(self):
        """What earlier frames still wait for, as from :meth:`push`; the next frame is the first of a video."""
        answers = self._rest_of_block() if self.policy["kind"] == "block" and self.memory else []
        self.reset()
        return answers

    @property
    def ids(self):
        """The object id of each row of the results, 0 for background; None: row k is class k."""
        if self.policy["kind"] != "objects":
            return None
        return (0, *(self.memory["followed"].ids if self.memory else ()))

    def step(self, img, **inputs):
        """The values (K, h, w) of the next frame (C, H, W). Raises ValueError if there are none, or they come late."""
        if self.policy.get("late"):
            raise ValueError("the results of this model come late: use push() and finish()")
        answers = self.push(img, **inputs)
        if answers[0][1] is None:
            raise ValueError(f"frame {self.count - 1}: nothing is followed yet: give a mask, step(img, given=labels)")
        return answers[0][1]

    def segment(self, frame):
        """The label map (H, W) uint8 of the next frame (H, W, 3) uint8 BGR; with flow (H, W, 6), its picture behind."""
        if "prepare" not in self.graphs:
            raise ValueError("this export has no graph for pictures: give push() inputs, as model.json says")
        check("a frame", frame, (*self.about["input"]["frame"], self.about["input"]["channels"]), np.uint8)
        img = self.run("prepare", {"frame": frame[None]})["img"][0]
        return self.run("labels", {"logits": self.step(img)[None]})["labels"][0]

    def _frame(self, img):
        return [(self.count, self.run("decode", {"img": img})["logits"][0])]

    def _clip(self, img):
        policy, early, kept = self.policy, self.policy["early"], self.policy["memory"]
        clip = early[self.count] if self.count < len(early) else [self.count + o for o in policy["offsets"]]
        part = "decode" if clip else "single"
        used = (*kept, *self.graphs[part]["inputs"], *self.graphs["decode"]["inputs"])
        needed = [name for name in self.graphs["embed"]["outputs"] if name in used]
        state = self.run("embed", {"img": img}, needed)
        references = {f"{name}_{k}": self.memory[t][name] for k, t in enumerate(clip) for name in kept}
        logits = self.run(part, {**state, **references, **self.context(state, wanted=bool(clip))})["logits"]
        self.memory[self.count] = {name: state[name] for name in kept}
        self.memory.pop(self.count - policy["keep"], None)
        return [(self.count, logits[0])]

    def context(self, state, wanted):
        """The prototypes of the video, if the model has them: those that are given, or those of the frames so far."""
        if "prototypes" not in self.policy:
            return {}
        if self.prototypes is not None:
            return {"prototypes": self.prototypes[None]}
        prototypes = _beside("runner_prototypes")
        self.live = self.live or prototypes.LivePrototypes(self.policy["prototypes"]["clusters"])
        self.live.observe(prototypes.rows_of(state["half"]))
        return {"prototypes": self.live.centers()[None]} if wanted else {}  # made of all frames until they are wanted

    def _block(self, img):
        clips = self.policy["clips"]
        self.memory[self.count] = self.run("embed", {"img": img})
        return self._decoded(clips) if len(self.memory) == sum(map(len, clips)) else []

    def _rest_of_block(self):
        length, size = len(self.memory), self.policy["rest"]
        return self._decoded([list(range(i, min(i + size, length))) for i in range(0, length, size)])

    def _decoded(self, clips):
        """Answers for all frames that wait, cut into clips; none waits any more."""
        (frames, states), self.memory, answers = zip(*self.memory.items()), {}, []
        for clip in clips:
            maps = {name: np.concatenate([states[i][name] for i in clip]) for name in self.policy["memory"]}
            answers += zip([frames[i] for i in clip], self.run("decode", maps)["scores"])
        return sorted(answers, key=lambda answer: answer[0])

    def _objects(self, img, given=None, objects=None):
        objects_policy = _beside("runner_objects")
        followed = self.memory.setdefault("followed", objects_policy.Followed(self))
        return [(self.count, followed.take(self.count, img, given, objects))]


def check(name, array, shape, kind):
    """Raises ValueError unless an array has the shape and the type that the graphs were made for."""
    found = np.asarray(array)
    if found.shape != tuple(shape) or found.dtype != kind:
        graphs = f"graphs of {tuple(shape)} {np.dtype(kind)}"
        raise ValueError(f"{name} of {found.shape} {found.dtype} for {graphs}: another size needs another export")


def _beside(name):
    """A file beside this one that some policies need."""
    return importlib.import_module(f"{__package__}.{name}" if __package__ else name)


def read_export(folder):
    """model.json of an export. Raises ValueError if the graphs are not those that it was written with."""
    about = json.loads((Path(folder) / "model.json").read_text())
    found = about.get("format") if isinstance(about, dict) else None
    if found != FORMAT:
        raise ValueError(f"{folder}/model.json has format {found}, this runner reads {FORMAT}: export again")
    for graph in about["graphs"].values():
        if hashlib.sha256((Path(folder) / graph["file"]).read_bytes()).hexdigest() != graph["sha256"]:
            raise ValueError(f"{folder}/{graph['file']} is not the file that model.json speaks of: export again")
    return about
