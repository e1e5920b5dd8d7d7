"""Seconds a frame of a stream in PyTorch and of its export in onnxruntime and OpenVINO, frame by frame in turns.

python -m tests.exporting.graph_speed CONFIG EXPORT THREADS [FRAMES]

The weights are random: those of `tools/export.py CONFIG none`.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from statistics import median

import onnxruntime
import torch

from mmseg.apis import init_segmentor
from mmseg.config import load_config
from mmseg.evaluation.tables import text_table
from mmseg.exporting import openvino_graphs
from mmseg.exporting.exported_model import ExportedModel
from mmseg.structures import View

FIRST = 4  # frames that are not measured: the first ones have no references, and engines prepare themselves


def onnx_graph(path, threads):
    """As that of the runner, with a number of threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]).run


def measure(config: str, export: str, threads: int, frames: int = 6) -> str:
    """A table of frames from the network's input to logits before they are resized."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    models = {
        "PyTorch": init_segmentor(load_config(config), None),
        "onnxruntime": ExportedModel(export, partial(onnx_graph, threads=threads)),
        "OpenVINO": ExportedModel(export, partial(openvino_graphs.open_graph, INFERENCE_NUM_THREADS=threads)),
    }
    size = models["OpenVINO"].size
    streams = {name: model.stream() for name, model in models.items()}
    wall, used = ({name: [] for name in models} for _ in range(2))
    largest, generator = dict.fromkeys(models, 0.0), torch.Generator().manual_seed(0)
    for number in range(FIRST + frames):
        img, expected = torch.randn(3, *size, generator=generator), None
        for name, stream in streams.items():
            begin = time.perf_counter(), time.process_time()
            with torch.inference_mode():
                [scores] = stream.push(View(number, {"img": img}))
            wall[name].append(time.perf_counter() - begin[0])
            used[name].append(time.process_time() - begin[1])
            expected = scores.values if expected is None else expected
            largest[name] = max(largest[name], float((scores.values - expected).abs().max()))
        taken = ", ".join(f"{name} {wall[name][-1]:.3f} ({used[name][-1]:.3f} CPU)" for name in models)
        print(f"frame {number}: {taken}", file=sys.stderr, flush=True)
    rows = [
        [
            name, f"{median(wall[name][FIRST:]):.3f}", f"{1 / median(wall[name][FIRST:]):.2f}",
            f"{min(wall[name][FIRST:]):.3f}", f"{median(used[name][FIRST:]):.3f}", f"{largest[name]:.1e}",
        ]
        for name in models
    ]  # fmt: skip
    header = ["", "s a frame (median)", "frames/s", "fastest", "CPU s (median)", "largest difference"]
    return f"{threads} thread(s), {size[0]}x{size[1]}, {frames} frames\n{text_table(header, rows)}"


if __name__ == "__main__":
    config, export, *numbers = sys.argv[1:]
    print(measure(config, export, *map(int, numbers)))
