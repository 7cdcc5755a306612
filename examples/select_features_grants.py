"""How few features does a classifier need? Gates on features against an L1 penalty, on the same rows.

    python examples/select_features_grants.py                                   # the 30 measurements of breast_cancer
    python examples/select_features_grants.py --data grants.npz --validate-last 1557 --out auc.png

Both find a path of logistic models with fewer and fewer features: FeatureGate as the price of an open gate rises,
scikit-learn's L1 logistic regression as C falls. The last part of the training rows says which model of each path to
take (the best, or with --tolerance the one with the fewest features of those nearly as good) and how strong a ridge
the gated one needs, as a mean over three seeds of the gates; both paths are then trained on all training rows, and
only then are the test rows looked at. Prints the features kept and the test AUC along both paths, "as trained" and
with an ordinary ridge logistic regression refitted on the kept features, which is what one would use afterwards: L1
also shrinks the coefficients that it keeps, a gate does not. --out draws it. The grants take a few minutes.

--data: an .npz with X_train, y_train, X_test, y_test (labels 0 and 1) and, if you like, names of the columns as
strings. The grants are those of Kaggle's "Predict Grant Applications" (University of Melbourne): 1,845 columns, nearly
all of them counts that are mostly 0. CreateGrantData.R of R's AppliedPredictiveModeling makes from them 8,190 training
and 518 test rows; the last 1,557 training rows are of 2008 as the test rows are, hence --validate-last 1557.
"""

import argparse
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse as sp
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch import nn

from l0fast import FeatureGate

RIDGES = (0.01, 0.03, 0.1)  # of the gated model: sum of squared coefficients, beside a mean over rows
SEEDS = 3
PARTS = ("X_train", "y_train", "X_test", "y_test")


