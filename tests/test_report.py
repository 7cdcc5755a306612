"""The report is one file that needs nothing else and says what the arrays say."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from l0fast.calibration import Hierarchy
from l0fast.calibration.diagnostics import target_table
from l0fast.calibration.holdout_table import HoldoutResult
from l0fast.calibration.judging import judge
from l0fast.calibration.report import ReportData, number, percent, render_report

pytest.importorskip("matplotlib", reason="the report needs matplotlib")

VOID = {"meta", "br", "use", "path"}


class Balanced(HTMLParser):
    """Fails on a closing tag that does not match."""

    def __init__(self):
        super().__init__()
        self.open, self.seen = [], set()

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag


def data(n_targets=30, groups=True, epochs=50, **changes):
    rng = np.random.default_rng(0)
    names = [f"<script>alert({j})</script> & $x_{j}$" for j in range(n_targets)]
    targets = rng.uniform(100, 1e6, n_targets)
    before, after = (targets * rng.normal(1, sd, n_targets) for sd in (0.2, 0.01))
    labels = [f"<b>g{j % 3}</b>" for j in range(n_targets)] if groups else None
    weights = rng.lognormal(3, 1, 400) * (rng.random(400) < 0.5)
    fields = {
        "title": "Test <title>",
        "table": target_table(names, targets, before, after, labels),
        "weights": weights,
        "initial_weights": np.full(400, 20.0),
        "history": {key: np.linspace(5, 1, epochs) for key in ("loss", "data_loss", "expected_active", "open_gates")},
        "seconds": 1.5,
        "options": {"matrix": "<i>.npz", "lambda_l0": 1e-3},
        "versions": {"torch": "2"},
        "findings": ["warning: <u>odd</u>"],
    }
    return ReportData(**(fields | changes))


def test_it_is_self_contained_and_escaped():
    page = render_report(data())
    assert not re.search(r"https?:|//\w|@import|url\((?!#)", page), "nothing may be fetched"
    assert "<script" not in page and "<b>g" not in page and "<u>" not in page and "<i>" not in page
    assert "&lt;script&gt;alert(" in page
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    assert not parser.seen & {"script", "link", "img", "iframe", "object"}
    assert page.count("<svg") == 4


def test_it_names_the_twenty_worst_in_order():
    given = data()
    page = render_report(given)
    worst = np.argsort(-np.abs(given.table["rel_error_after"]))[:20]
    shown = [int(j) for j in re.findall(r"alert\((\d+)\)", page)]
    assert shown == worst.tolist()


def test_figures_of_the_headline():
    page = render_report(data())
    kept = (data().weights > 0).sum()
    assert f'<div class="figure">{kept:,}</div>' in page
    assert "Effective sample size" in page and "Errors by group" in page


def test_judgement_and_holdout_have_their_sections():
    rng = np.random.default_rng(1)
    given = data()
    table, groups = given.table, given.table["group"]
    hierarchy = Hierarchy({"<em>us": [0, 1, 2], "all": ["<em>us", 5]}, totals={"all": 123_456.0})
    options = {"loss_type": "capped_mape", "loss_cap": 0.01, "target_groups": groups, "hierarchy": hierarchy}
    judged = judge(table["target"], table["before"], table["after"], **options)
    totals = table["target"] * rng.normal(1, 0.1, (2, 30))
    fold = np.arange(30) % 2
    holdout = HoldoutResult(
        *("targets", 0, fold, table["target"], table["before"], table["after"], totals),
        *(np.array([1_234, 56]), 78, groups, 3.0),
    )
    page = render_report(data(judgement=judged, holdout=holdout))
    for title in ("Levels", "The 2 worst parents", "Where the loss is", "Targets left out"):
        assert f"<h2>{title}</h2>" in page
    assert "<em>" not in page and "&lt;em&gt;us" in page and "123,456" in page and "1,234" in page
    past = sum(row["past_cap_after"] for row in judged.groups)
    assert past == judged.overall["past_cap_after"] > 0 and "past the cap after" in page
    assert percent(holdout.table()[-1]["held_out_mean"]) in page
    assert page.count("<svg") == 5
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    assert "Past the cap" not in render_report(data(judgement=judge(table["target"], table["before"], table["after"])))


@pytest.mark.parametrize(
    "changes",
    [
        {"n_targets": 1, "groups": False},
        {"epochs": 0},
        {"epochs": 1},
        {"epochs": 5000},
        {"weights": np.zeros(400)},
        {"weights": np.full(400, 7.0), "initial_weights": np.full(400, 7.0)},
        {"initial_weights": np.zeros(400)},
        {"table": target_table(["a", "b"], [0.0, 5.0], [0.0, 5.0], [0.0, 5.0])},
        {"table": target_table(["a", "b"], [1e-300, 1.0], [1e300, 5.0], [1e3, 5.0])},
        {"findings": [], "options": {}, "versions": {}},
    ],
)
def test_odd_data_still_make_a_page(changes):
    page = render_report(data(**changes))
    assert page.endswith("</html>\n") and "nan" not in page.lower().replace("nano", "")


def test_the_same_run_gives_the_same_bytes():
    assert render_report(data()) == render_report(data())


def test_number_formats():
    assert [percent(x) for x in (0.16, 0.0086, 0.000123, 0.0, 2.5, -0.1)] == [
        *("16.0 %", "0.86 %", "0.012 %", "0.0 %", "250.0 %", "−10.0 %")
    ]
    assert [number(x) for x in (1234567.8, 12.3456, 0.0, float("nan"), -1e9)] == [
        *("1,234,568", "12.35", "0", "–", "−1,000,000,000")
    ]
