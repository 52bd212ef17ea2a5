"""ONNX operators that ATC has a parser for (the ONNX operator list of the CANN documentation), and opset
versions.
"""

# Registered for ai.onnx versions 8 to 18 ("ai.onnx::8::Div" ... "ai.onnx::18::Div"); the documents promise 11
# to 18.
LOWEST_OPSET, HIGHEST_OPSET = 8, 18

SUPPORTED = frozenset(
    """
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization BitShift
    Cast CastLike Ceil Celu Clip Compress Concat Constant ConstantOfShape Conv ConvTranspose Cos Cosh
    CumSum DepthToSpace DequantizeLinear Det Div Dropout Einsum Elu Equal Erf Exp Expand EyeLike Flatten
    Floor Gather GatherElements GatherND Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool Greater
    GreaterOrEqual GRU HardSigmoid HardSwish Hardmax Identity If InstanceNormalization
    LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax Loop LpNormalization LpPool LRN LSTM
    MatMul Max MaxPool MaxRoiPool MaxUnpool Mean MeanVarianceNormalization Min Mod Mul Multinomial Neg
    NonMaxSuppression NonZero Not OneHot Or Pad Pow PRelu QLinearConv QLinearMatMul QuantizeLinear
    RandomNormal RandomNormalLike RandomUniform RandomUniformLike Range Reciprocal ReduceL1 ReduceL2
    ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare
    Relu Reshape Resize ReverseSequence RNN RoiAlign Round Scan Scatter ScatterElements ScatterND Selu
    Shape Shrink Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt
    Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Upsample Where Xor
    GridSample
    """.split()
)

# Chips with a platform description (<name>.ini) in CANN's packages.
SOC_VERSIONS = frozenset(
    """
    Ascend310 Ascend310P1 Ascend310P3 Ascend310P5 Ascend310P7 Ascend310P3vir01 Ascend310P3vir02
    Ascend310P3vir04 Ascend310P3vir08 Ascend310B1 Ascend310B2 Ascend310B3 Ascend310B4 Ascend610
    Ascend910A Ascend910B Ascend910ProA Ascend910ProB Ascend910PremiumA Ascend910B1 Ascend910B2
    Ascend910B2C Ascend910B3 Ascend910B4 Ascend910B4-1 Ascend910_9362 Ascend910_9372 Ascend910_9381
    Ascend910_9382 Ascend910_9391 Ascend910_9392 Ascend710 Ascend910
    """.split()
)
# Beginning of a chip's name, the first CANN that knows it, the first that does not any more; the first that fits
# counts, and what fits none is taken by all. 310: the API pages of 8.3.RC1.alpha002 name its products for the last
# time. 310P, 710: inferred, Ascend710 became Ascend310P. 310B: inferred, the first images of the Atlas 200I DK A2
# have CANN 6.2, and owners' scripts convert for it with 6.2.RC2.
SOC_RANGES = (
    ("Ascend310P", "5.1.RC1", ""),
    ("Ascend310B", "6.2.RC1", ""),
    ("Ascend310", "", "8.3.RC1.alpha003"),
    ("Ascend710", "", "5.1.RC1"),
)
NANO_SOC_VERSIONS = ("Ascend035", "Ascend035A", "Ascend035B")