def load(path: Path | None) -> tuple[list[np.ndarray], list[str]]:
    """(X_train, y_train, X_test, y_test), and a name for each column.

    Raises:
        ValueError: the file is no such .npz, or its arrays do not fit together.
    """
    if path is None:
        data = load_breast_cancer()
        x, test_x, y, test_y = train_test_split(data.data, data.target, random_state=0, stratify=data.target)
        return [x, y, test_x, test_y], [str(name) for name in data.feature_names]
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [name for name in PARTS if name not in file]
            parts = [] if missing else [file[name] for name in PARTS]
            names = column_names(file)
    except (OSError, ValueError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(f"--data: expected an .npz file of numbers, got {path} ({error})") from error
    if missing:
        raise ValueError(f"--data: expected the arrays {', '.join(PARTS)} in {path}, found no {', '.join(missing)}")
    check(parts)
    return parts, names if len(names) == parts[0].shape[1] else [f"column {k}" for k in range(parts[0].shape[1])]


def column_names(file) -> list[str]:
    try:
        return [str(name) for name in file["names"]]
    except (KeyError, ValueError):  # none, or Python objects: unpickling those would run whatever the file says
        return []


def check(parts: list[np.ndarray]) -> None:
    x, y, test_x, test_y = parts
    if x.ndim != 2 or x.shape[1:] != test_x.shape[1:] or y.shape != x.shape[:1] or test_y.shape != test_x.shape[:1]:
        shapes = ", ".join(f"{name} {list(part.shape)}" for name, part in zip(PARTS, parts, strict=True))
        raise ValueError(f"--data: expected rows with a label each and the same columns in both, got {shapes}")
    for name, labels in ((PARTS[1], y), (PARTS[3], test_y)):
        if set(np.unique(labels).tolist()) != {0, 1}:
            raise ValueError(f"--data: expected labels 0 and 1 in {name}, got {np.unique(labels)[:5].tolist()}")
    for name, values in ((PARTS[0], x), (PARTS[2], test_x)):
        if not np.isfinite(values).all():
            raise ValueError(f"--data: expected finite numbers in {name}")


def scaled(x: np.ndarray, *others: np.ndarray) -> list[np.ndarray | sp.csr_matrix]:
    """Logarithms of counts (nearly: the sign stays), in units of x's standard deviation; sparse where x is sparse.

    Columns of a sparse table are not centred, as that would fill it; a constant shift of a column is the bias's matter.
    """
    is_sparse = np.count_nonzero(x) < 0.2 * x.size
    logs = [np.sign(part) * np.log1p(np.abs(part, dtype=np.float64)) for part in (x, *others)]
    if is_sparse:
        logs = [sp.csr_matrix(part) for part in logs]
    scaler = StandardScaler(with_mean=not is_sparse).fit(logs[0])
    return [scaler.transform(part) for part in logs]


@dataclass
class Point:
    """One model of a path: coefficients [features], 0 for those not kept, and the price that led to it."""

    price: float
    coefficients: np.ndarray

    @property
    def kept(self) -> np.ndarray:
        return self.coefficients.nonzero()[0]


def gate_path(x, y, prices, ridge: float, steps: int, seed: int) -> list[Point]:
    """Trains gates and a logistic model together; the price of an open gate rises, and gates close for good."""
    torch.manual_seed(seed)
    n_features = x.shape[1]
    table, labels = as_torch(x), torch.tensor(y, dtype=torch.float32)[:, None]
    # Nearly all gates begin open: the path begins with the full model.
    gate = FeatureGate(n_features, max_features=int(0.9 * n_features), temperature=0.3)
    model = nn.Linear(n_features, 1)
    nn.init.zeros_(model.weight)
    optimizer = torch.optim.Adam([{"params": gate.parameters(), "lr": 0.1}, {"params": model.parameters(), "lr": 0.02}])
    path = []
    for price in prices:
        gate.train()
        for _ in range(steps):
            # (x * z) @ w = x @ (z * w): gates on the coefficients choose features too, and x may stay sparse.
            logits = table @ gate.apply_gates(model.weight, dim=1).T + model.bias
            loss = F.binary_cross_entropy_with_logits(logits, labels)
            loss = loss + price * gate.get_penalty() + ridge * model.weight.square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        gate.eval()
        with torch.no_grad():
            gated = gate.apply_gates(model.weight, dim=1)[0]
        open_gates = gate.get_active_indices()
        path.append(Point(price, torch.zeros_like(gated).index_copy(0, open_gates, gated[open_gates]).double().numpy()))
    return path


def as_torch(x) -> torch.Tensor:
    if not sp.issparse(x):
        return torch.tensor(x, dtype=torch.float32)
    x = x.tocoo()
    places, values = torch.tensor(np.stack([x.row, x.col])), torch.tensor(x.data, dtype=torch.float32)
    return torch.sparse_coo_tensor(places, values, x.shape, check_invariants=True, is_coalesced=True)


def l1_path(x, y, prices) -> list[Point]:
    """Mean logistic loss + price * sum of absolute coefficients, by scikit-learn."""
    path = []
    for price in prices:
        # liblinear also penalises the intercept; a large intercept_scaling makes that negligible.
        model = LogisticRegression(C=1 / (len(y) * price), l1_ratio=1, solver="liblinear", intercept_scaling=100)
        path.append(Point(price, model.fit(x, y).coef_[0]))
    return path


def refitted(x, y, point: Point, ridge: float) -> Point:
    """The same features with the coefficients of an ordinary ridge logistic regression."""
    coefficients = np.zeros_like(point.coefficients)
    if len(point.kept):
        model = LogisticRegression(C=1 / (2 * ridge * len(y)), max_iter=1000).fit(x[:, point.kept], y)
        coefficients[point.kept] = model.coef_[0]
    return Point(point.price, coefficients)


def auc(x, y, point: Point) -> float:
    return roc_auc_score(y, x @ point.coefficients)


def choose(paths: list[list[Point]], x, y, options) -> tuple[list[float], int]:
    """AUC on these rows at each place, means over paths of one kind, and the place to take."""
    kept = [np.mean([len(point.kept) for point in points]) for points in zip(*paths, strict=True)]
    scores = [np.mean([auc(x, y, point) for point in points]) for points in zip(*paths, strict=True)]
    allowed = [k for k in range(len(kept)) if kept[k] <= options.max_features]
    if not allowed:
        raise ValueError(f"--max-features: expected at least {min(kept):g}, the fewest of any model")
    best = max(scores[k] for k in allowed)
    return scores, min((k for k in allowed if scores[k] >= best - options.tolerance), key=lambda k: kept[k])


def bootstrap(x, y, ours: Point, theirs: Point, draws: int = 500) -> tuple[float, float, float]:
    """Standard error of our AUC, and the 95 % interval of what it is above theirs: draws of rows, the same for both."""
    rng, scores = np.random.default_rng(0), (x @ ours.coefficients, x @ theirs.coefficients)
    found = []
    for _ in range(draws):
        rows = rng.integers(len(y), size=len(y))
        if 0 < y[rows].sum() < len(y):
            found.append([roc_auc_score(y[rows], score[rows]) for score in scores])
    first, second = np.array(found).T
    return first.std(), *np.quantile(first - second, [0.025, 0.975])


def draw(curves: dict[str, list[tuple[int, float, float]]], chosen: dict[str, int], note: str, out: Path) -> None:
    """Test AUC against features kept, a line for each method, its chosen model ringed."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    ink, faint = "#27323a", "#6b7780"
    figure, ax = plt.subplots(figsize=(7.6, 4.6), layout="constrained")
    for (name, curve), colour in zip(curves.items(), ("#1d6a96", "#d98c3f"), strict=True):
        kept, trained, refit = (list(column) for column in zip(*curve, strict=True))
        ax.plot(kept, trained, "-o", color=colour, markersize=4.5, linewidth=1.9, label=f"{name}, as trained")
        ax.plot(kept, refit, "--", color=colour, linewidth=1.2, alpha=0.75, label=f"{name}, refitted")
        at = kept[chosen[name]], trained[chosen[name]]
        ring = {"markersize": 12, "markerfacecolor": "none", "markeredgewidth": 1.8}
        ax.plot(*at, "o", color=colour, **ring, label=f"{name}, chosen on validation rows")
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel("features kept (logarithmic)", color=ink)
    ax.set_ylabel("area under the ROC curve, test rows", color=ink)
    ax.set_title("AUC against features kept", loc="left", color=ink, fontweight="bold", pad=20)
    ax.text(0, 1.02, note, transform=ax.transAxes, color=faint, fontsize=9)
    ax.grid(color="#dfe4e8", linewidth=0.8)
    ax.tick_params(length=0, which="both", labelcolor=faint)
    ax.spines[:].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, labelcolor=ink, fontsize=9)
    figure.savefig(out, dpi=160)
    plt.close(figure)


def report(strength: str, path: list[Point], chosen: int, scores: list[float], curve: list[tuple]) -> None:
    print(f"{strength:>12} {'validation':>11} {'features':>9} {'AUC':>7} {'refitted':>9}")
    for k, (point, score, (kept, trained, refit)) in enumerate(zip(path, scores, curve, strict=True)):
        end = "   chosen" if k == chosen else ""
        print(f"{point.price:12.5f} {score:11.4f} {kept:9} {trained:7.4f} {refit:9.4f}{end}")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="an .npz (default: scikit-learn's breast_cancer)")
    parser.add_argument("--validate-last", type=int, help="training rows to choose by (default: a random fifth)")
    parser.add_argument("--max-features", type=int, default=10**9, help="choose no model with more")
    parser.add_argument("--tolerance", type=float, default=0.0, help="validation AUC to give for fewer features")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a .png for the figure; needs matplotlib")
    parser.add_argument("--quick", action="store_true", help="short paths, to try it")
    options = parser.parse_args(arguments)
    try:
        (x, y, test_x, test_y), names = load(options.data)
        rows = np.arange(len(y))
        if options.validate_last is None:
            fit, held = train_test_split(rows, test_size=0.2, random_state=options.seed, stratify=y)
        elif 0 < options.validate_last < len(y):
            fit, held = np.split(rows, [-options.validate_last])
        else:
            raise ValueError(f"--validate-last: expected 1 to {len(y) - 1} rows, got {options.validate_last}")
        if options.max_features < 1:
            raise ValueError(f"--max-features: expected at least 1, got {options.max_features}")
        if not options.tolerance >= 0:
            raise ValueError(f"--tolerance: expected at least 0, got {options.tolerance}")
        if min(len(np.unique(y[part])) for part in (fit, held)) < 2:
            raise ValueError("--validate-last: expected both labels in the rows to choose by and in the others")
        compare(x, y, test_x, test_y, names, fit, held, options)
    except ValueError as error:
        parser.error(str(error))


def compare(x, y, test_x, test_y, names, fit, held, options) -> None:
    count, steps = (4, 50) if options.quick else (9, 100)
    gate_prices, l1_prices = np.geomspace(7e-4, 5e-2, count), np.geomspace(1e-1, 3e-3, count)
    seeds = range(options.seed, options.seed + (1 if options.quick else SEEDS))

    def gate_paths(x, y, ridge):
        return [gate_path(x, y, gate_prices, ridge, steps, seed) for seed in seeds]

    # Chosen on training rows alone.
    fit_x, held_x = scaled(x[fit], x[held])
    found = {}
    for ridge in RIDGES[1:2] if options.quick else RIDGES:
        found[ridge] = choose(gate_paths(fit_x, y[fit], ridge), held_x, y[held], options)
    ridge = max(found, key=lambda r: max(found[r][0]))
    choices = {
        "FeatureGate": found[ridge],
        "L1": choose([l1_path(fit_x, y[fit], l1_prices)], held_x, y[held], options),
    }
    for r, (scores, _) in found.items():
        print(f"best AUC on {len(held):,} validation rows: FeatureGate with ridge {r} {max(scores):.4f}")
    print(f"best AUC on {len(held):,} validation rows: L1 {max(choices['L1'][0]):.4f}")

    # The whole training set, and only now the test rows.
    train_x, test_x = scaled(x, test_x)
    first, *others = gate_paths(train_x, y, ridge)
    paths, curves = {"FeatureGate": first, "L1": l1_path(train_x, y, l1_prices)}, {}
    chosen = {name: place for name, (_, place) in choices.items()}
    for name, path in paths.items():
        curves[name] = [
            (len(p.kept), auc(test_x, test_y, p), auc(test_x, test_y, refitted(train_x, y, p, ridge))) for p in path
        ]
        print(name)
        report("price" if name == "FeatureGate" else "1 / (n C)", path, chosen[name], choices[name][0], curves[name])
    ours, theirs = (paths[name][chosen[name]] for name in paths)
    for seed, path in zip(seeds[1:], others, strict=True):
        point = path[chosen["FeatureGate"]]
        print(f"with seed {seed}: {len(point.kept)} features, test AUC {auc(test_x, test_y, point):.4f}")
    error, low, high = bootstrap(test_x, test_y, ours, theirs)
    for name in paths:
        kept, trained, refit = curves[name][chosen[name]]
        print(f"{name}: {kept} of {len(names)} features, test AUC {trained:.4f}, refitted {refit:.4f}")
    print(
        f"FeatureGate - L1 in test AUC: 95 % interval {low:+.4f} to {high:+.4f}; standard error of an AUC {error:.4f}"
    )
    largest = ours.kept[np.argsort(-abs(ours.coefficients[ours.kept]))]
    print("kept by the gates: " + ", ".join(names[k] for k in largest[:25]) + (" ..." if len(largest) > 25 else ""))
    if options.out:
        draw(curves, chosen, f"{len(test_y):,} test rows; standard error of an AUC {error:.3f}", options.out)
        print(options.out)


if __name__ == "__main__":
    main()
