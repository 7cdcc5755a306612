"""The report of a calibration: one HTML file with everything in it, to be read in a browser or printed."""

from dataclasses import dataclass, field
from html import escape

import numpy as np

from .diagnostics import group_table, quality, weight_statistics
from .holdout_table import HoldoutResult
from .judging import Judgement
from .report_style import CSS

_WORST = 20


@dataclass(frozen=True)
class ReportData:
    """What a report shows."""

    title: str
    table: dict[str, np.ndarray]
    """See diagnostics.target_table."""
    weights: np.ndarray
    initial_weights: np.ndarray
    """Both [n_records]."""
    history: dict[str, np.ndarray]
    """Of the model: loss, data_loss, expected_active, open_gates, each [epochs]."""
    seconds: float
    """What the fit took."""
    options: dict = field(default_factory=dict)
    versions: dict = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)
    """Lines of the preflight."""
    judgement: Judgement | None = None
    holdout: HoldoutResult | None = None


def percent(x: float) -> str:
    """A share as '16.0 %': one decimal, or two digits where that would show less."""
    value = 100 * x
    if not np.isfinite(value):
        return "–"
    if value == 0 or abs(value) >= 0.95:
        return _minus(f"{value:,.1f} %")
    return _minus(f"{value:#.2g} %" if abs(value) >= 1e-4 else f"{value:.0e} %")


def number(x: float) -> str:
    """A number with thousands separators: no decimals from 1,000 up, four digits below."""
    if not np.isfinite(x):
        return "–"
    return _minus(f"{x:,.0f}" if x == 0 or 1000 <= abs(x) < 1e16 else f"{x:,.4g}")


def _minus(text: str) -> str:
    """A hyphen is hard to see in a column of numbers."""
    return text.replace("-", "−")


def html_row(cells, tag: str = "td") -> str:
    """A row of a table. Cells are (html, css class) or html alone."""
    pairs = [cell if isinstance(cell, tuple) else (cell, "") for cell in cells]
    return "<tr>" + "".join(f'<{tag} class="{css}">{html}</{tag}>' for html, css in pairs) + "</tr>"


def html_table(header, rows, css: str = "") -> str:
    """A table of rows from :func:`html_row`; an empty header for none."""
    head = f"<thead>{html_row(header, 'th')}</thead>" if header else ""
    return f'<div class="scroll"><table class="{css}">{head}<tbody>{"".join(rows)}</tbody></table></div>'


def _summary(data: ReportData) -> str:
    text = f"{len(data.table['target']):,} targets, {len(data.weights):,} records"
    epochs = len(data.history["loss"])
    if not epochs or not data.seconds:
        return text + "."
    return f"{text}, {epochs:,} epochs, {data.seconds:,.1f} s for the fit."


def _cards(before: dict, after: dict, kept: dict) -> str:
    cards = [
        (
            "Mean relative error",
            f"{percent(before['mean_error'])} → {percent(after['mean_error'])}",
            f"median {percent(before['median_error'])} → {percent(after['median_error'])}",
        ),
        (
            "Targets within 10 %",
            f"{percent(before['share_within_10'])} → {percent(after['share_within_10'])}",
            f"within 1 %: {percent(before['share_within_1'])} → {percent(after['share_within_1'])}",
        ),
        (
            "Records kept",
            f"{kept['count']:,}",
            f"of {kept['records']:,} ({percent(kept['count'] / kept['records'])})",
        ),
        (
            "Effective sample size",
            number(round(kept["ess"])),
            f"{percent(kept['ess'] / max(kept['count'], 1))} of the records kept",
        ),
    ]
    return (
        '<div class="cards">'
        + "".join(
            f'<div class="card"><div class="label">{label}</div><div class="figure">{figure}</div>'
            f'<div class="note">{note}</div></div>'
            for label, figure, note in cards
        )
        + "</div>"
    )


def _quality_rows(before: dict, after: dict) -> list[str]:
    labels = {
        "mean_error": "Mean error",
        "median_error": "Median error",
        "max_error": "Largest error",
        "share_within_1": "Targets within 1 %",
        "share_within_5": "Targets within 5 %",
        "share_within_10": "Targets within 10 %",
    }
    return [html_row([label, (percent(before[key]), "n"), (percent(after[key]), "n")]) for key, label in labels.items()]


def _worst_rows(table: dict) -> list[str]:
    order = np.argsort(-np.abs(table["rel_error_after"]), kind="stable")[:_WORST]
    cells = [("target", number), ("before", number), ("after", number)]
    cells += [("rel_error_before", percent), ("rel_error_after", percent)]
    return [
        html_row([(escape(str(table["name"][j])), "name"), *((show(float(table[key][j])), "n") for key, show in cells)])
        for j in order
    ]


