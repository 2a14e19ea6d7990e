"""Plans as models write them become plans that can be carried out."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.agents.plan import PlanStep, plan_schema, read_plan


def read(*steps: dict, **fields: object) -> tuple[PlanStep, ...]:
    return read_plan(json.dumps({"steps": steps}), tools=("toy",), max_steps=5, **fields)  # type: ignore[arg-type]


def step(number: int, *needs: int, goal: str = "do it", tool: str = "toy") -> dict:
    return {"id": number, "goal": goal, "tool": tool, "depends_on": list(needs)}


def test_a_good_plan_stays_as_it_is() -> None:
    assert read(step(1), step(2, 1, tool="none")) == (PlanStep(1, "do it", "toy"), PlanStep(2, "do it", "", (1,)))


def test_too_many_steps_are_cut_and_nothing_needs_what_was_cut() -> None:
    steps = read(*(step(number, 50) for number in range(1, 51)))
    assert [one.id for one in steps] == [1, 2, 3, 4, 5]
    assert not any(one.depends_on for one in steps)


def test_steps_get_new_numbers_and_their_needs_follow() -> None:
    assert [(one.id, one.depends_on) for one in read(step(30), step(10, 30))] == [(1, ()), (2, (1,))]


def test_new_steps_may_need_what_is_done() -> None:
    assert read(step(4, 1), first_id=4, done=[1, 2]) == (PlanStep(4, "do it", "toy", (1,)),)


def test_of_a_circle_one_dependency_is_dropped_and_the_others_stay() -> None:
    steps = read(step(1, 2), step(2, 3), step(3, 2))
    assert [one.depends_on for one in steps] == [(2,), (), (2,)]


@pytest.mark.parametrize(
    "text", ["", "no", "{}", "[]", '{"steps": []}', '{"steps": [{"id": 1}]}', '{"steps": 3}', "{{{", "null"]
)
def test_no_plan_is_no_plan(text: str) -> None:
    assert read_plan(text, tools=(), max_steps=5) == ()


def test_a_plan_inside_prose_is_found() -> None:
    text = f"Here you are:\n```json\n{json.dumps({'steps': [step(1)]})}\n```"
    assert len(read_plan(text, tools=(), max_steps=5)) == 1


@given(st.lists(st.lists(st.integers(-2, 12), max_size=6), max_size=12))
def test_whatever_needs_what_every_step_can_be_reached(needs: list[list[int]]) -> None:
    steps = read(*(step(number, *wanted) for number, wanted in enumerate(needs)))
    done: set[int] = set()
    while ready := [one for one in steps if one.id not in done and done.issuperset(one.depends_on)]:
        done |= {one.id for one in ready}
    assert done == {one.id for one in steps}
    assert len(steps) == min(5, len(needs))


def test_the_schema_bounds_the_steps() -> None:
    assert plan_schema(["toy"], 7)["properties"]["steps"]["maxItems"] == 7
