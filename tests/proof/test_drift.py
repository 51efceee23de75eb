import math
import shutil

import numpy as np
import pytest
import torch

from hieros_repro.proof.drift import drift, gap, numbers
from hieros_repro.records import UserError
from hieros_repro.run import checkpoint
from tests.runs import process, run, stopped


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return run(tmp_path_factory.mktemp("whole") / "run")


def perturbed(whole, folder, change):
    """A copy whose last checkpoint differs in what `change` does to its parts; its files are as whole as the original's."""
    shutil.copytree(whole, folder)
    step = checkpoint.steps(folder / "checkpoints")[-1]
    parts, facts = checkpoint.load(folder / "checkpoints" / f"step_{step}")
    change(parts)
    kept = {name: value for name, value in facts.items() if name not in ("format", "name", "files")}
    checkpoint.save(folder / "checkpoints", f"step_{step}", parts, kept)
    return folder


def last_row(text):
    return [cell.strip() for cell in [line for line in text.splitlines() if line.startswith("|")][-1].strip("|").split("|")]


def test_the_largest_differences_by_hand():
    a = {"x": np.array([1.0, 2.0, 4.0]), "y": np.array([10.0]), "z": np.array([0.0])}
    b = {"x": np.array([1.0, 2.5, 4.0]), "y": np.array([9.0]), "z": np.array([0.0])}
    found = gap(a, b)
    assert (found.absolute, found.name, found.differing) == (1.0, "y", 2)
    assert found.relative == pytest.approx(0.2)  # |2 - 2.5| / 2.5, more than 1 / 10


@pytest.mark.parametrize("other", [{}, {"x": np.zeros(3)}, {"x": np.array([math.nan, 1.0])}])
def test_what_cannot_be_subtracted_is_infinitely_far(other):
    assert gap({"x": np.array([0.0, 1.0])}, other).absolute == math.inf


def test_equal_nans_and_infinities_do_not_differ():
    array = np.array([math.nan, math.inf])
    assert gap({"x": array}, {"x": array.copy()}) == (0.0, 0.0, "-", 0)


def test_numbers_are_found_in_any_nest():
    tree = {"a": [torch.ones(2), {"b": 3}], "text": "t", "none": None, "list": [1.0, 2.0], "complex": torch.tensor([1 + 2j])}
    found = {name: array.tolist() for name, array in numbers(tree)}
    assert found == {"a.0": [1.0, 1.0], "a.1.b": 3.0, "list": [1.0, 2.0], "complex": [[1.0, 2.0]]}


def test_a_run_is_at_no_distance_from_itself(whole):
    equal, text = drift(whole, whole)
    assert equal and text.endswith("equal at every common checkpoint")
    rows = [line for line in text.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == len(checkpoint.steps(whole / "checkpoints")) and all("0 differ" in row for row in rows)


def test_a_resumed_run_is_at_no_distance_from_the_original(whole, tmp_path):
    pieces = stopped(tmp_path / "pieces", 120)
    run(pieces, f"resume={pieces}", usual=())
    equal, text = drift(whole, pieces)
    assert equal and last_row(text)[0] == "600"


def test_one_element_of_one_parameter_is_found(whole, tmp_path):
    def change(parts):
        parts["agent"]["parameters"]["critic.weight"][0, 3] += 0.5

    equal, text = drift(whole, perturbed(whole, tmp_path / "other", change))
    cells = last_row(text)
    assert not equal and cells[1:3] == ["1 differ", "0.5"] and cells[4] == "critic.weight" and "inf:" not in text
    assert cells[5:7] == ["0", "-"] and cells[7:9] == ["0", "-"] and cells[9] == "0"


def test_the_state_of_the_optimiser_metrics_and_scores_have_columns_of_their_own(whole, tmp_path):
    def change(parts):
        parts["agent"]["optimiser"]["mean"][7] += 0.25
        parts["loop"]["counters"]["learned"]["ppo/entropy"] += 2.0
        parts["loop"]["counters"]["evaluations"][-1][1] += 8.0

    equal, text = drift(whole, perturbed(whole, tmp_path / "other", change))
    cells = last_row(text)
    assert not equal and cells[1] == "0 differ"
    assert cells[5:] == ["0.25", "agent.optimiser.mean", "2", "ppo/entropy", "8"]


def test_what_only_one_has_is_listed_and_explained(whole, tmp_path):
    def change(parts):
        del parts["agent"]["parameters"]["critic.weight"]

    other = perturbed(whole, tmp_path / "other", change)
    first = checkpoint.steps(other / "checkpoints")[0]
    shutil.rmtree(other / "checkpoints" / f"step_{first}")
    equal, text = drift(whole, other)
    assert not equal and f"only A has checkpoints of step {first}\n" in text and "only B" not in text
    assert last_row(text)[2] == "inf" and "inf: what `of` names is absent or of another shape in the other run" in text


def test_runs_without_a_common_checkpoint_are_refused_with_what_there_is(whole, tmp_path):
    other = run(tmp_path / "other", "run.steps=90", "run.checkpoint_every=0")
    with pytest.raises(UserError, match=r"no checkpoint of the same step: .*run has .*, 600 and .*other has 90"):
        drift(whole, other)


def test_as_a_command(whole, tmp_path):
    done = process("compare", str(whole), str(whole), "--checkpoints", cwd=tmp_path)
    assert done.returncode == 0 and "equal at every common checkpoint" in done.stdout
