"""What bench_cuda.py reports: rows of the CSV, the short table, and a line for each thing that must be shown."""

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from common import Summary, append_row, significant

OURS, PEER, COMPILED = "l0fast", "l0-python", "l0-python compiled"

ELEMENTWISE_SHARE = 0.80
ROOFLINE_FACTOR = 2.0
CLOSED_SHARE_OF_OPEN = 0.35
FASTER_THAN_PEER = 20.0

CREDIBLE = 1.25
"""Of the copy bandwidth: reading alone may be somewhat faster than reading and writing."""

CALIBRATIONS = ("cps280k", "33k x 338k", "13k x 5.2m")
LARGEST = CALIBRATIONS[-1]
UNITS = {"ms": 1e3, "us": 1e6}


@dataclass
class Report:
    """Collects what was measured; writes each row as soon as it is known."""

    out: Path
    facts: dict[str, str]
    copy_bandwidth: float = 0.0
    """Bytes a second, read and written together."""
    rows: list[dict] = field(default_factory=list)
    findings: dict[str, tuple[bool | None, str]] = field(default_factory=dict)
    """Checks that are no times: name to (holds, in words)."""
    notes: list[str] = field(default_factory=list)

    def add(self, section: str, case: str, mode: str, samples: dict[str, list[float]], bytes_of=None, note="") -> None:
        """The contenders of one case and mode; samples in seconds; bytes_of a contender's name, or None."""
        ours = Summary.of(samples[OURS]).median if OURS in samples else None
        for name, times in samples.items():
            summary = Summary.of(times)
            moved = None if bytes_of is None else bytes_of(name)
            rate = None if moved is None else moved / summary.median
            row = {
                "section": section,
                "case": case,
                "mode": mode,
                "contender": name,
                "rounds": len(times),
                "median_us": significant(summary.median * UNITS["us"]),
                "p20_us": significant(summary.p20 * UNITS["us"]),
                "p80_us": significant(summary.p80 * UNITS["us"]),
                "ratio_to_l0fast": significant(None if ours is None else summary.median / ours),
                "bytes": "" if moved is None else moved,
                "gb_s": significant(None if rate is None else rate / 1e9),
                "copy_gb_s": significant(self.copy_bandwidth / 1e9),
                "share_of_copy": significant(None if rate is None else rate / self.copy_bandwidth),
                "note": note,
            }
            self.rows.append(row)
            append_row(self.out, {**self.facts, **row})
            cut = " (cut after one round)" if len(times) == 1 else ""
            print(f"  {case} {mode} {name}: {row['median_us']} us, {len(times)} rounds{cut} {note}", flush=True)

    def note(self, text: str) -> None:
        self.notes.append(text)
        print(f"  note: {text}", flush=True)

    def find(self, what: str, holds: bool | None, words: str) -> None:
        self.findings[what] = (holds, words)
        print(f"  {what}: {words}", flush=True)

    def value(self, column: str, case: str, mode: str, contender: str = OURS) -> float | None:
        for row in self.rows:
            if (row["case"], row["mode"], row["contender"]) == (case, mode, contender) and row[column] != "":
                return float(row[column])
        return None


@dataclass(frozen=True)
class Verdict:
    requirement: str
    reached: bool | None
    """None: not measured."""
    words: str

    def __str__(self) -> str:
        verdict = {True: "reached", False: "NOT REACHED", None: "not measured"}[self.reached]
        return f"{verdict:12} | {self.requirement} | {self.words}"


def verdicts(report: Report) -> list[Verdict]:
    """A line for each requirement of issue 4 that this script can show."""
    return [
        *(Verdict(what, holds, words) for what, (holds, words) in report.findings.items()),
        _elementwise(report, "forward"),
        _elementwise(report, "backward"),
        _roofline(report),
        _closed(report),
        *(_peer(report, case) for case in CALIBRATIONS),
    ]


