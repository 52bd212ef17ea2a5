"""What a user is told when one of CANN's tools fails: the cause, the tool's own words, where the rest is."""

from __future__ import annotations

from pathlib import Path

from stages._tool_log import failure

KNOWN = """\
ATC start working now, please wait for a moment.
...
ATC run failed, Please check the detail log, Try 'atc --help' for more information
E10016: [PID: 1] 2025-07-08-10:25:28.680.962 Opname [y] specified in [--input_shape] is not found in the model.
        Solution: Specify the name of an existing node in the graph.
"""
UNKNOWN = """\
ATC start working now, please wait for a moment.
...
ATC run failed, Please check the detail log, Try 'atc --help' for more information
EX4711: [PID: 1] The moon is in the wrong phase.
        Possible Cause: astronomy
        TraceBack (most recent call last):
        Failed to align.
"""


def test_the_cause_stands_beside_the_tools_own_words(tmp_path: Path) -> None:
    error = failure("atc", ["atc"], 255, KNOWN, "builder", tmp_path / "atc.log")
    assert str(error).startswith("atc failed on builder (E10016): atc.input_shape names an input")
    assert "it says: E10016: [PID: 1] 2025-07-08-10:25:28.680.962 Opname [y] specified in" in str(error)
    assert "\n" not in str(error)
    assert "take the name from the error text" in error.hint
    assert error.hint.endswith(f"atc's whole output: {tmp_path}/atc.log")


def test_an_unknown_failure_shows_its_last_error_lines_and_where_the_log_is(tmp_path: Path) -> None:
    error = failure("atc", ["atc"], 255, UNKNOWN, "builder", tmp_path / "atc.log")
    assert str(error) == "atc failed on builder (EX4711): EX4711: [PID: 1] The moon is in the wrong phase."
    assert error.hint == f"atc's whole output: {tmp_path}/atc.log"
    bare = failure("atc", ["atc"], 3, "some\nlines\n[ERROR] first thing\nand\nerror: second thing\n...\n", "builder")
    assert str(bare) == "atc failed on builder (status 3): [ERROR] first thing / error: second thing"
    assert "said nothing" in str(failure("atc", ["atc"], 9, "\n", "builder"))
    assert len(str(failure("atc", ["atc"], 9, "error " + "x" * 9000, "builder"))) < 500
