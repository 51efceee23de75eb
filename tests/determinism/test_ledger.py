import copy
import json

import numpy as np
import pytest
import torch

from hieros_repro.determinism.fingerprint import digest
from hieros_repro.determinism.ledger import COMPONENTS, MEANINGS, Ledger, describe_all, first_difference
from tests.runs import SHORT, run

KNOWN = {
    "parameters": {"w": torch.tensor([3.0, 4.0])},
    "batch": {"obs": {"vector": torch.arange(6)}, "reward": torch.ones(2)},
    "weights": {"w": torch.tensor([1.0, 2.0])},
    "noise": {"order": np.arange(3)},
    "losses": {"policy": torch.tensor(0.5)},
    "gradients": {"w": torch.tensor([0.1, 0.2])},
}


def tick(n: int) -> tuple[dict, np.ndarray]:
    return {"vector": np.full((2, 3), n, np.float32), "image": np.full((2, 4), n, np.uint8)}, np.array([n, n + 1])


def recorded(ticks: int, every_ticks: int, ledger: Ledger | None = None) -> list[dict]:
    lines: list[dict] = []
    ledger = ledger or Ledger(lines.append, every=1)
    for n in range(ticks):
        ledger.see(*tick(n))
        if (n + 1) % every_ticks == 0:
            ledger.entry(2 * (n + 1), n, KNOWN)
    return lines


def of(lines: list[dict], component: str) -> dict[int, str]:
    return {line["step"]: line["digest"] for line in lines if line["component"] == component}


def test_an_entry_lists_its_components_in_causal_order():
    lines = recorded(ticks=1, every_ticks=1)
    order = ("weights", "observation", "action", "batch", "noise", "losses", "gradients", "parameters")
    assert tuple(line["component"] for line in lines) == order == COMPONENTS


def test_every_component_says_what_to_look_at():
    assert set(MEANINGS) == set(COMPONENTS)


def test_an_entry_says_when_it_was_made():
    assert [(line["step"], line["update"], line["entry"]) for line in recorded(2, 2)] == [(4, 1, "update")] * 8


def test_an_entry_without_a_batch_is_the_runs_last():
    lines: list[dict] = []
    Ledger(lines.append, every=1).entry(10, 3, {"parameters": KNOWN["parameters"]})
    assert [line["entry"] for line in lines] == ["end"] * len(lines)
    assert lines[-1]["component"] == "parameters"


def test_tensors_are_listed_by_dotted_name_with_digest_head_and_norm():
    lines = recorded(1, 1)
    batch = next(line for line in lines if line["component"] == "batch")
    assert list(batch["tensors"]) == ["obs.vector", "reward"]
    assert batch["tensors"]["obs.vector"] == {"digest": digest(torch.arange(6)), "head": [0, 1, 2, 3]}
    parameters = next(line for line in lines if line["component"] == "parameters")
    assert parameters["tensors"]["w"] == {"digest": digest(torch.tensor([3.0, 4.0])), "head": [3.0, 4.0], "norm": 5.0}


@pytest.mark.parametrize("component", ["observation", "action"])
def test_the_cadence_does_not_change_digests_of_experience(component):
    often, seldom = of(recorded(12, 1), component), of(recorded(12, 4), component)
    assert len(seldom) == 3
    assert seldom == {step: often[step] for step in seldom}


def test_a_difference_between_two_entries_is_seen_by_the_next():
    lines: list[dict] = []
    ledger = Ledger(lines.append, every=1)
    for n in range(4):
        obs, action = tick(n)
        if n == 1:
            obs["vector"][1, 2] = np.nextafter(np.float32(1), np.float32(2))
        ledger.see(obs, action)
    ledger.entry(8, 3, KNOWN)
    assert of(lines, "observation") != of(recorded(4, 4), "observation")
    assert of(lines, "action") == of(recorded(4, 4), "action")


def test_much_experience_is_digested_before_the_next_entry(monkeypatch):
    expected = of(recorded(12, 12), "observation")
    monkeypatch.setattr("hieros_repro.determinism.ledger.PENDING_BYTES", 50)
    assert of(recorded(12, 12), "observation") == expected


def test_a_ledger_restored_in_the_middle_continues_its_streams():
    lines: list[dict] = []
    first = Ledger(lambda line: None, every=1)
    for n in range(5):
        first.see(*tick(n))
    second = Ledger(lines.append, every=1)
    second.load(copy.deepcopy(first.state()))
    for n in range(5, 8):
        second.see(*tick(n))
    second.entry(16, 7, KNOWN)
    expected = recorded(8, 8)
    assert of(lines, "observation") == of(expected, "observation")
    assert of(lines, "action") == of(expected, "action")


