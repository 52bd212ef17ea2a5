"""The simulated ATC, the converter of CANN: ``python -m ascend_sim.atc --model=... --framework=5 ...``.

It takes the flags of the real tool, checks them in its order, says what it says, and writes an om (see
:mod:`ascend_sim.omfile`) whose ONNX graph computes what the chip would: in float16 unless told otherwise,
with static AIPP in front. It reads ONNX only. Needs ``onnx`` and NumPy.
"""
