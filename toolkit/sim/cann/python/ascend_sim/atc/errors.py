"""What ATC says when it fails: the catalogue of its errors and the three layouts in which it printed them.

Codes, titles, wording and advice follow hicann/ge ``base/common/error_registry/error_registry.cc``; the
layout follows hicann/runtime ``src/dfx/error_manager/error_manager.cc`` (newest) and logs that users of CANN
5 to 8 published: up to 7.x a block begins ``E10001: Value [...]``, in 8.0 to 8.3 ``E10001: [PID: n] <time>
Value [...]``, since 8.5 ``[PID: n] <time> Invalid_Argument(E10001): Value ...``.
"""

import datetime
import os
import re
from typing import NamedTuple, Tuple

from .. import board as boards


class Entry(NamedTuple):
    """One registered error: what it is called, its template (``%s`` for the arguments), cause and
    solution.
    """

    title: str
    message: str
    solution: str = ""
    cause: str = ""


_DYNAMIC = "Invalid_Argument_Tensor_Dynamic_Shape"
_SHAPE = "Invalid_Argument_Tensor_Input_Shape"
_ARGUMENT = "Invalid_Argument"
_VALID = "Set a valid parameter value."
_ONE_OF_GEARS = "--dynamic_batch_size, --dynamic_image_size, or --dynamic_dims"

