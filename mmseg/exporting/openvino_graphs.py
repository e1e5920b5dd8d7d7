"""Opens the graphs of an export with OpenVINO, for the runner; a copy lies in every export.

runner = Runner("export", open_graph)
runner = Runner("export", partial(open_graph, precision="bfloat16"))  # functools.partial
"""

import threading

HINTS = {"float32": "f32", "bfloat16": "bf16"}


def has_bfloat16():
    """Whether the CPU has instructions for bfloat16, without which OpenVINO would imitate or ignore it."""
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def open_graph(path, precision="float32", **settings):
    """As that of the runner: from the names of outputs and a dict of input arrays to the output arrays, on the CPU.

    Numbers are float32, also where the processor has bfloat16, which OpenVINO would take by itself; with `precision`
    "bfloat16" most are, and inputs and outputs still float32. Threads may share the function. `settings` are further
    ones of OpenVINO, as INFERENCE_NUM_THREADS=1. Raises ValueError for another precision, or bfloat16 on a processor
    without it.
    """
    import openvino

    if precision not in HINTS:
        raise ValueError(f"precision {precision!r}: expected {' or '.join(HINTS)}")
    if precision == "bfloat16" and not has_bfloat16():
        raise ValueError("precision 'bfloat16' on a processor without it: leave it out")
    settings = {"INFERENCE_PRECISION_HINT": HINTS[precision], "PERFORMANCE_HINT": "LATENCY", **settings}
    compiled = openvino.Core().compile_model(str(path), "CPU", settings)
    own = threading.local()  # a request has the tensors of one inference

    def run(outputs, inputs):
        if not hasattr(own, "request"):
            own.request = compiled.create_infer_request()
        found = own.request.infer(inputs)
        return [found[name] for name in outputs]

    return run
