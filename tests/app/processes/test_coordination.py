"""What the supervisor makes of what its worker processes say; they are played here."""

import asyncio
from typing import Any, cast

import pytest

from app.processes import coordination
from app.processes.child import Child
from app.processes.coordination import Coordination
from app.processes.merging import Family

pytestmark = pytest.mark.anyio

V1, V2 = ({"model": "m", "version": str(each), "manifest_sha256": str(each) * 64} for each in (1, 2))


class Played:
    """A worker process that says and does what a test wants."""

    def __init__(self, crew: Coordination, number: int, *, first: bool = True) -> None:
        self.number, self.first = number, first
        self.serving = self.in_step = True
        self.ready = False
        self.body: dict[str, Any] | None = None
        self.required: list[str] | None = None
        self.figures: list[Family] = []
        self.heard: list[dict[str, Any]] = []
        self.channel = self
        self.answered = asyncio.Event()
        self._crew = crew
        self._asked: asyncio.Future[None] | None = None
        crew.add(cast(Child, self))

    def says(self, kind: str, **fields: object) -> None:
        self._crew.hear(cast(Child, self), {"kind": kind, **fields})

    def serves(self, version: str, *, ready: bool = True) -> None:
        status = "ready" if ready else "not_ready"
        models = {"m": {"ready": True, "version": version, "refused": None}}
        self.says("state", ready=ready, body={"status": status, "detail": f"of {self.number}", "models": models})

    def counts(self, value: float, *, asked: bool = False) -> None:
        self.says("figures", asked=asked, figures=counted(value))

    def dies(self) -> None:
        self._crew.remove(cast(Child, self))

    def last(self, kind: str) -> dict[str, Any]:
        return [each for each in self.heard if each["kind"] == kind][-1]

    # What the coordination uses.

    def say(self, kind: str, **fields: object) -> None:
        self.heard.append({"kind": kind, **fields})
        if kind == "others":
            self.answered.set()

    def ask_figures(self) -> "asyncio.Future[None]":
        self._asked = asyncio.get_running_loop().create_future()
        return self._asked

    def hear_figures(self, figures: list[Family], *, asked: bool) -> None:
        self.figures = figures
        if asked and self._asked is not None:
            self._asked.set_result(None)


def counted(value: float) -> list[Family]:
    return [{"name": "n", "text": "", "type": "counter", "samples": [("n_total", {}, value)]}]


def total(message: dict[str, Any]) -> float:
    families = [family for figures in message["figures"] for family in figures if family["name"] == "n"]
    return float(sum(value for family in families for _, _, value in family["samples"]))


@pytest.fixture
def crew() -> Coordination:
    return Coordination()


@pytest.fixture
def pair(crew: Coordination) -> tuple[Played, Played]:
    """Two that serve version 1."""
    one, two = Played(crew, 1), Played(crew, 2)
    for each in (one, two):
        each.says("stand", **V1)
        each.serves("1")
    return one, two


def test_the_service_is_ready_once_all_are_that_it_began_with(crew: Coordination) -> None:
    one, two = Played(crew, 1), Played(crew, 2)
    assert one.last("service") == {"kind": "service", "ready": False, "body": None}
    one.serves("1")
    assert not one.last("service")["ready"]
    two.serves("1", ready=False)
    assert one.last("service")["body"]["detail"] == "of 2"
    two.serves("1")
    assert one.last("service") == two.last("service") == {"kind": "service", "ready": True, "body": None}


def test_while_one_is_replaced_the_others_keep_the_service_ready(
    crew: Coordination, pair: tuple[Played, Played]
) -> None:
    one, two = pair
    two.dies()
    replacement = Played(crew, 2, first=False)
    replacement.serves("1", ready=False)
    assert one.last("service")["ready"]
    assert replacement.last("service")["ready"]
    one.dies()
    assert not replacement.last("service")["ready"]
    replacement.serves("1")
    assert replacement.last("service")["ready"]


def test_what_is_required_of_one_that_joins_is_what_the_others_require(crew: Coordination) -> None:
    one, two = Played(crew, 1), Played(crew, 2)
    required = [crew.required]
    two.says("require", models=["m"])
    required.append(crew.required)
    for each in (one, two):
        each.dies()
        required.append(crew.required)
    assert required == [None, ["m"], ["m"], None]