def _elementwise(report: Report, mode: str) -> Verdict:
    cases = ("hard_concrete", "l0_penalty", "gated_weight")
    shares = {case: report.value("share_of_copy", case, mode) for case in cases}
    requirement = f"elementwise {mode} >= {ELEMENTWISE_SHARE:.0%} of the copy bandwidth"
    missing = [case for case, share in shares.items() if share is None]
    if missing:
        return Verdict(requirement, None, f"no time of {', '.join(missing)}")
    words = ", ".join(f"{case} {share:.0%}" for case, share in shares.items())
    if max(shares.values()) > CREDIBLE:
        return Verdict(requirement, None, f"{words}: more than a copy can do, so the measurement is off")
    return Verdict(requirement, min(shares.values()) >= ELEMENTWISE_SHARE, words)


def _roofline(report: Report) -> Verdict:
    requirement = f"epoch of {LARGEST}, all open, within {ROOFLINE_FACTOR:g}x of the roofline"
    share = report.value("share_of_copy", LARGEST, "open")
    if share is None:
        return Verdict(requirement, None, "no time of it")
    if share > CREDIBLE:
        return Verdict(requirement, None, f"{1 / share:.2f}x: less than the bytes take, so the measurement is off")
    return Verdict(requirement, share >= 1 / ROOFLINE_FACTOR, f"{1 / share:.2f}x")


def _closed(report: Report) -> Verdict:
    requirement = f"the same with 90 % closed <= {CLOSED_SHARE_OF_OPEN:.0%} of the open epoch"
    times = [report.value("median_us", LARGEST, state) for state in ("open", "closed90")]
    if None in times:
        return Verdict(requirement, None, "no time of it")
    return Verdict(requirement, times[1] / times[0] <= CLOSED_SHARE_OF_OPEN, f"{times[1] / times[0]:.0%}")


def _peer(report: Report, case: str) -> Verdict:
    requirement = f"{case}: >= {FASTER_THAN_PEER:g}x faster than l0-python on the same device"
    for mode in ("open", "open, equal size"):
        ratio = report.value("ratio_to_l0fast", case, mode, PEER)
        if ratio is not None:
            size = "" if mode == "open" else " (at the equal, smaller size that l0-python could run)"
            return Verdict(requirement, ratio >= FASTER_THAN_PEER, f"{ratio:.1f}x{size}")
    return Verdict(requirement, None, "no time of l0-python")


def print_table(report: Report, judged: bool) -> None:
    """The short table: medians, and what must be shown. Speeds at toy sizes are not judged."""
    print(f"\ncopy {report.copy_bandwidth / 1e9:.0f} GB/s read and written; times in us; x: times l0fast's median")
    print(f"{'case':16} {'mode':16} {'contender':20} {'median':>10} {'p20':>10} {'p80':>10} {'x':>7} {'of copy':>8}")
    for row in report.rows:
        cells = [f"{row[c]:>10}" for c in ("median_us", "p20_us", "p80_us")]
        ratio = f"{float(row['ratio_to_l0fast']):.2f}" if row["ratio_to_l0fast"] else "-"
        share = f"{100 * float(row['share_of_copy']):.0f} %" if row["share_of_copy"] else "-"
        print(f"{row['case']:16} {row['mode']:16} {row['contender']:20} {' '.join(cells)} {ratio:>7} {share:>8}")
    for note in report.notes:
        print(f"note: {note}")
    print("\nwhat must be shown" + ("" if judged else " (toy sizes: speeds are not judged)"))
    for verdict in verdicts(report):
        if judged or verdict.requirement in report.findings:
            print(verdict)
        else:
            print(Verdict(verdict.requirement, None, f"toy size: {verdict.words}"))


def copy_to_out(path: Path) -> None:
    """What the device machine brings back lies in $OUT."""
    folder = os.environ.get("OUT")
    if folder and path.exists() and path.resolve().parent != Path(folder).resolve():
        shutil.copy(path, folder)
