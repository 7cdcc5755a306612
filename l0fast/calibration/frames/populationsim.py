"""Controls in the layout of PopulationSim: controls.csv, a file of totals for each geography, households, persons."""

import numpy as np

from .expressions import ExpressionError, evaluate
from .source import near, optional_library
from .tables import missing, plain
from .targets import Target, number_of

COLUMNS = ("target", "geography", "seed_table", "importance", "control_field", "expression")


def populationsim_controls(
    controls,
    totals: dict,
    households,
    persons=None,
    *,
    household_id: str = "hh_id",
    crosswalk=None,
    most_important: float | None = 100.0,
):
    """Records and targets for :meth:`.problem.CalibrationProblem.from_frame` from the inputs of a PopulationSim run.

    Each control becomes a column of the records with its name: for ``seed_table`` households 1 where the expression
    holds, for persons how many of the household's persons it holds for. Each row of a geography's totals then becomes a
    target, ``sum of w_i column_i over the households of that zone``, in the group of its control.

    Args:
        controls: path of controls.csv or a DataFrame, with the columns target, geography, seed_table, importance,
            control_field, expression (:func:`.expressions.evaluate`; never run as a program).
        totals: for each geography a path or DataFrame with its zones in a column of the geography's name and a column
            for each control_field.
        households: path or DataFrame, a row for each household, with the column household_id and the geographies.
        persons: path or DataFrame with the column household_id, where a control counts persons.
        household_id: column of distinct values that ties persons to households.
        crosswalk: path or DataFrame with a row for each zone of the households' finest geography and the coarser ones
            that it lies in: geographies that the households lack are added from it.
        most_important: importances count as weights in units of their median, up to this many times it: PopulationSim
            marks a control that must be met with 1e9, which would leave the others no weight. None for no weights.

    Returns:
        (records, targets): the households with the new columns, a DataFrame, and a list of Target.

    Raises:
        ValueError: a missing column or table, an expression outside the language, a geography that no household has
            (it is finer than the households': records have to be copied to its zones first), an unknown person's
            household: by name.
        ImportError: pandas is missing.
    """
    controls = _frame("controls", controls, COLUMNS)
    tables = {"households": _frame("households", households, (household_id,))}
    if persons is not None:
        tables["persons"] = _frame("persons", persons, (household_id,))
    if tables["households"][household_id].duplicated().any():
        raise ValueError(f"households: expected distinct values in {household_id}")
    zones = _with_crosswalk(tables["households"], crosswalk)
    weights = _weights(controls, most_important)
    columns, targets, read = {}, [], {}
    for line, weight in zip(controls.to_dict("records"), weights, strict=True):
        name, geography = str(line["target"]), str(line["geography"])
        if name in columns or name in zones.columns:
            raise ValueError(f"controls: {name}: expected a name that neither a column nor another control has")
        if geography not in read:
            read[geography] = _totals(name, geography, totals, zones)
        columns[name] = _column(name, line, tables, household_id)
        targets += _targets(name, geography, str(line["control_field"]), read[geography], weight)
    return zones.assign(**columns), targets


def _frame(argument: str, data, needed: tuple[str, ...]):
    pandas = optional_library("pandas")
    if not isinstance(data, pandas.DataFrame):
        try:
            data = pandas.read_parquet(data) if str(data).endswith(".parquet") else pandas.read_csv(data)
        except (ValueError, UnicodeDecodeError) as error:
            raise ValueError(f"{argument}: cannot read {data}: {str(error).splitlines()[0]}") from None
    for name in needed:
        if name not in data.columns:
            raise ValueError(f"{argument}: no column {name!r}{near(name, list(map(str, data.columns)))}")
    return data


def _with_crosswalk(households, crosswalk):
    if crosswalk is None:
        return households
    crosswalk = _frame("crosswalk", crosswalk, ())
    shared = [name for name in crosswalk.columns if name in households.columns]
    added = [name for name in crosswalk.columns if name not in households.columns]
    if not shared or not added:
        return households
    # One coarser zone for each zone that households have; finer ones have several, and nothing can be said of them.
    pairs = crosswalk[shared + added].drop_duplicates()
    known = [name for name in added if not pairs[[*shared, name]].drop_duplicates().duplicated(shared).any()]
    return households.merge(pairs[shared + known].drop_duplicates(), on=shared, how="left", validate="many_to_one")


def _weights(controls, most_important: float | None) -> list[float | None]:
    if most_important is None:
        return [None] * len(controls)
    lines = zip(controls["target"], controls["importance"], strict=True)
    importance = [number_of(entry, str(name), "importance", least=0) for name, entry in lines]
    given = [value for value in importance if value]
    middle = float(np.median(given)) if given else 1.0
    return [1.0 if value is None else min(value / middle, most_important) for value in importance]


def _totals(name: str, geography: str, totals: dict, zones):
    if geography not in totals:
        raise ValueError(
            f"totals: expected those of {geography}, of which {name} is a control, got {', '.join(totals)}"
        )
    if geography not in zones.columns:
        raise ValueError(
            f"households: no column {geography!r}, the geography of control {name}; a coarser one comes from a "
            "crosswalk, for a finer one the households have to be copied to its zones first"
        )
    return _frame(f"totals of {geography}", totals[geography], (geography,))


def _column(name: str, line: dict, tables: dict, household_id: str):
    """The control's measure [n_households]."""
    table = str(line["seed_table"])
    if table not in tables:
        raise ValueError(f"controls: {name}: expected a seed_table among {', '.join(tables)}, got {table}")
    try:
        held = evaluate(str(line["expression"]), {table: tables[table]})
    except ExpressionError as error:
        raise ExpressionError(f"controls: {name}: {error}") from None
    if np.ndim(held) != 1 or held.dtype.kind not in "bifu":
        raise ValueError(f"controls: {name}: expected a condition or numbers for each row, got {line['expression']!r}")
    if table == "households":
        return held.to_numpy(dtype=np.float64)
    keys = tables["households"][household_id]
    counts = held.astype(np.float64).groupby(tables[table][household_id]).sum()
    if len(lost := counts.index.difference(keys)):
        raise ValueError(f"persons: expected households of {household_id}, got {plain(lost[0])!r}, which is none")
    return counts.reindex(keys, fill_value=0.0).to_numpy()


def _targets(name: str, geography: str, field: str, totals, weight: float | None) -> list[Target]:
    if field not in totals.columns:
        columns = list(map(str, totals.columns))
        raise ValueError(
            f"totals of {geography}: no column {field!r}, the control_field of {name}{near(field, columns)}"
        )
    result = []
    for zone, value in zip(totals[geography], totals[field], strict=True):
        if missing(zone) or missing(value):
            raise ValueError(f"totals of {geography}: expected a zone and a number in every row of {field}")
        shown = "'" + zone.replace("'", "''") + "'" if isinstance(zone, str) else repr(plain(zone))
        label = f"{name}/{geography}={zone}"
        result.append(Target(name, float(value), f"`{geography}` == {shown}", label, name, weight))
    return result
