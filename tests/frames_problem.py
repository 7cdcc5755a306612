"""Random records with columns of every kind, and each filter written twice: in the language and in pandas."""

import numpy as np
import pandas as pd

FILTERS = {
    "": lambda f: f.one == 1,
    "state == 'CA'": lambda f: f.state == "CA",
    'state != "CA"': lambda f: (f.state != "CA") & f.state.notna(),
    "state in ('NY', 'O''Brien', 'nowhere')": lambda f: f.state.isin(["NY", "O'Brien"]),
    "state not in ('NY', 'TX')": lambda f: ~f.state.isin(["NY", "TX"]) & f.state.notna(),
    "10000 <= agi < 25000": lambda f: (f.agi >= 10000) & (f.agi < 25000),
    "25000 > agi >= -1e3": lambda f: (f.agi < 25000) & (f.agi >= -1000),
    "agi < -.5": lambda f: f.agi < -0.5,
    "kids in (0, 2) and state == 'TX'": lambda f: f.kids.isin([0, 2]) & (f.state == "TX"),
    "kids == 1 and size == 3": lambda f: (f.kids == 1) & (f["size"] == 3),
    "kids == 1 and size != 3 and agi>0": lambda f: (f.kids == 1) & (f["size"] != 3) & (f.agi > 0),
    "kids == 1000": lambda f: f.kids == 1000,
    "rate == 0.1": lambda f: f.rate == np.float32(0.1),
    "rate != 0.1": lambda f: f.rate != np.float32(0.1),
    "member == true and `odd name` > 2": lambda f: f.member & (f["odd name"] > 2),
    "member == FALSE": lambda f: ~f.member,
    "region == 'west'": lambda f: f.region == "west",
    "gap == 1": lambda f: f.gap == 1,
    "gap != 1": lambda f: (f.gap != 1) & f.gap.notna(),
    "gap not in (1, 2)": lambda f: ~f.gap.isin([1, 2]) & f.gap.notna(),
}
MEASURES = ("1", "agi", "kids", "member", "odd name")


def random_frame(n: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    states = rng.choice(np.array(["CA", "NY", "TX", "O'Brien", None], dtype=object), n)
    states[0] = "CA"  # a column of nothing but None has no type
    return pd.DataFrame(
        {
            "hh": [f"h{k}" for k in rng.permutation(n)],
            "state": states,
            "agi": np.round(rng.normal(15000, 20000, n), 2),
            "kids": rng.integers(0, 4, n).astype(np.int8),
            "size": rng.integers(1, 5, n),
            "rate": rng.choice([0.1, 0.2, 0.7], n).astype(np.float32),
            "member": rng.random(n) < 0.4,
            "region": pd.Categorical(rng.choice(["west", "east"], n)),
            "gap": rng.choice([0.0, 1.0, 2.0, np.nan], n),
            "odd name": rng.integers(0, 9, n).astype(np.uint16),
            "w0": rng.uniform(0, 50, n),
            "unused": [b"x"] * n,
        }
    )


def expected(frame: pd.DataFrame) -> tuple[list[dict], np.ndarray]:
    """Targets (of value 1 where a record counts, else 0) and the dense matrix in float32, by pandas."""
    frame = frame.assign(one=1)
    targets, rows = [], []
    for text, meets in FILTERS.items():
        for measure in MEASURES:
            values = np.ones(len(frame)) if measure == "1" else frame[measure].to_numpy(dtype=float)
            row = np.where(meets(frame).to_numpy(dtype=bool), values, 0)
            rows.append(row.astype(np.float32))
            targets.append({"measure": measure, "filter": text, "value": float(row.any())})
    return targets, np.array(rows)
