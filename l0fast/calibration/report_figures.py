"""The pictures of the report, as SVG text to put into a page."""

import io
import re

import matplotlib
import numpy as np
from matplotlib.figure import Figure  # not pyplot: a caller's backend and figures stay as they are
from matplotlib.ticker import FuncFormatter, LogFormatterMathtext, LogLocator, NullFormatter

BEFORE, AFTER, INK, FAINT, RULE = "#d98c3f", "#1d6a96", "#27323a", "#6b7780", "#dfe4e8"

STYLE = {
    "svg.fonttype": "none",  # text stays text: the page's own font, and it can be searched
    "svg.hashsalt": "l0fast",  # the same run gives the same bytes
    "font.family": "sans-serif",
    "font.size": 10.5,
    "mathtext.default": "regular",
    "axes.edgecolor": RULE,
    "axes.labelcolor": FAINT,
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "legend.frameon": False,
    "legend.labelcolor": INK,
}
_POINTS = 800  # of a curve: more than a screen shows

_thousands = FuncFormatter(lambda x, _: f"{x:,.0f}")


def _figure(draw) -> str:
    """SVG of a 5.4 x 3.2 inch figure that ``draw(axes)`` fills."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.4, 3.2), layout="constrained")
        draw(figure.subplots())
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    return _inline(text.getvalue())


def _inline(svg: str) -> str:
    """An SVG file made fit for a page: no prolog, no metadata, no namespaces or ids of groups, a fluid width."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)
    svg = re.sub(r' id="[A-Za-z][\w.]*_\d+"', "", svg)
    # The viewBox has the proportions; a fixed size would not fit a narrow window.
    return re.sub(r'(<svg[^>]*?) height="[^"]*"|(<svg[^>]*?) width="[^"]*"', r"\1\2", svg, count=2).strip()


