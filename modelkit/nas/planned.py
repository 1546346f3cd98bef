"""First candidates around a saved model that are worth more than equal shares: channels go where they cost least."""

from __future__ import annotations

from modelkit.channels.costs import Costs
from modelkit.channels.search import Widths, searched
from modelkit.channels.survey import Survey
from modelkit.data.dataset import Dataset
from modelkit.errors import ModelError
from modelkit.nas.derived import Around, cut_options
from modelkit.nas.space import Genome
from modelkit.progress import Progress, silent


def planned(problem: Around, training: Dataset, progress: Progress = silent) -> tuple[Genome, ...]:
    """Candidates that cost as much as the uniformly scaled ones, with the channels spread by what each cut does.

    Each group alone is cut to each of its widths, what is left is repaired, and the error at the next layers is
    measured; then error is spent where it buys most multiply-accumulates (``modelkit.channels.search.searched``).

    Args:
        problem: The space; nothing is planned where it has no widths.
        training: Samples to measure on.
        progress: Told how far the work is.

    Returns:
        One for each uniformly scaled model but the whole one, the widest first, without repetitions.
    """
    values = {str(v.path[1]): v.values for v in problem.space.variables if v.path[0] == "widths"}
    if not values or not problem.options.planned:
        return ()
    survey = Survey(problem.model.clone(), cut_options(problem.options), training)
    survey.widths = [
        Widths(group.name, group.channels, tuple(sorted({*values.get(group.name, ()), group.channels})))
        for group in survey.groups
    ]
    repaired = problem.options.repair == "least_squares"
    errors = survey.errors("reconstruction", repaired=repaired, progress=progress)
    costs = Costs(survey.model, survey.groups, "macs")
    uniform = problem.first()
    found: list[Genome] = []
    for genome in uniform:
        limit = problem.look(genome).macs
        try:
            plan = searched(survey.widths, errors, costs, limit + 0.5)
        except ModelError:  # not even the narrowest widths cost so little
            continue
        places = list(genome)
        for number, variable in enumerate(problem.space.variables):
            if variable.path[0] == "widths" and plan[str(variable.path[1])] in variable.values:
                places[number] = variable.values.index(plan[str(variable.path[1])])
        found.append(problem.space.settled(places))
    return tuple(each for each in dict.fromkeys(found) if each not in uniform)
