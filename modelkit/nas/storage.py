"""A database that several machines share: each one's finished trials, through Optuna's storage."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Mapping
from typing import Any

from modelkit.errors import ResourceError, UsageError
from modelkit.files import shown
from modelkit.nas.study import check_facts, record_of, trial_of
from modelkit.nas.trials import Trial

_RECORD, _FACTS, _MADE_BY = "modelkit.trial", "modelkit.facts", "modelkit.made_by"

_ATTEMPTS = 5  # to open a study whose tables others make just now
_PACKAGES = {"psycopg": "'psycopg[binary]'", "psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient"}


class Shared:
    """Trials in a database.

    Args:
        url: Such as ``sqlite:///study.db`` or ``postgresql://user@host/name``.
        study: Name of the study in it; made where it is not there.
        facts: What must be the same on all machines: the space, the data, the seed apart.
        maker: Tells this process from others.

    Raises:
        UsageError: The URL cannot be read, its driver is not installed, or the study is one of another space.
        ResourceError: The database cannot be reached.
    """

    def __init__(self, url: str, study: str, facts: Mapping[str, Any], maker: str) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._maker, self._seen = maker, 0
        if "://" not in url:
            raise UsageError(
                f"'{shown(url)}' is no URL of a database", "such as sqlite:///study.db or postgresql://user@host/name"
            )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._study = _opened(url, study)
                was = self._study.user_attrs.get(_FACTS)
                if was is None:
                    self._study.set_user_attr(_FACTS, dict(facts))
        except ImportError as error:
            driver = _missing(error)
            raise UsageError(
                f"the storage '{_safe(url)}' needs the package {driver}, which is not installed",
                f"pip install {_PACKAGES.get(driver, driver)}",
            ) from error
        except Exception as error:  # SQLAlchemy's classes, and those of each driver
            raise _unreachable(url, error) from error
        self._url = url
        if was is not None:
            check_facts(was, facts, f"the study '{shown(study)}' in '{_safe(url)}'")

    def push(self, trial: Trial) -> None:
        """Add a trial that has ended.

        Raises:
            ResourceError: The database cannot be reached any more.
        """
        import optuna

        record = json.dumps(record_of(trial))
        try:
            self._study.add_trial(
                optuna.trial.create_trial(
                    value=float(trial.figures["error"]), user_attrs={_RECORD: record, _MADE_BY: self._maker}
                )
            )
        except Exception as error:
            raise _unreachable(self._url, error) from error

    def pull(self) -> list[Trial]:
        """Trials of other machines that were not seen before; none of this process.

        Raises:
            ResourceError: The database cannot be reached any more.
        """
        try:
            found = self._study.get_trials(deepcopy=False)
        except Exception as error:
            raise _unreachable(self._url, error) from error
        fresh, self._seen = found[self._seen :], len(found)
        others = [t for t in fresh if _RECORD in t.user_attrs and t.user_attrs.get(_MADE_BY) != self._maker]
        return [trial_of(json.loads(t.user_attrs[_RECORD])) for t in others]


def _opened(url: str, study: str) -> Any:
    """The study; where two machines make the tables at the same moment, the slower one finds them at the next try."""
    import optuna

    for attempt in range(_ATTEMPTS):
        try:
            return optuna.create_study(storage=url, study_name=study, load_if_exists=True)
        except Exception as error:
            if attempt == _ATTEMPTS - 1 or "already exists" not in str(error):
                raise
            time.sleep(0.2 * (attempt + 1))
    raise AssertionError("unreachable")


def _missing(error: ImportError) -> str:
    """The driver that could not be imported: Optuna's own error names none, the one that it came from does."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, ImportError) and found.name:
            return found.name
        found = found.__cause__ or found.__context__
    return " ".join(str(error).split())


def _unreachable(url: str, error: Exception) -> ResourceError | UsageError:
    said = " ".join(str(getattr(error, "orig", None) or error).split())[:200]
    if type(error).__name__ in ("ArgumentError", "NoSuchModuleError"):
        return UsageError(f"the storage '{_safe(url)}' is no URL that can be used: {said}")
    return ResourceError(
        f"the storage '{_safe(url)}' cannot be reached: {said}",
        "is the server running, does the folder exist, and may this user write there?",
    )


def _safe(url: str) -> str:
    """A URL without its password."""
    scheme, _, rest = url.partition("://")
    user, at, host = rest.rpartition("@")
    return shown(f"{scheme}://{user.partition(':')[0]}{at}{host}")