def _thin(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Epochs (from 1) and values, thinned by a fixed step that keeps the last one."""
    step = max(1, len(values) // _POINTS)
    kept = np.unique(np.append(np.arange(0, len(values), step), len(values) - 1))
    return kept + 1, values[kept]


def loss_figure(history: dict) -> str:
    """Loss and its data part over epochs, logarithmic."""

    def draw(axes):
        for key, label, colour in (("loss", "loss", FAINT), ("data_loss", "misfit to targets", AFTER)):
            axes.plot(*_thin(np.asarray(history[key])), color=colour, linewidth=1.6, label=label)
        if min(np.min(history[key]) for key in ("loss", "data_loss")) > 0:
            axes.set_yscale("log")
            axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set(title="Loss", xlabel="epoch")
        axes.xaxis.set_major_formatter(_thousands)
        axes.legend()

    return _figure(draw)


def active_figure(history: dict, n_records: int) -> str:
    """Records in use over epochs: expected, and open in each epoch's draw."""

    def draw(axes):
        axes.plot(*_thin(np.asarray(history["open_gates"])), color=BEFORE, linewidth=1.2, label="open in the draw")
        axes.plot(*_thin(np.asarray(history["expected_active"])), color=AFTER, linewidth=1.8, label="expected")
        axes.set(title=f"Records in use, of {n_records:,}", xlabel="epoch", ylim=(0, None))
        axes.xaxis.set_major_formatter(_thousands)
        axes.yaxis.set_major_formatter(_thousands)
        axes.legend()

    return _figure(draw)


def _percent(x, _) -> str:
    return f"{100 * x:,.10g} %" if 1e-7 <= x < 1e3 else f"{100 * x:.0e} %"


def _two_histograms(axes, before, after, bins) -> None:
    for values, label, colour in ((before, "before", BEFORE), (after, "after", AFTER)):
        style = {"bins": bins, "color": colour, "label": f"{label} ({len(values):,})"}
        axes.hist(values, histtype="stepfilled", alpha=0.30, **{**style, "label": None})
        axes.hist(values, histtype="step", linewidth=1.6, **style)
    axes.set_xscale("log")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(_thousands)
    axes.grid(axis="x", visible=False)
    axes.legend()


def error_figure(before: np.ndarray, after: np.ndarray) -> str:
    """Absolute relative errors of all targets; what is beyond the ends is counted in the outer bars."""
    errors = [np.abs(before), np.abs(after)]
    positive = np.clip(np.concatenate([e[e > 0] for e in errors]), 1e-8, 1e6)
    low, high = np.quantile(positive, [0.005, 0.999]) if len(positive) else (1e-4, 1.0)
    exponents = [np.floor(np.log10(low)), np.ceil(np.log10(high))]
    exponents[1] = max(exponents[1], exponents[0] + 2)
    bins = np.logspace(*exponents, int(8 * (exponents[1] - exponents[0])) + 1)

    def draw(axes):
        _two_histograms(axes, *(np.clip(e, bins[0], bins[-1]) for e in errors), bins)
        axes.set(title="Relative errors of the targets", xlabel="|estimate - target| / |target|", ylabel="targets")
        axes.xaxis.set_major_formatter(FuncFormatter(_percent))

    return _figure(draw)


def holdout_figure(initial: np.ndarray, held_out: np.ndarray, fitted: np.ndarray) -> str:
    """For each error the share of targets that are met at least so well: by three sets of weights."""
    curves = {"initial weights": (initial, BEFORE), "left out": (held_out, INK), "fitted": (fitted, AFTER)}
    positive = np.clip(np.concatenate([e[e > 0] for e, _ in curves.values()]), 1e-8, 1e6)
    low, high = np.quantile(positive, [0.01, 0.99]) if len(positive) else (1e-4, 1.0)

    def draw(axes):
        for label, (errors, colour) in curves.items():
            x = np.clip(np.sort(errors), low, high)
            axes.step(x, np.arange(1, len(x) + 1) / len(x), where="post", color=colour, linewidth=1.7, label=label)
        axes.set(
            title="Targets met within an error", xlabel="|estimate - target| / |target|", ylabel="share of targets"
        )
        axes.set_xscale("log")
        axes.set_ylim(0, 1)
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_major_formatter(FuncFormatter(_percent))
        axes.legend()

    return _figure(draw)


def weight_figure(initial: np.ndarray, weights: np.ndarray) -> str:
    """Positive weights before and after, on a logarithmic axis."""
    positive = [w[w > 0] for w in (initial, weights)]
    everything = np.concatenate(positive)
    low, high = (0.5, 2.0) if not len(everything) else (everything.min(), everything.max())
    # Nothing is cut off above: the largest weights are what one looks for. Dust below the 0.1 % quantile is.
    low = max(low, np.quantile(everything, 0.001) / 2) if len(everything) else low
    bins = np.logspace(np.log10(low) - 0.05, np.log10(high) + 0.05, 61)

    def draw(axes):
        _two_histograms(axes, *(np.clip(w, bins[0], bins[-1]) for w in positive), bins)
        axes.set(title="Weights above 0", xlabel="weight", ylabel="records")
        if bins[-1] < 100 * bins[0]:  # hardly a power of ten to label
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        if bins[-1] < 1e7 and bins[0] > 1e-4:
            axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.10g}"))
        else:
            axes.xaxis.set_major_formatter(LogFormatterMathtext())

    return _figure(draw)


def plot_frontier(points, path) -> None:
    """Draws a path of record budgets to a file: mean relative error, and effective sample size, against records.

    Args:
        points: of SparseCalibrationWeights.path.
        path: .svg, .png, .pdf or what else matplotlib writes.

    Raises:
        ValueError: no points.
    """
    if not points:
        raise ValueError("points: expected at least one, got none")
    records = [point.records for point in points]
    panels = {
        "Mean relative error (%)": ([100 * point.mean_error for point in points], AFTER),
        "Effective sample size": ([point.ess for point in points], BEFORE),
    }
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.6, 3.4), layout="constrained")
        for axes, (title, (values, colour)) in zip(figure.subplots(1, 2), panels.items(), strict=True):
            axes.plot(records, values, color=colour, marker="o", markersize=4, linewidth=1.8)
            axes.set(title=title, xlabel="records in use", xscale="log", yscale="log")
        figure.savefig(path, dpi=150)
