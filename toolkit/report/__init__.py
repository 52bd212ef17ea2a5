"""The report of a run: ``write(run_folder)`` makes one HTML file of what the folder holds."""

from toolkit.report.page import FILE, write

__all__ = ["FILE", "write"]
