from hieros_repro.findings import archive
from hieros_repro.findings.group import apart, groups
from tests.findings.folders import run


def made(tmp_path, *runs):
    """Records of runs given as (seed, typed, changes)."""
    for number, (seed, typed, changes) in enumerate(runs):
        run(tmp_path / f"{number:02d}", seed, 1.0, typed=typed, **changes)
    return archive.read([tmp_path])


def test_seeds_of_one_configuration_are_one_group(tmp_path):
    found = groups(made(tmp_path, *((seed, ["agent=hieros"], {}) for seed in (3, 1, 2))))
    assert [(group.name, list(group.seeds())) for group in found] == [("hieros on pinpad-three", [1, 2, 3])]
    assert apart(found) == {}


def test_agents_in_one_environment_are_named_by_the_agent_alone(tmp_path):
    sides = [(1, ["agent=hieros"], {}), (1, ["agent=director"], {"agent__name": "director"})]
    found = groups(made(tmp_path, *sides))
    assert [group.name for group in found] == ["hieros", "director"]
    assert apart(found) == {"agent.name": ["hieros", "director"]}


def test_agents_and_environments_that_vary_are_both_named(tmp_path):
    sides = [
        (1, [], {"agent__name": agent, "env__task": task}) for agent in ("hieros", "director") for task in ("three", "four")
    ]
    names = [group.name for group in groups(made(tmp_path, *sides))]
    assert names == [f"{agent} on pinpad-{task}" for agent in ("hieros", "director") for task in ("three", "four")]


def test_one_agent_in_several_ways_is_named_by_what_was_typed(tmp_path):
    sides = [
        (s, ["log=quiet", "size=nano", f"agent.max_hierarchy={n}"], {"agent__max_hierarchy": n}) for n in (1, 2) for s in (4, 5)
    ]
    found = groups(made(tmp_path, *sides))
    assert [group.name for group in found] == ["max_hierarchy=1", "max_hierarchy=2"]
    assert [list(group.seeds()) for group in found] == [[4, 5], [4, 5]]


def test_where_the_same_was_typed_the_configuration_tells_groups_apart(tmp_path):
    names = [g.name for g in groups(made(tmp_path, (1, ["size=nano"], {}), (1, ["size=nano"], {"env__length": 500})))]
    assert names == ["defaults", "defaults env.length=500"]


def test_what_has_not_begun_belongs_where_the_same_was_typed(tmp_path):
    import json

    typed = ["agent=hieros", "log=quiet"]
    run(tmp_path / "seed-1", 1, 1.0, typed=typed)
    (tmp_path / "sweep.json").write_text(json.dumps({"jobs": {f"seed-{n}": [*typed, f"seed={n}"] for n in (1, 2)}}))
    assert [list(group.seeds()) for group in groups(archive.read([tmp_path]))] == [[1, 2]]


def test_a_repeated_seed_is_one_seed_with_two_runs(tmp_path):
    (found,) = groups(made(tmp_path, (1, [], {}), (1, [], {}), (2, [], {})))
    assert {seed: len(runs) for seed, runs in found.seeds().items()} == {1: 2, 2: 1}
