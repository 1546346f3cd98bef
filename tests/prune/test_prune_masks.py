"""Masks: exact counts, N of every M, whole blocks, nested in one another."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sparse_nets import layers_of, one_layer

from modelkit.errors import ModelError, UsageError
from modelkit.prune.config import PruneConfig
from modelkit.prune.weights import masks
from modelkit.prune.weights.goal import Goal, check_alive
from modelkit.prune.weights.schedule import cubic

shares = st.floats(0, 0.99)
scores = arrays(
    np.float64,
    st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 12)),
    elements=st.sampled_from([0.0, 1.0, 2.0, 3.5, 7.0]),
)


@given(scores, shares)
def test_drop_takes_the_lowest_and_exactly_as_many(score, share):
    keep = masks.drop(score, share)
    assert (~keep).sum() == masks.count_of(share, score.size)
    if keep.any() and not keep.all():
        assert score[~keep].max() <= score[keep].min()


@given(scores, shares)
def test_rows_lose_the_same_share(score, share):
    keep = masks.lowest_of_rows(score, share)
    gone = (~keep).sum(axis=-1)
    assert gone.sum() == masks.count_of(share, score.size) and gone.max() - gone.min() <= 1
    for row, kept in zip(score.reshape(-1, score.shape[-1]), keep.reshape(-1, score.shape[-1]), strict=True):
        if kept.any() and not kept.all():
            assert row[~kept].max() <= row[kept].min()


@given(scores, shares, shares)
def test_a_higher_share_only_adds_zeros(score, one, other):
    low, high = sorted((one, other))
    for choose in (masks.drop, masks.lowest_of_rows, lambda s, share: masks.blocks(s, 2, 3, s.shape[2], share)):
        assert not (choose(score, high) & ~choose(score, low)).any()


@given(scores, st.integers(1, 5), st.integers(1, 4), st.integers(1, 3))
def test_n_of_every_m_within_a_run(score, n, more, runs):
    m, run = n + more, score.shape[2]
    score = np.tile(score, runs)
    keep = masks.n_of_m(score, n, m, run)
    for start in range(0, score.shape[2], run):
        for at in range(start, start + run, m):
            part = slice(at, min(at + m, start + run))
            assert (keep[..., part].sum(axis=-1) == min(n, part.stop - at)).all()
            worst = np.where(keep[..., part], score[..., part], np.inf).min(axis=-1)
            best = np.where(keep[..., part], -np.inf, score[..., part]).max(axis=-1)
            assert (best <= worst).all()


@given(scores, st.integers(1, 4), st.integers(1, 4), st.integers(1, 2), shares)
def test_blocks_go_as_a_whole(score, rows, columns, runs, share):
    run = score.shape[2]
    score = np.tile(score, runs)
    keep = masks.blocks(score, rows, columns, run, share)
    assert (~keep).sum() <= masks.count_of(share, score.size)
    for group, top, start in np.ndindex(len(score), -(-score.shape[1] // rows), runs):
        for at in range(start * run, (start + 1) * run, columns):
            block = keep[group, top * rows : (top + 1) * rows, at : min(at + columns, (start + 1) * run)]
            assert block.all() or not block.any()


def test_shares_are_read_as_decimals():
    # 0.29 * 100 is 28.999999999999996.
    assert masks.count_of(0.29, 100) == 29
    assert masks.count_of(0.0, 7) == 0 and masks.count_of(0.999, 7) == 6


def test_patterns_are_read():
    assert masks.parse("2:4") == masks.Pattern(2, 4, False) and str(masks.parse("2:4")) == "2:4"
    assert masks.parse("16x2") == masks.Pattern(16, 2, True) and str(masks.parse("16x2")) == "16x2"


def model_of(*arrays):
    """Layers of one model each; what counts is their weights."""
    return [layers_of(one_layer("Gemm", (1, len(a)), {1: a.astype(np.float32)}))[0] for a in arrays]


@given(st.lists(arrays(np.float64, (4, 5), elements=st.floats(0, 9)), min_size=2, max_size=3), shares)
def test_all_layers_together_lose_the_share(found, share):
    goals = Goal(share, together=True).for_each(found)
    gone = sum(masks.count_of(goal.sparsity, score.size) for goal, score in zip(goals, found, strict=True))
    assert gone == masks.count_of(share, 20 * len(found))
    assert not any(goal.together for goal in goals)


def test_columns_of_a_group_never_cross_a_run():
    [layer] = layers_of(one_layer("Conv", (1, 6, 5, 5), {1: np.ones((2, 6, 2, 1), np.float32)}))
    assert Goal(0, pattern=masks.parse("2:4")).ends(layer, 128) == [4, 6, 10, 12]
    assert Goal(0.5).ends(layer, 5) == [5, 10, 12]


@given(st.lists(arrays(np.float64, (3, 7), elements=st.floats(0, 9)), min_size=1, max_size=5), shares)
def test_groups_chosen_one_after_another_lose_the_share_exactly(found, share):
    choose = Goal(share).chooser()
    gone = sum(int((~choose(score, 0, 7)).sum()) for score in found)
    assert gone == masks.count_of(share, 21 * len(found))


def test_what_cannot_be_meant_is_refused_with_the_layers_name():
    layers = model_of(np.full((4, 3), 0.1), np.full((4, 3), 2.0))
    with pytest.raises(UsageError, match="no weight of 'w1' would be left: the largest has magnitude"):
        Goal.of(PruneConfig(threshold=0.5)).check(layers)
    with pytest.raises(ModelError, match="the pattern 4:8 leaves every weight: no layer has more than 4 inputs"):
        Goal.of(PruneConfig(pattern="4:8")).check(layers)
    Goal.of(PruneConfig(pattern="2:4")).check(layers)
    with pytest.raises(ModelError, match="'x' would lose all of its 2 weights"):
        check_alive("x", np.array([1.0, 0.0]), np.array([False, True]))
    check_alive("zero before", np.zeros(2), np.array([False, True]))


def test_the_cubic_schedule_ends_where_it_should():
    steps = cubic(0.0, 0.8, 4)
    assert steps[-1] == 0.8 and steps == sorted(steps) and len(steps) == 4
    assert steps[0] == pytest.approx(0.8 * (1 - 0.75**3))
    assert cubic(0.9, 0.8, 3) == [0.8, 0.8, 0.8] and cubic(0.0, 0.5, 1) == [0.5]