CATALOGUE = {
    "E10001": Entry(
        _ARGUMENT, "Value %s for parameter %s is invalid. Reason: %s", "Try again with a valid argument."
    ),
    "E10002": Entry(
        _SHAPE,
        "Value %s for parameter --input_shape is invalid. Reason: %s. The value must be formatted as %s.",
        "The valid format is input_name1:n1,c1,h1,w1;input_name2:n2,c2,h2,w2. Replace input_name with node "
        "names. "
        "Ensure that the shape values are integers.",
    ),
    "E10003": Entry(_ARGUMENT, "Value %s for parameter --%s is invalid. Reason: %s"),
    "E10004": Entry(_ARGUMENT, "Value for --%s is empty.", _VALID),
    "E10005": Entry(
        _ARGUMENT,
        "Value %s for parameter --%s is invalid. The value must be either true or false.",
        "Set a valid parameter value. The parameter value can only be true or false.",
    ),
    "E10006": Entry(
        _ARGUMENT,
        "Value %s for parameter --%s is invalid. The value must be either 1 or 0.",
        "Set a valid parameter value. The parameter value can only be 1 or 0.",
    ),
    "E10007": Entry(_ARGUMENT, "--%s is required. The value must be %s.", _VALID),
    "E10008": Entry(
        _ARGUMENT,
        "--weight must not be empty when --framework is set to 0 (Caffe).",
        "1. If the source model framework is Caffe, try again with a valid --weight argument.  2. If the "
        "source "
        "model framework is not Caffe, try again with a valid --framework argument.",
    ),
    "E10009": Entry(
        _DYNAMIC,
        "--dynamic_batch_size, --dynamic_image_size, --input_shape_range, and --dynamic_dims are mutually "
        "exclusive.",
        "1. In dynamic shape scenarios, include only one of these options in your command line.  2. In "
        "static shape "
        "scenarios, remove these options from your command line.",
    ),
    "E10010": Entry(
        _ARGUMENT,
        "Value %s for parameter --log is invalid.",
        "Select the value from debug, info, warning, error, and null.",
    ),
    "E10011": Entry(
        _SHAPE,
        "Value %s for parameter --input_shape is invalid. Shape values must be positive integers. The "
        "error value in "
        "the shape is %s.",
        "1. In static shape scenarios, set the shape values in --input_shape to positive integers. 2. In "
        "dynamic "
        "shape scenarios, add the related dynamic-input option in your command line, such as "
        "--dynamic_batch_size, "
        "--dynamic_image_size, or --dynamic_dims.",
    ),
    "E10012": Entry(
        _SHAPE,
        "--dynamic_batch_size is included, but the dimension count of the dynamic-shape input configured in "
        "--input_shape is less than 1.",
        "1. In static shape scenarios, remove the --dynamic_batch_size option from your command line. 2. "
        "In dynamic "
        "shape scenarios, set the corresponding axis of the dynamic-shape input in --input_shape to -1.",
    ),
    "E10013": Entry(
        _ARGUMENT,
        "Value %s for --%s is out of range.",
        'Run the "atc -h" command to view the usage. For details, see ATC Instructions.',
    ),
    "E10014": Entry(
        _ARGUMENT,
        "Value %s for parameter --%s is invalid.",
        'Run the "atc -h" command to view the usage. For details, see ATC Instructions.',
    ),
    "E10016": Entry(
        "Invalid_Argument_Operator_Name",
        "Opname %s specified in --%s is not found in the model. Confirm whether this node name exists, or "
        "the node "
        "is not split with the specified delimiter ';'.",
        "Specify the name of an existing node in the graph.",
    ),
    "E10017": Entry(_ARGUMENT, "Input Op %s specified in --%s is invalid. The Op type must be Data."),
    "E10018": Entry(
        _DYNAMIC,
        "Value %s for shape %s is invalid. When --dynamic_batch_size is included, only batch size N can be "
        "-1 in "
        "--input_shape.",
        "Try again with a valid --input_shape argument. Make sure that non-batch size axes are not -1.",
    ),
    "E10019": Entry(
        _SHAPE,
        "When --dynamic_image_size is included, only the height and width axes can be -1 in --input_shape.",
        "Try again with a valid --input_shape argument. Make sure that axes other than height and width "
        "are not -1.",
    ),
    "E10020": Entry(
        _ARGUMENT,
        "Value %s for parameter --dynamic_image_size is invalid.",
        'The value must be formatted as "imagesize1_height,imagesize1_width;imagesize2_height,'
        'imagesize2_width". '
        "Make sure that each profile has two dimensions.",
    ),
    "E10021": Entry(
        _ARGUMENT,
        "Path for parameter --%s is too long. Keep the length within %s.",
        "The path name exceeds the maximum length. Specify a valid path name.",
    ),
    "E10022": Entry(
        _ARGUMENT,
        "Path %s for parameter --%s does not include the file name.",
        "Add the file name to the path.",
    ),
    "E10031": Entry(
        _SHAPE,
        "--dynamic_batch_size is included, but none of the nodes specified in --input_shape has a batch size "
        "equaling -1.",
        "1. In static shape scenarios, remove the --dynamic_batch_size option from your command line. 2. "
        "In dynamic "
        "shape scenarios, set the corresponding axis of the dynamic-shape input in --input_shape to -1.",
        "As --dynamic_batch_size is included, ensure that at least one of the nodes specified in "
        "--input_shape has a "
        "batch size equaling -1.",
    ),
    "E10034": Entry(
        _ARGUMENT,
        "Nodes (for example, %s) connected to AIPP must not be of type fp16.",
        "1. To enable AIPP, remove the nodes connected to AIPP from the --input_fp16_nodes argument.  2. "
        "If AIPP is "
        "not required, remove the --insert_op_conf option from your ATC command line.",
    ),
    "E10035": Entry(
        _DYNAMIC,
        _ONE_OF_GEARS + " has %s profiles, which is less than the minimum %s.",
        "Ensure that the number of profiles configured in " + _ONE_OF_GEARS + " is at least the minimum.",
    ),
    "E10036": Entry(
        _DYNAMIC,
        _ONE_OF_GEARS + " has %s profiles, which is greater than the maximum %s.",
        "Ensure that the number of profiles configured in " + _ONE_OF_GEARS + " is at most the maximum.",
    ),
    "E10038": Entry(
        _DYNAMIC,
        "Dimension size %s is invalid. The value must be greater than 0.",
        "Set the shape values of each profile to positive in " + _ONE_OF_GEARS + ".",
    ),
    "E10039": Entry(
        _DYNAMIC,
        "The " + _ONE_OF_GEARS + " argument have duplicate profiles.",
        "Check that the profiles configured in " + _ONE_OF_GEARS + " are unique.",
    ),
    "E10040": Entry(
        _SHAPE,
        "As the "
        + _ONE_OF_GEARS
        + " argument is included, the corresponding nodes specified in --input_shape must "
        "have -1 axes and cannot have '~'.",
        "In dynamic multi-batch scenarios, set the corresponding axis of the dynamic-shape input in "
        "--input_shape to "
        "-1.",
    ),
    "E10041": Entry(
        "Invalid_Argument_Model",
        "Failed to load the model from %s.",
        "1. Check that the model file is valid. 2. Check that the weight file or path is valid when the "
        "model is "
        "more than 2 GB. 3. Check that the --framework argument matches the actual framework of the model "
        "file.",
    ),
    "E10047": Entry(
        _ARGUMENT, "--%s and --%s are mutually exclusive.", "Remove either of them and try again."
    ),
    "E10049": Entry(
        _SHAPE,
        "Dimension count %s configured in --input_shape does not match dimension count %s of the node.",
        "Set the dimension count in --input_shape according to the dimension count of the node.",
    ),
    "E10052": Entry(_ARGUMENT, "AIPP configuration is invalid. Reason: %s."),
    "E10054": Entry(
        _ARGUMENT,
        "The required parameter %s for ATC is empty. Another possible reason is that the values of some "
        "parameters "
        'are not enclosed by quotation marks ("").',
        "Check whether the command line parameter format is correct.",
    ),
    "E10055": Entry(
        "Not_Supported",
        "The operation is not supported. Reason: %s.",
        "Check whether the configured parameter or used function is supported.",
    ),
    "E10056": Entry(
        _ARGUMENT,
        "Cannot configure both parameters %s and %s simultaneously.",
        "The two parameters cannot be set at the same time. View the parameter descriptions by referring "
        "to the "
        "documentation.",
    ),
    "E10057": Entry(
        _ARGUMENT,
        "--%s and --%s can only be used together",
        "If the value of --mode is 6, it only needs to be used with --om. Please check and try again.",
    ),
    "E10058": Entry(_ARGUMENT, "Parameter %s is not configured or is empty."),
    "E11016": Entry(
        _ARGUMENT,
        "Failed to add Op %s to NetOutput. Op output index %s is not less than %s. NetOutput input_index "
        "%s is not "
        "less than %s.",
        "Try again with a valid --out_nodes argument.",
    ),
    "E13003": Entry(
        "File_Operation_Error_Read",
        "Failed to read file %s. Reason: %s.",
        "Fix the error according to the error message.",
        "Failed to read the file.",
    ),
    "E13004": Entry("File_Operation_Error_Write", "Failed to write file %s. Reason: %s."),
    "E13005": Entry(
        "File_Operation_Error_Parse",
        "Failed to parse file %s.",
        "Check that a matched Protobuf version is installed and try again with a valid file. For details, "
        "see "
        'section "--framework" in ATC Instructions.',
    ),
    "E16001": Entry(
        "Invalid_Argument_ONNX_Model_Data",
        "The model has no %s node.",
        "Check whether the ONNX model contains the input node.",
    ),
    "E16002": Entry(
        "Invalid_Argument_ONNX_Model_Data",
        "No ONNX parser is registered for optype %s.",
        "Check the version of the installation package and reinstall the package. For details, see the "
        "installation "
        "reference.",
    ),
    "E16004": Entry(
        "Invalid_Argument_ONNX_Model_Data",
        "ONNX model has no graph.",
        "Invalid ONNX model. Modify the ONNX model and add the graph information.",
    ),
    "E16005": Entry(
        "Invalid_Argument_ONNX_Model_Data",
        "The model has %s --domain_version fields, but only one is allowed.",
        "Invalid ONNX model. Modify the ONNX model. If no domain is specified on the operator node, only "
        "one domain "
        "can be specified on the model.",
    ),
    "E19999": Entry("Inner_Error", "%s"),
    # The fusion engine's (fe_error_code.h).
    "E21001": Entry("File_Operation_Error_Open", "Failed to open file %s."),
    "E40020": Entry(
        "Environment_Error_Python_Module",
        "Failed to import Python module %s.",
        "Check that all required components are properly installed and the specified Python path matches "
        "the Python "
        "installation directory. (If the path does not match the directory, run set_env.sh in the "
        "installation "
        "package.)",
    ),
}  # type: Dict[str, Entry]


