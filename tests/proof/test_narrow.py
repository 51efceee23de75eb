import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hieros_repro.determinism.ledger import first_difference
from hieros_repro.log import jsonl
from hieros_repro.proof import traces
from hieros_repro.proof.narrow import common_checkpoint, elements
from hieros_repro.proof.sources import sources
from hieros_repro.provenance.code import sources_digest
from tests.envs import Unrepeatable, chosen
from tests.runs import COMMON, FILES, ROOT, SHORT, SHORT_HIEROS, environment, process, run, short

# -- Two traces ----------------------------------------------------------------------------------------------------------


def tensor(digest, inside=True, shape=(2,), name=None):
    return {"argument": "self", "inside": inside, "name": name, "shape": list(shape), "dtype": "float32", "digest": digest,
            "head": [1.0]}  # fmt: skip


def note(number, operation, inputs, outputs, constants=None, **more):
    place = {"module": None, "source": [f"hieros_repro/a.py:{number} f"], "backward": None, "part": "learn"}
    tensors = {
        "inputs": [tensor(*i) if isinstance(i, tuple) else tensor(i) for i in inputs],
        "outputs": list(map(tensor, outputs)),
    }
    return {"number": number, "operation": operation, "constants": constants or {}, **tensors, **place, **more}


def chain(*steps):
    """Operations one after the other: (name, digest of what it gives)."""
    return [note(i, name, [steps[i - 1][1] if i else "x"], [given]) for i, (name, given) in enumerate(steps)]


def test_equal_traces_do_not_part():
    assert traces.parting(chain(("mul", "1"), ("add", "2")), chain(("mul", "1"), ("add", "2"))) == []


def test_an_output_that_differs_for_equal_inputs_is_the_cause():
    (found,) = traces.parting(chain(("mul", "1"), ("add", "2"), ("sum", "3")), chain(("mul", "1"), ("add", "8"), ("sum", "9")))
    assert (found.kind, found.a["number"], found.what[1]["digest"], found.what[2]["digest"]) == ("output", 1, "2", "8")


def test_a_constant_is_named_with_both_values_though_the_output_differs_too():
    a, b = (note(0, "add", ["x"], [given], {"alpha": value}) for given, value in (("1", "0.5"), ("2", "0.25")))
    (found,) = traces.parting([a], [b])
    assert (found.kind, found.what) == ("constant", ("alpha", "0.5", "0.25"))
    assert "alpha = 0.5 in A, 0.25 in B" in next(traces.told(found))


def test_an_input_from_outside_is_named():
    a, b = (note(0, "add", [(digest, False, (2,), "noise order")], [digest]) for digest in "12")
    (found,) = traces.parting([a], [b])
    assert found.kind == "input" and "something else from outside: noise order" in next(traces.told(found))


def test_operations_that_only_one_has_are_passed_over_until_values_differ():
    rest = [("c", "3"), ("d", "4"), ("e", "5"), ("f", "6"), ("g", "7"), ("h", "8")]
    a, b = chain(("a", "1"), ("b", "2"), *rest), chain(("a", "1"), ("extra", "1"), ("b", "2"), *rest[:5], ("h", "9"))
    found = traces.parting(a, b)
    assert [f.kind for f in found] == ["operation", "output"]
    assert found[0].extra == (0, 1) and found[0].b["operation"] == "extra"
    assert found[1].a["operation"] == "h"
    assert list(traces.told(found[0]))[1] == "A does nothing there"


def test_a_trace_that_ends_earlier_says_so():
    (found,) = traces.parting(chain(("a", "1"), ("b", "2")), chain(("a", "1")))
    assert found.kind == "operation" and found.b is None and "B has come to its end" in list(traces.told(found))


def test_the_first_element_that_differs_is_named():
    a = {"same": torch.zeros(2), "x": torch.tensor([[1.0, 2.0], [3.0, 4.0]]), "short": torch.zeros(2)}
    b = {"same": torch.zeros(2), "x": torch.tensor([[1.0, 2.5], [3.0, 5.0]]), "short": torch.zeros(3)}
    assert list(elements(a, b)) == [
        "x: 2 of 4 elements differ, first [0, 1]: 2.0 in A, 2.5 in B",
        "short: [2] in A, [3] in B",
    ]


