"""The course of a training as a picture: loss, accuracy and learning rate over the epochs.

The same history gives the same bytes: the picture is part of an artefact that is named by its digest. So
there are no time stamps in it, no settings of the user's, and no fonts but the one that matplotlib brings.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

Row = Mapping[str, float | None]

PANELS = (("loss", "loss"), ("accuracy", "accuracy of held-out pictures"), ("lr", "learning rate"))


def draw(history: Sequence[Row], path: Path, title: str, cache: Path) -> None:
    """Write the PNG ``path``, 800 by 900 pixels. ``history``: see ``TrainReport``. Without rows: no file.

    ``cache`` is where matplotlib keeps its list of fonts, unless the user has set MPLCONFIGDIR.
    """
    if not history:
        return
    cache.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("MPLCONFIGDIR", str(cache))
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties
    from matplotlib.text import Text
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    with mpl.rc_context(mpl.rcParamsDefault):
        figure = Figure(figsize=(8, 9), dpi=100)
        FigureCanvasAgg(figure)
        panels = figure.subplots(len(PANELS), 1, sharex=True)
        for axes, (key, label), colour in zip(panels, PANELS, ("C3", "C0", "C2"), strict=True):
            known = [(row["epoch"], row[key]) for row in history if row.get(key) is not None]
            axes.plot([x for x, _ in known], [y for _, y in known], color=colour, marker="o", markersize=3)
            axes.set_ylabel(label)
            axes.grid(alpha=0.3)
        best = max((row for row in history if row["accuracy"] is not None), key=_quality, default=None)
        if best is not None:
            text = f"best: {best['accuracy']:.2%} in epoch {best['epoch']:.0f}"
            panels[1].axvline(best["epoch"], color="0.5", linestyle=":", linewidth=1)
            panels[1].text(0.98, 0.08, text, transform=panels[1].transAxes, ha="right")
        panels[1].yaxis.set_major_formatter(PercentFormatter(1.0))
        panels[0].set_title(title)
        panels[0].set_ylim(bottom=0)
        panels[2].set_ylim(bottom=0)
        panels[-1].set_xlabel("epoch")
        panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
        font = Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
        for text_item in figure.findobj(Text):
            text_item.set_fontproperties(FontProperties(fname=str(font), size=text_item.get_fontsize()))
        figure.tight_layout()
        figure.savefig(path, format="png", metadata={"Software": None})


def _quality(row: Row) -> tuple[float, float]:
    """The highest accuracy, the earliest of equals."""
    return row["accuracy"] or 0.0, -(row["epoch"] or 0.0)