class AtcError(Exception):
    """The conversion ends with ``code``; ``values`` fill its template, ``trace`` goes below TraceBack."""

    def __init__(self, code: str, *values: object, trace: Tuple[str, ...] = ()) -> None:
        self.code = code
        self.values = tuple(str(value) for value in values)
        self.trace = trace
        super().__init__("{}: {}".format(code, fill(code, self.values, brackets=False)))


def fill(code: str, values: Tuple[str, ...], brackets: bool) -> str:
    """Return the message of ``code``; with ``brackets`` as CANN wrote it before 8.5: each argument in [ ]."""
    template = CATALOGUE[code].message
    if brackets and code != "E19999":
        template = re.sub(r"(--)?%s", r"[\g<0>]", template)
    # An argument may hold a percent sign itself, so no % formatting.
    pieces = template.split("%s")
    filled = pieces[0]
    for value, piece in zip(values + ("",) * len(pieces), pieces[1:]):
        filled += value + piece
    return filled


def block(error: AtcError, board: boards.Board) -> str:
    """Return the lines that ATC prints for ``error`` on this board's generation of CANN, ending in a
    newline.
    """
    entry = CATALOGUE[error.code]
    now = datetime.datetime.now()
    stamp = "[PID: {}] {}.{:03d}.{:03d}".format(
        os.getpid(), now.strftime("%Y-%m-%d-%H:%M:%S"), now.microsecond // 1000, now.microsecond % 1000
    )
    newest = board.cann_at_least("8.5.0")
    with_pid = board.cann_at_least("8.0.RC1")
    message = fill(error.code, error.values, brackets=not newest)
    lines = []  # type: List[str]
    if error.code == "E19999":
        # Inner errors have their code on a line of its own, in every generation.
        lines.append("E19999: Inner Error!")
        head = (
            "E19999[PID: {}] ".format(os.getpid())
            if not newest
            else "E19999{} {}(E19999):  ".format(stamp, entry.title)
        )
        lines.append(head + message)
    elif newest:
        lines.append("{} {}({}): {}".format(stamp, entry.title, error.code, message))
    elif with_pid:
        lines.append("{}: {} {}".format(error.code, stamp, message))
    else:
        lines.append("{}: {}".format(error.code, message))
    indent = " " * 8
    if entry.cause:
        lines.append("{}Possible Cause: {}".format(indent, entry.cause))
    if entry.solution:
        lines.append("{}Solution: {}".format(indent, entry.solution))
    if error.trace:
        lines.append(("" if newest else indent) + "TraceBack (most recent call last):")
        lines.extend(indent + line for line in error.trace)
    return "\n".join(lines) + "\n"


def unknown_block() -> str:
    """Return what ATC prints when it failed and nobody reported why: after a wrong command line, above
    all.
    """
    return "E19999: Inner Error!\n        Unknown error occurred. Please check the log.\n"
