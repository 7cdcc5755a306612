"""Sections of the report that judge a run: where its loss is, levels and parents, targets left out."""

from html import escape

from .holdout_table import HoldoutResult
from .judging import Judgement
from .report import html_row, html_table, number, percent

_WORST = 20


def judgement_sections(judged: Judgement | None, holdout: HoldoutResult | None) -> list[str]:
    """HTML of what there is; none of it where the run has neither groups, levels, a cap nor a holdout."""
    parts = []
    if judged is not None:
        if judged.levels:
            parts += ["<h2>Levels</h2>", _levels(judged), *_parents(judged)]
        if judged.groups or judged.overall["past_cap_after"] is not None:
            parts += ["<h2>Where the loss is</h2>", _losses(judged)]
    if holdout is not None:
        parts += ["<h2>Targets left out</h2>", *_holdout(holdout)]
    return parts


def _header(first: str, *others: str) -> list:
    return [first, *((text, "n") for text in others)]


def _cells(*texts: str) -> list:
    return [(text, "n") for text in texts]


def _levels(judged: Judgement) -> str:
    header = _header("level", "targets or parents", "mean before", "mean after", "largest after")
    rows = [
        html_row(
            [
                f"{row['level']} ({row['kind']})",
                *_cells(f"{row['targets']:,}", *(percent(row[x]) for x in ("mean_before", "mean_after", "max_after"))),
            ]
        )
        for row in judged.levels
    ]
    return html_table(header, rows)


def _parents(judged: Judgement) -> list[str]:
    shown = judged.parents[:_WORST]
    header = _header("parent", "level", "targets below", "total", "sum of children's values", "before", "after")
    rows = [
        html_row(
            [
                (escape(row["label"]), "name"),
                *_cells(
                    *(str(row["level"]), f"{row['children']:,}", number(row["total"]), number(row["children_total"])),
                    *(percent(row["rel_error_before"]), percent(row["rel_error_after"])),
                ),
            ]
        )
        for row in shown
    ]
    return [
        f"<h2>The {len(shown)} worst parents</h2>",
        html_table([*header[:-2], *_cells("error before", "after")], rows),
    ]


def _losses(judged: Judgement) -> str:
    """Groups and levels of parents, largest share first; the cap's columns only where the loss has one."""
    capped = judged.overall["past_cap_after"] is not None
    rows = [(row["group"], row) for row in judged.groups]
    if not rows:
        rows = [("all targets", judged.overall)]
    rows += [(f"parents, level {row['level']}", row) for row in judged.levels if row["kind"] == "parents"]
    rows.sort(key=lambda pair: -pair[1]["loss_after"])
    header = _header("group", "targets", "loss before", "loss after", "share")
    header += _cells("past the cap before", "past the cap after") if capped else []

    def cells(row: dict) -> list:
        texts = [f"{row['targets']:,}", number(row["loss_before"]), number(row["loss_after"])]
        texts.append(percent(row["loss_share"]))
        texts += [f"{row['past_cap_before']:,}", f"{row['past_cap_after']:,}"] if capped else []
        return _cells(*texts)

    note = ""
    if capped:
        note = '<p class="faint">Past the cap: targets whose error costs no more and that no gradient reaches.</p>'
    return note + html_table(header, [html_row([(escape(label), "name"), *cells(row)]) for label, row in rows])


def _holdout(holdout: HoldoutResult) -> list[str]:
    from . import report_figures as figures

    keys = [f"{whose}_{what}" for whose in ("initial", "fit", "held_out") for what in ("mean", "median")]
    names = ["initial mean", "median", "fitted mean", "median", "left out: mean", "median", "better"]

    def errors(row: dict) -> list[str]:
        return [f"{row['targets']:,}", *(percent(row[key]) for key in keys), percent(row["better_share"])]

    folds = [
        html_row(
            [
                "all" if row["fold"] is None else str(row["fold"] + 1),
                *_cells(*errors(row), percent(row["own_mean"]), f"{row['records']:,}"),
            ]
        )
        for row in holdout.table()
    ]
    everything, counted = holdout.table()[-1], holdout.fold >= 0
    text = (
        f"{holdout.folds} fits, each without a fold of the {escape(holdout.by)}: the mean error on the targets left "
        f"out is {percent(everything['held_out_mean'])}, that of the fit of all targets "
        f"{percent(everything['fit_mean'])}, that of the initial weights {percent(everything['initial_mean'])}. "
        "Better: targets that weights fitted without them meet better than the initial weights do."
    )
    totals = (holdout.initial, holdout.held_out, holdout.fitted)
    curves = [holdout.errors(x)[counted] for x in totals]
    parts = [f'<p class="faint">{text}</p>', f"<figure>{figures.holdout_figure(*curves)}</figure>"]
    parts.append(html_table(_header("fold", "left out", *names, "fold's own mean", "records"), folds))
    groups = [html_row([(escape(row["group"]), "name"), *_cells(*errors(row))]) for row in holdout.group_table()]
    return [*parts, html_table(_header("group", "targets", *names), groups)] if groups else parts
