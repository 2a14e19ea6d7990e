"""A plan: steps with goals, some of which need the results of others. Whatever a model writes, a plan that leaves here
can be carried out: every dependency exists, none leads back to its own step, and there are not too many steps.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from backend.core.llm.toolset import parse_json

MAX_GOAL_CHARS = 1_000
NO_TOOL = "none"


@dataclass(frozen=True, slots=True)
class PlanStep:
    id: int
    goal: str
    tool: str = ""  # empty: none in particular
    depends_on: tuple[int, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {"id": self.id, "goal": self.goal, "tool": self.tool or None, "depends_on": list(self.depends_on)}


def plan_schema(tools: Sequence[str], max_steps: int) -> dict[str, Any]:
    step = {
        "type": "object",
        "properties": {
            "id": {"type": "integer"},
            "goal": {"type": "string", "minLength": 1, "maxLength": 300},
            "tool": {"enum": [*tools, NO_TOOL]},
            "depends_on": {"type": "array", "items": {"type": "integer"}, "maxItems": max_steps},
        },
        "required": ["id", "goal", "tool", "depends_on"],
        "additionalProperties": False,
    }
    steps = {"type": "array", "items": step, "minItems": 1, "maxItems": max_steps}
    return {"type": "object", "properties": {"steps": steps}, "required": ["steps"], "additionalProperties": False}


def read_plan(
    text: str, *, tools: Sequence[str], max_steps: int, first_id: int = 1, done: Iterable[int] = ()
) -> tuple[PlanStep, ...]:
    """The steps of a plan, numbered from `first_id` on; empty where there are none.

    Args:
        done: steps of an earlier plan, which new ones may depend on.
    """
    written = [step for step in _written_steps(text) if _goal_of(step)][:max_steps]
    numbers = {number: number for number in done}
    for place, step in enumerate(written):
        numbers[_id_of(step, place + first_id)] = place + first_id
    steps = [
        PlanStep(
            place + first_id,
            _goal_of(step),
            _text_among(tools, step.get("tool")),
            tuple(sorted({numbers[need] for need in _list(step.get("depends_on")) if _is_number(need, numbers)})),
        )
        for place, step in enumerate(written)
    ]
    return _without_circles(steps, set(done))


def _written_steps(text: str) -> list[dict[str, Any]]:
    plan = parse_json(text[text.find("{") : text.rfind("}") + 1]) if "{" in text else None
    plan = plan if plan is not None else parse_json(text)
    steps = plan.get("steps") if isinstance(plan, dict) else plan
    return [step for step in _list(steps) if isinstance(step, dict)]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _is_number(value: Any, numbers: Mapping[int, int]) -> bool:
    return isinstance(value, int) and value in numbers


def _text_among(known: Iterable[str], value: Any) -> str:
    return value if isinstance(value, str) and value in known else ""


def _goal_of(step: Mapping[str, Any]) -> str:
    goal = step.get("goal")
    return " ".join(goal.split())[:MAX_GOAL_CHARS] if isinstance(goal, str) else ""


def _id_of(step: Mapping[str, Any], otherwise: int) -> int:
    number = step.get("id")
    return number if isinstance(number, int) else otherwise


def _without_circles(steps: Sequence[PlanStep], reachable: set[int]) -> tuple[PlanStep, ...]:
    """The steps without the dependencies that lead back to their own step."""
    waiting = {step.id: step for step in steps}
    free: dict[int, PlanStep] = {}
    while waiting:
        ready = [step for step in waiting.values() if reachable.issuperset(step.depends_on)]
        if not ready:
            circle = _find_circle(waiting)
            first = waiting[min(circle)]
            waiting[first.id] = replace(first, depends_on=tuple(n for n in first.depends_on if n not in circle))
        for step in ready:
            free[step.id] = waiting.pop(step.id)
            reachable.add(step.id)
    return tuple(free[step.id] for step in steps)


def _find_circle(waiting: Mapping[int, PlanStep]) -> list[int]:
    """Steps that need each other in turn. There are some, where every step needs another one that waits."""
    path: list[int] = []
    number = next(iter(waiting))
    while number not in path:
        path.append(number)
        number = next(need for need in waiting[number].depends_on if need in waiting)
    return path[path.index(number) :]
