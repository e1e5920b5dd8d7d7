"""Models out of the house: ONNX graphs of their parts, the policy around them, and a runner that needs no PyTorch."""