def _group_rows(table: dict) -> list[str]:
    groups = group_table(table)
    # Bars share one scale; a group that is off by far more than the others must not flatten them all.
    widest = max(np.quantile([max(g["mean_before"], g["mean_after"]) for g in groups], 0.9), 1e-12)

    def bar(share: float, css: str) -> str:
        return f'<div class="{css}" style="width:{min(100 * share / widest, 100):.1f}%"></div>'

    return [
        html_row(
            [
                (escape(g["group"]), "name"),
                (f"{g['targets']:,}", "n"),
                (percent(g["mean_before"]), "n"),
                (percent(g["mean_after"]), "n"),
                (percent(g["max_after"]), "n"),
                (bar(g["mean_before"], "b") + bar(g["mean_after"], "a"), "bar"),
            ]
        )
        for g in groups
    ]


def _weight_rows(before: dict, after: dict) -> list[str]:
    rows = {
        "count": ("Records with a weight above 0", number),
        "total": ("Sum of weights", number),
        "ess": ("Effective sample size (Kish)", number),
        "design_effect": ("Design effect of unequal weights", number),
        "min": ("Smallest weight", number),
        "max": ("Largest weight", number),
        "largest_ratio": ("Largest weight / median weight", number),
        "top_1_percent_share": ("Share of the top 1 % of records", percent),
    }
    lines = [html_row([text, (show(before[key]), "n"), (show(after[key]), "n")]) for key, (text, show) in rows.items()]
    change = number(after["largest_change"])
    return [*lines, html_row(["Largest weight ratio after / before", ("", "n"), (change, "n")])]


def _plain_rows(content: dict) -> list[str]:
    def show(value) -> str:
        if value is None:
            return "–"
        return escape(f"{value:g}" if isinstance(value, float) else str(value))

    return [html_row([escape(str(key)), (show(value), "value")]) for key, value in content.items()]


def render_report(data: ReportData) -> str:
    """The report as HTML, self-contained: no script, no link, nothing to fetch. Every name is escaped.

    Needs matplotlib (the extra ``report``).
    """
    from . import report_figures as figures  # matplotlib takes half a second to import
    from .report_sections import judgement_sections

    table = data.table
    before, after = (quality(table[key], table["target"]) for key in ("before", "after"))
    start, kept = weight_statistics(data.initial_weights), weight_statistics(data.weights, data.initial_weights)
    columns = [("before", "n"), ("after", "n")]
    title = escape(data.title)
    key = '<span class="key {0}"></span>{1}'
    legend = f"{key.format('b', 'before')} &nbsp; {key.format('a', 'after calibration')}"
    parts = [
        f"<h1>{title}</h1>",
        f'<p class="faint">{_summary(data)} &nbsp; {legend}</p>',
        _cards(before, after, kept),
    ]

    def pair(*halves):
        parts.append('<div class="pair">' + "".join(f"<figure>{half}</figure>" for half in halves) + "</div>")

    parts.append("<h2>Targets</h2>")
    pair(
        figures.error_figure(table["rel_error_before"], table["rel_error_after"]),
        html_table(["Relative error", *columns], _quality_rows(before, after)),
    )
    parts.append(f"<h2>The {min(_WORST, len(table['target']))} worst targets</h2>")
    worst = ["target", "value", "before", "after", "error before", "error after"]
    parts.append(html_table([worst[0], *((text, "n") for text in worst[1:])], _worst_rows(table)))
    if "group" in table:
        header = ["group", *((text, "n") for text in ("targets", "mean before", "mean after", "largest after")), ""]
        parts.append("<h2>Errors by group</h2>")
        parts.append(html_table(header, _group_rows(table)))
    parts += judgement_sections(data.judgement, data.holdout)
    parts.append("<h2>Weights</h2>")
    pair(
        figures.weight_figure(data.initial_weights, data.weights),
        html_table(["Weights", *columns], _weight_rows(start, kept)),
    )
    if len(data.history["loss"]):
        parts.append("<h2>The run</h2>")
        pair(figures.loss_figure(data.history), figures.active_figure(data.history, len(data.weights)))
    if data.findings:
        parts.append("<h2>What the preflight noticed</h2><ul>")
        parts += [f"<li>{escape(line)}</li>" for line in data.findings]
        parts.append("</ul>")
    parts.append("<h2>Options and versions</h2>")
    pair(html_table([], _plain_rows(data.options), "small"), html_table([], _plain_rows(data.versions), "small"))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{CSS}</style></head>\n<body><main>\n"
        + "\n".join(parts)
        + "\n</main></body></html>\n"
    )
