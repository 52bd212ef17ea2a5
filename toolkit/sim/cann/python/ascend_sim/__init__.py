"""The inside of a simulated Ascend board: its description, the om container, and the tools that run there.

Runs on Python 3.7 and newer, with NumPy and ONNX Runtime at most; knows nothing of the program that deploys to it.
"""
