"""How all pictures look: sizes, fonts, colours, numbers; and the one way from a sheet to bytes."""

import io
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from recsys_pipeline.core.picture import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The UI shows a picture in a dialog of about 900 pixels.
WIDTH = 9.0
_DOTS_PER_INCH = 100
_COLOURS = 128
_LETTERS_OF_A_TITLE = 88
_INCHES_PER_TITLE_LINE = 0.22

INK = "#24292f"
MUTED = "#8b949e"
FAINT = "#d0d7de"
# Okabe and Ito (2008): told apart by people with any kind of colour vision, in this order.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
ACCENT = SERIES[0]
# For intervals of 95 %, in standard errors.
Z = 1.96

_STYLE = {
    "font.family": ["DejaVu Sans"],
    "font.size": 9.5,
    "text.color": INK,
    # Names come from the feed: a dollar sign in them is a dollar sign.
    "text.parse_math": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#eaeef2",
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
    "xtick.minor.visible": False,
    "ytick.minor.visible": False,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "svg.hashsalt": "recsys_pipeline",
}


class Sheet(NamedTuple):
    """A picture that is drawn but not rendered.

    Attributes:
        name: of the picture.
        title: of the picture.
        figure: of Matplotlib.
    """

    name: str
    title: str
    figure: "Figure"


@contextmanager
def styled() -> Iterator[None]:
    """Matplotlib in the style of this project, for the length of the block."""
    import matplotlib as mpl

    with mpl.rc_context({**mpl.rcParamsDefault, **_STYLE}), warnings.catch_warnings():  # type: ignore[dict-item]
        # Letters that the font lacks are drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


@contextmanager
def sheet(name: str, title: str, height: float) -> Iterator[Sheet]:
    """An empty sheet to draw on within the block.

    Args:
        name: of the picture.
        title: what it says; broken into lines.
        height: of what is below the title, inches.
    """
    # Without pyplot, which keeps every figure and looks for a screen.
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    with styled():
        lines = textwrap.wrap(title, _LETTERS_OF_A_TITLE)
        figure = Figure(
            figsize=(WIDTH, height + 0.15 + _INCHES_PER_TITLE_LINE * len(lines)),
            dpi=_DOTS_PER_INCH,
            layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.07, wspace=0.03),
        )
        figure.suptitle("\n".join(lines), x=0.011, ha="left", fontsize=11.5, fontweight="bold")
        yield Sheet(name, title, figure)


def rendered(drawn: Sheet) -> Picture:
    """The sheet as PNG, without anything in it that differs from run to run."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    with styled():
        # Not by way of `savefig`, which draws everything twice.
        canvas: Any = FigureCanvasAgg(drawn.figure)
        canvas.draw()
    in_colour = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    # A palette makes a third of the bytes, which Dagster keeps of every run.
    content = io.BytesIO()
    in_palette = in_colour.quantize(
        _COLOURS, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE
    )  # fmt: skip
    # The background is white, not nearly white.
    palette, background = in_palette.getpalette() or [], in_palette.getpixel((0, 0))
    assert isinstance(background, int)
    palette[3 * background : 3 * background + 3] = [255, 255, 255]
    in_palette.putpalette(palette)
    in_palette.save(content, "PNG")
    return Picture(drawn.name, drawn.title, content.getvalue())


def name_of(text: str, letters: int = 28) -> str:
    """A name from the feed as a label: on one line, and cut."""
    on_one_line = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
    return on_one_line if len(on_one_line) <= letters else f"{on_one_line[: letters - 1]}…"


def number(value: float) -> str:
    """A count or a value of a hyperparameter, in four digits; a count whole, with separators."""
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:.4g}"


def short_number(value: float) -> str:
    """A count on an axis."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def percent(share: float) -> str:
    """A share in at most two significant digits, whole above ten per cent."""
    value = 100 * share
    return f"{value:.0f} %" if value >= 9.95 else f"{value:.2g} %"


def counted(n: int, what: str) -> str:
    """Such as "1 trial" or "2,000 trials"."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def log_axis(axis: Any, formatter: Any) -> None:
    """Let a logarithmic axis have whole powers of ten as its ticks."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis.set_major_locator(LogLocator(numticks=8))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: formatter(value)))


def count_axis(axis: Any) -> None:
    """Let an axis tell counts."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axis.set_major_locator(MaxNLocator(4, integer=True))
    axis.set_major_formatter(FuncFormatter(lambda value, _: short_number(value)))


def grid(axes: "Axes", along: str) -> None:
    """Faint lines at the ticks of one axis, and no line at the other's side."""
    axes.grid(axis=along)  # type: ignore[arg-type]
    axes.spines["left" if along == "y" else "bottom"].set_visible(False)
    axes.tick_params(axis=along, length=0)  # type: ignore[arg-type]


def whiskers(low: Sequence[float], middle: Sequence[float], high: Sequence[float]) -> list[list[float]]:
    """The two ends of intervals as Matplotlib takes them: lengths below and above."""
    return [
        [max(0.0, m - each) for m, each in zip(middle, low, strict=True)],
        [max(0.0, each - m) for m, each in zip(middle, high, strict=True)],
    ]
