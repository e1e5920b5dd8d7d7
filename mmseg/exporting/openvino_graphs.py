"""Opens the graphs of an export with OpenVINO, for the runner; a copy lies in every export.

runner = Runner("export", open_graph)
"""

import threading


def open_graph(path, **settings):
    """As that of the runner: from the names of outputs and a dict of input arrays to the output arrays, on the CPU.

    Numbers are float32, also where the processor has bfloat16, which OpenVINO would take by itself. Threads may share
    the function. `settings` are further ones of OpenVINO, as INFERENCE_NUM_THREADS=1.
    """
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY", **settings}
    compiled = openvino.Core().compile_model(str(path), "CPU", settings)
    own = threading.local()  # a request has the tensors of one inference

    def run(outputs, inputs):
        if not hasattr(own, "request"):
            own.request = compiled.create_infer_request()
        found = own.request.infer(inputs)
        return [found[name] for name in outputs]

    return run
