import json

import pytest

from hieros_repro.findings import archive, checklist
from hieros_repro.findings.evidence import gather
from hieros_repro.findings.finding import find
from hieros_repro.findings.held import hold
from hieros_repro.provenance.code import sources_digest
from hieros_repro.provenance.machine import lock
from hieros_repro.run.folder import RunFolder
from tests.findings.folders import run
from tests.runs import run as real_run

STRICT = {"packages": {"torch": "2.13.0"}, "device": "cpu", "threads": 1, "deterministic": True, "warn_only": False}


HERE = {"commit": "c" * 40, "changed": False, "sources": sources_digest()}


def facts(**changes):
    return {"numerics": STRICT, "packages": lock(), "nondeterministic_operations": [], "code": HERE, **changes}


def items(folder, reference=None):
    records = archive.read([folder])
    found = find(records, "eval/score")
    filled = checklist.fill(found, gather(records), hold(found, reference))
    return {item.demand: item for item in filled}


@pytest.fixture
def good(tmp_path):
    for seed in range(5):
        run(tmp_path / str(seed), seed, 10.0 + seed, account=facts())
    return tmp_path


def test_what_is_in_order_is_met(good):
    found = items(good)
    unmet = {demand for demand, item in found.items() if item.met is not True}
    told_elsewhere = {"expected results with tolerances", "seeds vary within a declared tolerance"}
    assert unmet == told_elsewhere | {"a repetition is bit-equal", "checkpoints intact"}
    assert all(found[demand].met is None for demand in unmet)


@pytest.mark.parametrize(
    "changes, demand, fact",
    [
        ({"packages": lock() | {"numpy": "0.1"}}, "package versions pinned", "numpy 0.1 instead of"),
        ({"numerics": STRICT | {"deterministic": False}}, "deterministic algorithms on", "in 1 of 6 runs: bad"),
        ({"numerics": STRICT | {"warn_only": True}}, "deterministic algorithms on", "only warned about"),
        ({"numerics": STRICT | {"threads": 4}}, "equal numerics", "2 different fingerprints"),
        ({"code": {"commit": "c" * 40, "changed": True, "sources": "s" * 32}}, "code committed, without changes", "1 of 6"),
        ({"code": {"commit": "c" * 40, "changed": False, "sources": "other"}}, "one program for all runs", "2 different"),
        ({"machine": {}}, "hardware recorded", "not in 1 of 6 runs: bad"),
    ],
)
def test_what_one_run_lacks_is_not_met(good, changes, demand, fact):
    run(good / "bad", 9, 3.0, account=facts(**changes))
    item = items(good)[demand]
    assert item.met is False and fact in item.fact


def test_a_build_of_the_pinned_release_is_the_pinned_one(good):
    run(good / "other", 9, 3.0, account=facts(packages=lock() | {"torch": lock()["torch"].partition("+")[0] + "+cpu"}))
    assert items(good)["package versions pinned"].met is True


def test_operations_that_were_used_are_named(good):
    run(good / "other", 9, 3.0, account=facts(nondeterministic_operations=["cumsum_cuda"]))
    assert items(good)["nondeterministic operations listed"].fact == "used: cumsum_cuda"


def test_operations_that_nothing_looked_for_are_not_said_to_be_none(good):
    run(good / "off", 9, 3.0, account=facts(numerics=STRICT | {"deterministic": False}))
    item = items(good)["nondeterministic operations listed"]
    assert item.met is None and "determinism=off" in item.fact and "off" in item.fact


def test_packages_of_other_code_are_not_held_against_the_lock_that_is_here(good):
    run(good / "old", 9, 3.0, account=facts(code=HERE | {"sources": "older"}))
    item = items(good)["package versions pinned"]
    assert item.met is None and "1 of 6 runs are of other code than the present checkout" in item.fact


def test_a_file_that_expects_nothing_is_not_met(good, tmp_path_factory):
    reference = tmp_path_factory.mktemp("references") / "none.yaml"
    reference.write_text("expected: {}\n")
    item = items(good, reference)["expected results with tolerances"]
    assert item.met is None and "expects nothing" in item.fact


def test_few_seeds_are_not_enough(tmp_path):
    for seed in range(2):
        run(tmp_path / str(seed), seed, 1.0 * seed, account=facts())
    assert items(tmp_path)["at least 3 seeds a group, better 5"].met is False
    run(tmp_path / "2", 2, 5.0, account=facts())
    found = items(tmp_path)["at least 3 seeds a group, better 5"]
    assert found.met is True and "its interval is wide" in found.fact


def test_a_checkpoint_that_was_changed_is_seen(tmp_path):
    folder = real_run(tmp_path / "run", "run.steps=300")
    found = items(folder)
    assert found["checkpoints intact"].met is True and found["package versions pinned"].met is not None
    assert found["deterministic algorithms on"].met is True
    damaged = next(
        path for path in sorted((folder / "checkpoints").rglob("*")) if path.is_file() and path.name != "manifest.json"
    )
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(bytes(content))
    assert items(folder)["checkpoints intact"].met is False


def test_checkpoints_of_a_run_under_way_may_come_and_go(tmp_path):
    done, under_way = (real_run(tmp_path / "runs" / name, "run.steps=300") for name in ("done", "under_way"))
    (under_way / "checkpoints" / ".partial-step_400").mkdir()  # of one that is being written
    assert items(tmp_path / "runs")["checkpoints intact"].met is True
    with RunFolder(under_way).held() as held:
        held.update(status="running")
        (under_way / "checkpoints" / "step_100").mkdir()  # and of one that is being deleted
        item = items(tmp_path / "runs")["checkpoints intact"]
        assert item.met is None and "SHA-256; 1 of 2 runs are under way" in item.fact
        (done / "checkpoints" / "step_100").mkdir()  # this one should be whole
        assert items(tmp_path / "runs")["checkpoints intact"].met is False


def test_nothing_begun_cannot_be_told(tmp_path):
    (tmp_path / "sweep.json").write_text(json.dumps({"jobs": {"a": ["seed=1"]}}))
    found = items(tmp_path)
    assert {item.met for demand, item in found.items() if demand in ("configurations saved", "equal numerics")} == {None}