# -- Planted faults, in the sources of a repository of their own ------------------------------------------------------------

FAULTS = {  # file, what is there, what takes its place; component; what is said of the cause
    "another reduction": (
        "agent/ppo.py", "cost - self.clip * cost.abs()).mean()", "cost - self.clip * cost.abs()).sum()", "losses",
        [r"A does operation aten.mean \(hieros_repro/agent/ppo.py:\d+, function PPO._loss\)",
         r"B does operation aten.sum \(hieros_repro/agent/ppo.py:\d+, function PPO._loss\)"],
    ),
    "a detached tensor": (
        "agent/ppo.py", "ratio = (log_prob - batch.log_prob).exp()", "ratio = (log_prob.detach() - batch.log_prob).exp()",
        "gradients",
        [r"A does nothing there", r"B does operation aten.detach \(hieros_repro/agent/ppo.py:\d+, function PPO._loss\)"],
    ),
    "another decay of the mean": (
        "nn/optimiser.py", "betas: tuple[float, float] = (0.9, 0.999)", "betas: tuple[float, float] = (0.8, 0.999)",
        "parameters",
        [r"numbers made in Python", r"nn/optimiser.py:\d+ Adam.pace", r"elements differ, first \[0\]"],
    ),
    "a step of an environment": (
        "env/gymnasium.py", "        return self._read(obs), float(reward)",
        "        obs = obs + (self._steps == 9)\n        return self._read(obs), float(reward)", "observation",
        [r"vector: 8 of 8 elements differ, first \[0, 0\]", r"after equal actions", r"look at the environment env"],
    ),
    "the rows of a batch": (
        "replay/rollout.py", "        return Choice(lambda: batch)",
        "        batch['reward'] = batch['reward'] + 1\n        return Choice(lambda: batch)", "batch",
        [r"rollout.reward: \d+ of \d+ elements differ", r"look at the selector of that replay .*key replay/0/<replay>"],
    ),
    "noise of learning": (
        "agent/ppo.py", "np.stack([key(epoch).permutation(rows)", "np.stack([key(epoch + 1).permutation(rows)", "noise",
        [r"order: \d+ of \d+ elements differ", r"look at what learn_noise draws and from which names \(key learn/0\)"],
    ),
    "how actions are drawn": (
        "agent/ppo.py", "return self.family.sample(params, *noise)", "return self.family.sample(params * 3, *noise)", "action",
        [r"B does operation aten.mul.Tensor .*function PPO._choose"],
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """The sources as they are, committed in a repository of their own."""
    folder = tmp_path_factory.mktemp("repository")
    for name in ("hieros_repro", "conf"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / ".gitignore").write_text("__pycache__\n")
    identity = ["-c", "user.name=nobody", "-c", "user.email=nobody@localhost"]
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-q", "-m", "as it is"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


def execute(repository, verb, *arguments, cwd):
    command = [sys.executable, "-m", f"hieros_repro.{verb}", *map(str, arguments)]
    paths = {**environment(), "PYTHONPATH": f"{repository}:{ROOT}", "TMPDIR": str(cwd)}
    done = subprocess.run(command, cwd=cwd, env=paths, capture_output=True, text=True, timeout=300)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def honest(repository, tmp_path_factory):
    folder = tmp_path_factory.mktemp("honest")
    assert execute(repository, "train", *short(folder / "run"), cwd=folder).returncode == 0
    return folder / "run"


def content(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found_where_it_is(repository, honest, tmp_path, name):
    file, before, after, component, said = FAULTS[name]
    path = repository / "hieros_repro" / file
    original = path.read_text()
    assert original.count(before) == 1
    path.write_text(original.replace(before, after))
    try:
        execute(repository, "train", *short(tmp_path / "faulty"), cwd=tmp_path)
        runs = content(honest), content(tmp_path / "faulty")
        done = execute(repository, "compare", honest, tmp_path / "faulty", "--narrow", cwd=tmp_path)
    finally:
        path.write_text(original)
    update = r"\d+" if component == "action" else "1"  # nearly equal chances lead to equal actions for a while
    assert done.returncode == 1
    assert "  A: by commit " in done.stdout and "  B: by the present code, which made it" in done.stdout
    assert re.search(rf"first of all: {component} of update {update}(, tick \d+)? \(step ", done.stdout)
    account = done.stdout[done.stdout.index("first of all") :]
    assert [line for line in said if not re.search(line, account)] == [], account
    assert runs == (content(honest), content(tmp_path / "faulty"))  # neither was changed
    assert [path.name for path in tmp_path.iterdir()] == ["faulty"]  # nothing is left behind


@pytest.mark.slow
def test_the_uncommitted_changes_of_both_runs_are_brought_back(repository, tmp_path):
    """Neither is what the sources are now; one of the two had a file that no commit knows."""
    path, extra = repository / "hieros_repro" / "agent" / "ppo.py", repository / "hieros_repro" / "factor.py"
    original = path.read_text()
    for name, factor in (("a", 1.5), ("b", 2.5)):
        extra.write_text(f'"""A factor."""\n\nFACTOR = {factor}\n')
        changed = "from hieros_repro.factor import FACTOR\nfrom hieros_repro.agent.base"
        text = original.replace("from hieros_repro.agent.base", changed)
        path.write_text(
            text.replace(
                "return functional.mse_loss(value, batch.target)", "return FACTOR * functional.mse_loss(value, batch.target)"
            )
        )
        execute(repository, "train", *short(tmp_path / name), cwd=tmp_path)
    path.write_text(original)
    extra.unlink()
    done = execute(repository, "compare", tmp_path / "a", tmp_path / "b", "--narrow", cwd=tmp_path)
    assert len(re.findall(r"  [AB]: by commit \w+ with its changes", done.stdout)) == 2
    assert "other = 1.5 in A, 2.5 in B" in done.stdout and "function PPO._value_loss" in done.stdout


@pytest.mark.slow
def test_a_fault_in_a_norm_of_a_hierarchy_is_found_in_its_module(repository, tmp_path):
    path = repository / "hieros_repro" / "nn" / "block.py"
    original = path.read_text()
    assert original.count("self.offset, 1e-3)") == 1
    for name, eps in (("a", "1e-3"), ("b", "1e-2")):
        path.write_text(original.replace("self.offset, 1e-3)", f"self.offset, {eps})"))
        execute(repository, "train", *SHORT_HIEROS, f"run.dir={tmp_path / name}", cwd=tmp_path)
    path.write_text(original)
    done = execute(repository, "compare", tmp_path / "a", tmp_path / "b", "--narrow", cwd=tmp_path)
    account = done.stdout[done.stdout.index("first of all") :]
    assert "eps = 0.001 in A, 0.01 in B" in account
    assert re.search(r"operation aten\.\w+.* in module [\w.]+ \(hieros_repro/nn/block.py:\d+", account), account


# -- Planted in the configuration ----------------------------------------------------------------------------------------


def narrowed(a, b, cwd):
    done = process("compare", str(a), str(b), "--narrow", cwd=cwd, TMPDIR=str(cwd))
    assert done.returncode == 1, done.stderr
    return done.stdout[done.stdout.index("executed again from") :]


def test_a_coefficient_is_named_with_the_operation_and_its_key(tmp_path):
    runs = [run(tmp_path / name, f"agent.value_coefficient={value}") for name, value in (("a", 0.5), ("b", 0.25))]
    account = narrowed(*runs, tmp_path)
    assert "the start" in account and "first of all: losses of update 1" in account
    assert "cause: aten.add.Tensor is given equal tensors and another constant: alpha = 0.5 in A, 0.25 in B" in account
    assert re.search(r"operation aten.add.Tensor \(hieros_repro/agent/ppo.py:\d+, function PPO._loss\)", account)
    assert "which is agent.value_coefficient of the configuration" in account


@pytest.mark.slow
def test_a_branch_is_executed_from_where_it_left_its_parent(tmp_path):
    parent = run(tmp_path / "a", "run.keep_last=9")
    branch = run(tmp_path / "b", f"resume={parent}@301", "agent.value_coefficient=0.25", usual=())
    assert common_checkpoint(parent, branch, None) == 301
    account = narrowed(parent, branch, tmp_path)
    assert "executed again from the checkpoint of step 301" in account
    assert "alpha = 0.5 in A, 0.25 in B" in account


@pytest.mark.slow
def test_another_seed_is_seen_in_the_first_weights(tmp_path):
    account = narrowed(run(tmp_path / "a"), run(tmp_path / "b", "seed=43"), tmp_path)
    assert "first of all: weights of update 1" in account
    assert "look at the seed and at how parameters are initialised (keys init/<module path>)" in account


@pytest.mark.slow
def test_what_differs_without_any_cause_of_ours_is_said_not_to_come_again(tmp_path):
    """Two runs in an environment that draws from the system's entropy: none comes out again."""
    given = (*chosen(Unrepeatable), "determinism.resume=episode_boundary", "run.steps=150")
    account = narrowed(run(tmp_path / "a", *given), run(tmp_path / "b", *given), tmp_path)
    assert "A does not come out again as it was: observation" in account


@pytest.mark.slow
@pytest.mark.parametrize("usual", [SHORT, SHORT_HIEROS], ids=["ppo", "hieros"])
def test_looking_at_every_operation_changes_nothing(tmp_path, usual):
    """Traced or not, with a ledger entry for every update or not: what is written at common moments is equal."""
    from hieros_repro.proof import execution

    whole = run(tmp_path / "whole", usual=usual)
    last = max(line["update"] for line in jsonl.read(whole / "ledger.jsonl"))
    wanted = execution.request(
        whole, tmp_path / "traced", {"hardware.compile": None}, tried=True, trace={"update": 3, "tick": 40}, until_update=last
    )
    traced = execution.execute(wanted, ROOT)
    difference, compared = first_difference(*(jsonl.read(folder / "ledger.jsonl") for folder in (whole, traced)))
    assert difference is None and compared > 10
    assert {line["part"] for line in jsonl.read(traced / "trace.jsonl")} >= {"learn"}


@pytest.mark.slow
def test_the_tick_is_found_though_the_numbers_of_ticks_differ(tmp_path):
    """Chance acts anew at every tick, or holds an action for two: the second action differs."""
    usual = tuple(override for override in COMMON if not override.startswith("agent."))
    runs = [run(tmp_path / name, "agent=random", f"agent.hold={n}", usual=usual) for name, n in (("a", 1), ("b", 2))]
    account = narrowed(*runs, tmp_path)
    assert "first of all: action of update 0, tick 1 (step " in account and "elements differ, first [" in account
    assert "the configurations differ in agent.hold (1, 2)" in account


def test_code_that_is_not_known_here_is_said_to_be_the_present_one(tmp_path):
    plain = {"plugins": [], "code": {"commit": "0" * 40, "sources": "f" * 32, "changed": False}}
    for commit, reason in (("0" * 40, "commit 0000000000 is not known here"), (None, "it names no commit")):
        with sources(tmp_path, {**plain, "code": {**plain["code"], "commit": commit}}) as (tree, account):
            assert tree == ROOT and account == f"the PRESENT code, not its own (sources ffffffffff): {reason}"
    with sources(tmp_path, {**plain, "code": {**plain["code"], "sources": sources_digest()}}) as (tree, account):
        assert tree == ROOT and account == "the present code, which made it"


def test_equal_runs_leave_nothing_to_narrow(tmp_path):
    from hieros_repro.proof.narrow import narrow

    whole = run(tmp_path / "a")
    shutil.copytree(whole, tmp_path / "b")
    assert narrow(whole, tmp_path / "b") == ["nothing to narrow: where both were looked at, the two runs are equal"]
    assert all((Path(tmp_path) / "b" / name).exists() for name in FILES)
