"""Runs an exported model on the frames of a video, with NumPy and onnxruntime alone; a copy lies in every export.

runner = Runner("export")                  # the folder of model.json
for frame in video:                        # (C, H, W) float32, normalised as model.json says
    logits = runner.step(frame)            # (K, h, w)
"""

import hashlib
import importlib
import json
from pathlib import Path

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
        """Take in the next frame (C, H, W): a list of (frame number, values), of this frame and earlier ones."""
        answers = getattr(self, f"_{self.policy['kind']}")(img[None], **inputs)
        self.count += 1
        return answers

    def finish(self):
        """What earlier frames still wait for, as from :meth:`push`; the next frame is the first of a video."""
        self.reset()
        return []

    def step(self, img, **inputs):
        """The values (K, h, w) of the next frame (C, H, W)."""
        [(_, values)] = self.push(img, **inputs)
        return values

    def segment(self, frame):
        """The label map (H, W) uint8 of the next frame (H, W, 3) uint8 BGR; with flow (H, W, 6), its picture behind."""
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
        logits = self.run(part, {**state, **references, **self.context(state)})["logits"]
        self.memory[self.count] = {name: state[name] for name in kept}
        self.memory.pop(self.count - policy["keep"], None)
        return [(self.count, logits[0])]

    def context(self, state):
        """The prototypes of the video, if the model has them: those that are given, or those of the frames so far."""
        if "prototypes" not in self.policy:
            return {}
        if self.prototypes is not None:
            return {"prototypes": self.prototypes[None]}
        prototypes = _prototypes()
        self.live = self.live or prototypes.LivePrototypes(self.policy["prototypes"]["clusters"])
        self.live.observe(prototypes.rows_of(state["half"]))
        return {"prototypes": self.live.centers()[None]}


def _prototypes():
    """The file beside this one that makes prototypes."""
    return importlib.import_module(f"{__package__}.runner_prototypes" if __package__ else "runner_prototypes")


def read_export(folder):
    """model.json of an export. Raises ValueError if the graphs are not those that it was written with."""
    about = json.loads((Path(folder) / "model.json").read_text())
    if about["format"] != FORMAT:
        raise ValueError(f"{folder}/model.json has format {about['format']}, this runner reads {FORMAT}: export again")
    for graph in about["graphs"].values():
        if hashlib.sha256((Path(folder) / graph["file"]).read_bytes()).hexdigest() != graph["sha256"]:
            raise ValueError(f"{folder}/{graph['file']} is not the file that model.json speaks of: export again")
    return about