def test_taking_the_state_changes_nothing():
    lines: list[dict] = []
    ledger = Ledger(lines.append, every=1)
    for n in range(8):
        ledger.see(*tick(n))
        ledger.state()
    ledger.entry(16, 7, KNOWN)
    assert lines[1]["digest"] == of(recorded(8, 8), "observation")[16]


def test_a_ledger_that_is_off_sees_nothing():
    ledger = Ledger(lambda line: None, every=0)
    ledger.see(*tick(0))
    assert ledger.state() == {"streams": {"observation": {}, "action": {}}, "ticks": {"observation": "", "action": ""}}


def test_named_tensors_have_one_digest_whatever_their_order():
    a, b = torch.arange(3), torch.arange(4)
    assert describe_all({"a": a, "b": b}) == describe_all({"b": b, "a": a}) != describe_all({"a": b, "b": a})


# Comparing


def test_equal_ledgers_have_no_difference_and_say_how_much_was_compared():
    assert first_difference(recorded(3, 1), recorded(3, 1)) == (None, 24)


@pytest.mark.parametrize("component", COMPONENTS)
def test_the_first_difference_names_component_step_and_tensors(component):
    a, b = recorded(5, 1), recorded(5, 1)
    for line in b:
        later = COMPONENTS.index(line["component"]) >= COMPONENTS.index(component)
        if line["step"] > 6 or (line["step"] == 6 and later):
            name = next(iter(line["tensors"]))
            line["digest"] = line["tensors"][name]["digest"] = "changed"
    found, _ = first_difference(a, b)
    assert (found.component, found.step, found.update, found.agreed) == (component, 6, 2, 4)
    [(left, right)] = found.tensors.values()
    assert left["digest"] != right["digest"] == "changed"


def test_a_tensor_that_only_one_run_has_is_named():
    a, b = recorded(1, 1), recorded(1, 1)
    batch = next(line for line in b if line["component"] == "batch")
    batch["digest"] = "changed"
    del batch["tensors"]["reward"]
    assert first_difference(a, b)[0].tensors["reward"][1] is None


def test_ledgers_of_different_cadence_are_compared_where_they_meet():
    assert first_difference(recorded(12, 1), recorded(12, 4)) == (None, 24)


def test_a_runs_ledger_is_the_same_at_common_entries_whatever_the_cadence(tmp_path):
    assert "run.fingerprint_every=1" in SHORT
    often, seldom = run(tmp_path / "often", "log.terminal=quiet"), run(tmp_path / "seldom", "run.fingerprint_every=250")
    lines = [[json.loads(line) for line in (f / "ledger.jsonl").read_text().splitlines()] for f in (often, seldom)]
    assert len(lines[1]) < len(lines[0])
    difference, compared = first_difference(*lines)
    assert difference is None
    assert compared == len([line for line in lines[1] if line["entry"] == "update"])


def walked(changes: dict[str, int], ticks: int = 6, every_ticks: int = 6) -> list[dict]:
    """Entries over ticks whose observations and actions are others from the given tick on; observation 0 precedes action 1."""
    lines: list[dict] = []
    ledger = Ledger(lines.append, every=1)
    obs, action = tick(0)
    ledger.see(obs)
    for n in range(1, ticks + 1):
        obs, action = tick(n)
        ledger.see(
            {**obs, "vector": obs["vector"] + (n >= changes.get("observation", ticks + 1))},
            action + (n >= changes.get("action", ticks + 1)),
        )
        if n % every_ticks == 0:
            ledger.entry(2 * n, n, KNOWN)
    return lines


@pytest.mark.parametrize(
    "changes, component, ticks_before",
    [
        ({"action": 3, "observation": 3}, "action", 3),  # the action led to the observation of its own tick
        ({"action": 3, "observation": 4}, "action", 3),
        ({"action": 4, "observation": 3}, "observation", 3),
        ({"action": 6}, "action", 0),
        ({"observation": 6}, "observation", 0),
    ],
)
def test_of_observations_and_actions_the_one_that_came_first_is_named(changes, component, ticks_before):
    found, _ = first_difference(walked({}), walked(changes))
    assert (found.component, found.step, found.ticks_before) == (component, 12, ticks_before)


def test_the_order_is_told_across_other_cadences_as_far_as_both_remember():
    found, _ = first_difference(walked({}, every_ticks=3), walked({"action": 5, "observation": 5}))
    assert (found.component, found.step, found.ticks_before) == ("action", 12, 1)


def test_marks_of_ticks_survive_a_restart():
    whole = walked({})
    first, lines = Ledger(lambda line: None, every=1), []
    second = Ledger(lines.append, every=1)
    first.see(tick(0)[0])
    for n in range(1, 7):
        if n == 4:
            second.load(copy.deepcopy(first.state()))
        (first if n < 4 else second).see(*tick(n))
    second.entry(12, 6, KNOWN)
    assert lines == whole
