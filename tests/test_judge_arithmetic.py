"""The judge of arithmetic, on a few cases: enough to tell a sum that works from one that does not."""

import dataclasses

import pytest

from ldm_viz.tiny.judge_arithmetic import TARGETS, judge, make_cases
from ldm_viz.tiny.scenes import HELD_OUT


def test_cases_are_the_same_for_the_same_seed_and_change_one_thing():
    cases = make_cases(20, 5)
    assert cases == make_cases(20, 5) != make_cases(20, 6)
    assert len(cases) == 80
    for case in cases:
        assert (case.wanted.object, case.wanted.colour) not in HELD_OUT
        if case.section == "texts: colour":
            assert case.taken in case.base.lower() and case.added not in case.base.lower().split()
        elif case.taken:
            before, after = map(dataclasses.asdict, (case.base, case.wanted))
            assert sum(before[name] != after[name] for name in before) == 1


def test_a_few_cases_reach_the_targets():
    figures = judge(4, 12)
    for name in (
        "texts: colour.object and colour",
        "pictures: colour.colour",
        "pictures: time.time",
    ):
        assert figures[name] >= TARGETS[name] - 0.05, name
    assert figures["pictures alone.object and colour"] == pytest.approx(1.0)
