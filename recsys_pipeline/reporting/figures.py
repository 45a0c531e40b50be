"""Pictures for the UI."""

import base64
import io
from collections.abc import Mapping

from dagster import MarkdownMetadataValue, MetadataValue

_INCHES_PER_BAR = 0.4


def bars_with_intervals(
    title: str, values: Mapping[str, tuple[float, float, float]]
) -> MarkdownMetadataValue:
    """A bar a name with its value, low and high end, the first name on top and in another colour."""
    # Imported here: it takes a while, and only this needs it.
    from matplotlib.figure import Figure

    names = list(values)[::-1]
    centres = [values[name][0] for name in names]
    ends = [
        [values[name][0] - values[name][1] for name in names],
        [values[name][2] - values[name][0] for name in names],
    ]
    figure = Figure(figsize=(8, 1 + _INCHES_PER_BAR * len(names)), layout="constrained")
    axes = figure.subplots()
    colours = ["#9aa5b1"] * (len(names) - 1) + ["#2f6fde"]
    axes.barh(names, centres, xerr=ends, color=colours, ecolor="#333333", capsize=3)
    axes.set_title(title, loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlim(left=0)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=110)
    encoded = base64.b64encode(image.getvalue()).decode("ascii")
    return MetadataValue.md(f"![{title}](data:image/png;base64,{encoded})")
