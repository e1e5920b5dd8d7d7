"""Seconds a frame of a stream in PyTorch and of its export in onnxruntime and OpenVINO, frame by frame in turns; in
bfloat16 too where the processor has it.

python -m tests.exporting.graph_speed CONFIG EXPORT THREADS [FRAMES]

The weights are random: those of `tools/export.py CONFIG none`.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from statistics import mean, median

import onnxruntime
import torch

from mmseg.apis import init_segmentor
from mmseg.config import load_config
from mmseg.evaluation.tables import text_table
from mmseg.exporting import openvino_graphs
from mmseg.exporting.exported_model import ExportedModel
from mmseg.models.base import VideoModel
from mmseg.structures import View

FIRST = 4  # frames that are not measured: the first ones have no references, and engines prepare themselves


def onnx_graph(path, threads):
    """As that of the runner, with a number of threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]).run


def networks(config: str, export: str, threads: int) -> dict[str, VideoModel]:
    """What is measured, by name; float32 in PyTorch first."""
    torch.manual_seed(0)
    model = init_segmentor(load_config(config), None)
    settings = {"INFERENCE_NUM_THREADS": threads}
    found = {
        "PyTorch": model,
        "onnxruntime": ExportedModel(export, partial(onnx_graph, threads=threads)),
        "OpenVINO": ExportedModel(export, partial(openvino_graphs.open_graph, **settings)),
    }
    if openvino_graphs.has_bfloat16():
        found["PyTorch, bfloat16"] = model.in_bfloat16()
        found["OpenVINO, bfloat16"] = ExportedModel(
            export, partial(openvino_graphs.open_graph, precision="bfloat16", **settings)
        )
    return found


def measure(config: str, export: str, threads: int, frames: int = 6) -> str:
    """A table of frames from the network's input to logits before they are resized."""
    torch.set_num_threads(threads)
    models = networks(config, export, threads)
    size, place = models["OpenVINO"].size, {name: next(model.parameters()) for name, model in models.items()}
    streams = {name: model.stream() for name, model in models.items()}
    wall, used, alike = ({name: [] for name in models} for _ in range(3))
    largest, generator = dict.fromkeys(models, 0.0), torch.Generator().manual_seed(0)
    for number in range(FIRST + frames):
        img, expected = torch.randn(3, *size, generator=generator), None
        for name, stream in streams.items():
            begin = time.perf_counter(), time.process_time()
            with torch.inference_mode():
                [scores] = stream.push(View(number, {"img": img.to(place[name].dtype)}))
            wall[name].append(time.perf_counter() - begin[0])
            used[name].append(time.process_time() - begin[1])
            values = scores.values.float()
            expected = values if expected is None else expected
            largest[name] = max(largest[name], float((values - expected).abs().max()))
            alike[name].append(float((values.argmax(0) == expected.argmax(0)).double().mean()))
        taken = ", ".join(f"{name} {wall[name][-1]:.3f} ({used[name][-1]:.3f} CPU)" for name in models)
        print(f"frame {number}: {taken}", file=sys.stderr, flush=True)
    rows = [
        [
            name, f"{median(wall[name][FIRST:]):.3f}", f"{1 / median(wall[name][FIRST:]):.2f}",
            f"{min(wall[name][FIRST:]):.3f}", f"{median(used[name][FIRST:]):.3f}", f"{largest[name]:.1e}",
            f"{mean(alike[name]):.2%}",
        ]
        for name in models
    ]  # fmt: skip
    header = ["", "s a frame (median)", "frames/s", "fastest", "CPU s (median)", "largest difference", "same labels"]
    return f"{threads} thread(s), {size[0]}x{size[1]}, {frames} frames\n{text_table(header, rows)}"


if __name__ == "__main__":
    config, export, *numbers = sys.argv[1:]
    print(measure(config, export, *map(int, numbers)))
