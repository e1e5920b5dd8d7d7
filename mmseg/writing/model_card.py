"""The model card of a shared model, ``README.md``: what it is, how good, how it is used; the Hub reads its head."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from mmseg.compat import translate
from mmseg.model_folder import CONFIG
from mmseg.version import WRITER, __version__

_LISTED = 30  # classes in a table; more are counted and named in one paragraph
_RESEARCH_ONLY = ("mit_", "MixVisionTransformer")
_KINDS = {  # what a model does: task of the Hub, tag, words
    "objects": ("mask-generation", "video-object-segmentation", "follows objects from given masks through a video"),
    "moving": ("image-segmentation", "video-object-segmentation", "finds the object that moves in a video"),
    "classes": ("image-segmentation", "video-semantic-segmentation", "gives every pixel of a video its class"),
}


@dataclass
class ModelCard:
    """A card.

    Args:
        model: a video model.
        facts: the content of ``config.json``.
        name: title.
        address: what the examples call the model: the folder, or ``user/name``.
        scores: of a test, by name.
        license: identifier of the Hub; None: nothing is said.
    """

    model: nn.Module
    facts: Mapping[str, Any]
    name: str
    address: str
    scores: Mapping[str, float]
    license: str | None = None

    def text(self, num_weights: int) -> str:
        """The whole file; `num_weights` is how many numbers the weights are."""
        parts = (
            self._head(),
            self._title(num_weights),
            self._usage(),
            self._scores(),
            self._classes(),
            self._license(),
        )
        return "\n\n".join(part for part in parts if part) + "\n"

    def _head(self) -> str:
        """The YAML that the Hub reads; JSON is YAML, so that no name needs escapes of its own."""
        task, tag, _ = self._kind()
        system = self._system()
        head: dict[str, Any] = {
            "library_name": WRITER,
            "license": self.license or "other",
            "pipeline_tag": task,
            "tags": ["video-segmentation", tag, system.lower(), "pytorch"],
        }
        if self.license is None:
            head["license_name"] = "not-stated"
        lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in head.items()]
        if self.scores:
            metrics = [{"type": name, "name": name, "value": value} for name, value in self.scores.items()]
            data = {"type": self._data(), "name": self._data()}
            results = [{"task": {"type": task}, "dataset": data, "metrics": metrics}]
            index = [{"name": self.name, "results": results}]
            lines.append(f"model-index: {json.dumps(index, ensure_ascii=False)}")
        return "\n".join(["---", *lines, "---"])

    def _title(self, num_weights: int) -> str:
        backbone = (self._config("model").get("backbone") or {}).get("type")
        rows = {
            "system": self._system(),
            "backbone": backbone,
            "weights": f"{num_weights / 1e6:.1f} million",
            "classes": getattr(self.model, "num_classes", None),
            "iterations": self.facts.get("iter"),
            "data set": self._data(),
            "written by": f"{WRITER} {__version__}",
        }
        table = [f"| {name} | {_cell(value)} |" for name, value in rows.items() if value is not None]
        sentence = f"A {self._system()} model for video segmentation: it {self._kind()[2]}."
        return "\n".join([f"# {_line(self.name)}", "", sentence, "", "| | |", "|---|---|", *table])

    def _usage(self) -> str:
        """Five lines of Python, and the commands."""
        name = json.dumps(self.address, ensure_ascii=False)
        follows = self._kind()[1] != "video-semantic-segmentation" and "given" in (self.model.view_inputs or ())
        masks = ", masks=GivenMasks('first.png')" if follows else ""
        place = self.address if "/" not in self.address else f"hf://{self.address}"
        code = [
            *(["from mmseg.datasets.mask_inputs import GivenMasks"] if follows else []),
            "from mmseg.apis import SegmentOptions, from_pretrained, segment_video",
            "",
            f'model = from_pretrained({name}, device="cpu")  # a folder of this machine, or user/name on the Hub',
            f'done = segment_video(model, "video.mp4", "seen", SegmentOptions(save=("labels", "video"){masks}))',
            "print(done.folder, done.files)",
        ]
        extra = " --mask first.png" if follows else ""
        shell = [
            f"python tools/infer.py video.mp4 {shlex.quote(place)} --out seen{extra}",
            f"python tools/test.py {shlex.quote(place)} --options data_root=DATA --out res.pkl",
        ]
        return "\n".join(["## Use", "", "```python", *code, "```", "", "```bash", *shell, "```"])

    def _scores(self) -> str:
        if not self.scores:
            return ""
        rows = [f"| {_cell(name)} | {value:.4f} |" for name, value in self.scores.items()]
        intro = f"Of a test on {self._data() or 'the test data of its config'}, as `tools/test.py` gives them."
        return "\n".join(["## Scores", "", intro, "", "| score | value |", "|---|---|", *rows])

    def _classes(self) -> str:
        names = list(self.facts.get("CLASSES") or ())
        if not names:
            return ""
        if len(names) > _LISTED:
            return "\n".join(["## Classes", "", f"{len(names)}: " + ", ".join(map(_cell, names)) + "."])
        colours = list(self.facts.get("PALETTE") or ()) + [None] * len(names)
        rows = [f"| {i} | {_cell(n)} | {_hex(c)} |" for i, (n, c) in enumerate(zip(names, colours))]
        return "\n".join(["## Classes", "", "| label | class | colour |", "|---|---|---|", *rows])

    def _license(self) -> str:
        said = f"`{_line(self.license)}`" if self.license else "Not stated: ask whoever has trained the model."
        lines = ["## Licence", "", said]
        backbone = self._config("model").get("backbone") or {}
        kinds = [str(backbone.get(key, "")) for key in ("type", "ori_type")]
        if any(kind.startswith(_RESEARCH_ONLY) for kind in kinds):
            lines += [
                "",
                "Weights that were trained from NVIDIA's ImageNet weights of MiT (SegFormer) may be used for research "
                "only, whatever is said here.",
            ]
        return "\n".join(lines)

    def _config(self, section: str) -> Mapping[str, Any]:
        return self.facts[CONFIG].get(section) or {}

    def _system(self) -> str:
        """CFFM, MRCFA, GSFM ...: our name of the head, or of the model."""
        cfg = self._config("model")
        head = cfg.get("decode_head") or {}
        kind = translate("model", dict(head))["type"] if "type" in head else cfg.get("type", type(self.model).__name__)
        return _line(str(kind)).removesuffix("Head")

    def _data(self) -> str | None:
        test = self._config("data").get("test") or {}
        return None if "type" not in test else str(test["type"]).removesuffix("Dataset")

    def _kind(self) -> tuple[str, str, str]:
        inputs = self.model.view_inputs or ()
        return _KINDS["objects" if "given" in inputs else "moving" if self.model.takes_flow else "classes"]


def _line(text: Any) -> str:
    return " ".join(str(text).split())


def _cell(text: Any) -> str:
    """Text that does not end its cell of a table."""
    return _line(text).replace("|", "\\|").replace("<", "&lt;")


def _hex(colour: Any) -> str:
    return "" if colour is None else "`#{:02x}{:02x}{:02x}`".format(*(int(value) for value in colour))
