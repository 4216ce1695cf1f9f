"""Hungarian matching against all permutations."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segedu.ops.matching import hungarian_matching

quick = settings(max_examples=60, deadline=None, derandomize=True)


@given(st.integers(0, 5), st.integers(0, 5), st.integers(0, 999))
@quick
def test_no_permutation_is_cheaper(rows, columns, seed):
    cost = torch.randint(-9, 10, (rows, columns), generator=torch.Generator().manual_seed(seed)).double()
    chosen, partners = hungarian_matching(cost)
    assert len(chosen) == len(partners) == min(rows, columns)
    assert chosen.tolist() == sorted(set(chosen.tolist())) and len(set(partners.tolist())) == len(partners)
    wide = cost if rows <= columns else cost.T
    best = min(
        (
            sum(wide[i, j].item() for i, j in enumerate(p))
            for p in itertools.permutations(range(wide.shape[1]), len(wide))
        ),
        default=0.0,
    )
    assert cost[chosen, partners].sum().item() == best
    assert hungarian_matching(cost + 3.5)[1].equal(partners)


def test_no_gradient_and_any_dtype():
    cost = torch.rand(3, 4, requires_grad=True)
    rows, columns = hungarian_matching(cost)
    assert rows.dtype == columns.dtype == torch.int64 and not columns.requires_grad
    assert hungarian_matching(torch.tensor([[3, 1]]))[1].tolist() == [1]
    assert hungarian_matching(torch.tensor([[3, 1]], dtype=torch.float16))[1].tolist() == [1]


def test_greedy_would_pay_more():
    cost = torch.tensor([[1.0, 2.0], [2.0, 9.0]])
    rows, columns = hungarian_matching(cost)
    assert cost[rows, columns].sum() == pytest.approx(4) and cost.min() + 9 == 10
