"""What is special about lab 16: its exercises agree with the library's nnU-Net, and no seed hides a mistake."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from segedu.checks.judge import Answers, draw, judge
from segedu.exercises import lab16_promptable as lab
from segedu.semantic.nnunet_volume import new_shape, resample, thick_axis

BY_NAME = {exercise.name: exercise for exercise in lab.exercises}


@pytest.mark.parametrize("spacing", [(1.0, 1.5, 2.0), (6.0, 1.0, 1.1), (1.0, 0.9, 4.0)])
def test_images_are_resampled_as_the_library_does_with_linear_splines(spacing: tuple[float, ...]) -> None:
    volume, new = np.random.default_rng(0).normal(size=(5, 7, 9)), (spacing[0] / 1.7, 1.2, spacing[2] * 1.3)
    found = BY_NAME["resample_spacing"].reference(volume, list(spacing), list(new), False)
    thick = int(np.argmax(spacing)) if max(spacing) > 3 * min(spacing) else None
    expected = resample(volume, new_shape(volume.shape, spacing, new), thick, order=1)
    assert thick == thick_axis(spacing, spacing)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", list(BY_NAME))
def test_twenty_seeds_refuse_every_wrong_answer(name: str) -> None:
    exercise = BY_NAME[name]
    for seed in range(20):
        answers = Answers(exercise, draw(exercise, seed))
        for wrong in exercise.wrong:
            verdict = judge(exercise, answers.drawn, answers.wrong(wrong), answers)
            assert verdict.points < verdict.max_points, (wrong.name, seed)


def test_no_new_centre_lies_half_way_between_two_voxels() -> None:
    for seed in range(20):
        for _, _, case in draw(BY_NAME["resample_spacing"], seed):
            volume, spacing, new, _ = case["args"]
            for n, a, b in zip(volume.shape, spacing, new, strict=True):
                m, exact = max(round(n * a / b), 1), n * a / b
                assert n % 2 == 1 and abs(exact - np.floor(exact) - 0.5) > 0.1
                assert not any((2 * i + 1) * n % (2 * m) == 0 for i in range(m))


def test_a_solution_has_at_most_thirty_lines() -> None:
    from importlib import util
    from pathlib import Path

    spec = util.spec_from_file_location("alternatives_16", Path(__file__).with_name("alternatives.py"))
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for function in (module.resample_scipy, module.plan_numpy):
        assert len(inspect.getsource(function).splitlines()) <= 30