def test_all_are_told_to_swap_once_the_last_stands_at_it(pair: tuple[Played, Played]) -> None:
    one, two = pair
    one.says("stand", **V2)
    assert one.last("go")["version"] == "1"
    two.says("stand", **V2)
    assert one.last("go") == two.last("go") == {"kind": "go", **V2}


def test_who_serves_another_version_than_was_decided_is_out_of_step(
    crew: Coordination, pair: tuple[Played, Played]
) -> None:
    one, two = pair
    late = Played(crew, 3, first=False)
    late.says("stand", **V1)
    for each in (one, two):
        each.says("stand", **V2)
    late.serves("1")
    for each in (one, two):
        each.serves("2")
    assert (one.in_step, two.in_step, late.in_step) == (True, True, False)
    late.says("stand", **V2)
    assert late.last("go")["version"] == "2"
    late.serves("2")
    assert late.in_step


def test_a_refusal_is_passed_on_to_the_others_only(pair: tuple[Played, Played]) -> None:
    one, two = pair
    one.says("stand", **V2)
    two.says("refuse", **V2, error="FileCorrupt", detail="why")
    assert one.last("refuse") == {"kind": "refuse", **V2, "error": "FileCorrupt", "detail": "why"}
    assert not [each for each in two.heard if each["kind"] == "refuse"]


def test_that_a_model_was_changed_is_passed_on_to_the_others_only(pair: tuple[Played, Played]) -> None:
    one, other = pair
    one.says("look", model="m")
    assert other.last("look") == {"kind": "look", "model": "m"}
    assert "look" not in [each["kind"] for each in one.heard]


def test_who_stood_at_a_version_before_it_heard_of_the_refusal_does_not_stand_at_it(
    crew: Coordination, pair: tuple[Played, Played]
) -> None:
    one, two = pair
    one.says("refuse", **V2, error="FileCorrupt", detail="why")
    two.says("stand", **V2)  # The two messages cross.
    two.says("let_go", **V2)
    one.says("stand", **V2)  # It could load it after all; the other holds it no longer.
    assert crew.agreement.decided["m"].version == "1"
    two.says("stand", **V2)
    assert crew.agreement.decided["m"].version == "2"


def test_who_takes_the_place_of_one_that_had_to_let_go_may_stand_at_the_version(
    crew: Coordination, pair: tuple[Played, Played]
) -> None:
    one, two = pair
    one.says("refuse", **V2, error="FileCorrupt", detail="why")
    two.dies()
    replacement = Played(crew, 2, first=False)
    replacement.serves("1")
    for each in (one, replacement):
        each.says("stand", **V2)
    assert crew.agreement.decided["m"].version == "2"


async def test_figures_are_those_of_all_of_the_dead_and_of_one_that_hangs_the_last_known(
    crew: Coordination, pair: tuple[Played, Played], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coordination, "FIGURES_WITHIN_S", 0.01)
    one, two = pair
    dead, hangs = Played(crew, 3), Played(crew, 4)
    dead.counts(100)
    dead.dies()
    hangs.counts(10)
    one.says("others", request=7, figures=counted(5))
    await asyncio.sleep(0)
    two.counts(1, asked=True)
    await one.answered.wait()
    answer = one.last("others")
    assert (answer["request"], total(answer)) == (7, 111)
    # What the asker showed counts, even if it dies before it says more.
    one.dies()
    two.says("others", request=8, figures=counted(1))
    await two.answered.wait()
    assert total(two.last("others")) == 115


async def test_what_nobody_is_left_to_serve_does_not_bind_those_that_come_next() -> None:
    crew = Coordination()
    both = [Played(crew, 1), Played(crew, 2)]
    for each in both:
        each.says("stand", **V1)
        each.serves("1")
    both[0].dies()
    assert crew.agreement.decided
    both[1].dies()
    assert not crew.agreement.decided
    third = Played(crew, 1, first=False)
    third.says("stand", **V2)
    assert third.last("go")["version"] == "2"


async def test_one_that_was_replaced_already_does_not_take_its_successor_along() -> None:
    crew = Coordination()
    before = Played(crew, 1)
    after = Played(crew, 1, first=False)
    before.dies()
    assert list(crew.children.values()) == [cast(Child, after)]
