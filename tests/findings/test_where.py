import pytest

from hieros_repro.findings import archive
from hieros_repro.findings.record import Record
from hieros_repro.findings.where import VALUES, chosen
from hieros_repro.records import UserError
from tests.findings.folders import run


def of(number, **facts):
    return Record(str(number), "finished", number, "", {name.replace("__", "."): v for name, v in facts.items()}, [], [], [])


RUNS = [
    of(1, agent="hieros", env__task="three", env__length=2000, best=None, mixed=True),
    of(2, agent="hieros", env__task="four", env__length=500, best=1.5, mixed=False),
    of(3, agent="director", env__task="three", env__length=2000, best=-3.0),
    of(4, agent="ppo", env__id="CartPole-v1", rate=1e-3),
]


@pytest.mark.parametrize(
    "where, seeds",
    [
        ("agent=hieros and env.task=three", [1]),
        ("agent=hieros or env.task=three", [1, 2, 3]),
        ("agent = hieros and not env.task = three", [2]),
        ("agent=ppo or agent=hieros and env.task=four", [2, 4]),  # and binds closer than or
        ("(agent=ppo or agent=hieros) and env.length>1e3", [1]),
        ("not (agent=ppo or agent=hieros)", [3]),
        ("env.length>=500 and env.length<2_000", [2]),
        ("seed!=2", [1, 3, 4]),
        ("best>-5", [2, 3]),  # a run without a value is neither above nor below
        ("best=null", [1, 4]),
        ("mixed=true", [1]),
        ('env.id="CartPole-v1"', [4]),
        ("env.id~'^Cart'", [4]),
        ("rate=0.001", [4]),
    ],
)
def test_words_choose_runs(where, seeds):
    assert [run.seed for run in chosen(RUNS, where)] == seeds


@pytest.mark.parametrize(
    "where, said",
    [
        ("agnt=hieros", "no run has 'agnt'; did you mean agent?"),
        ("env.taks=three", "no run has 'env.taks'; did you mean env.task?"),
        ("agent=hieros and", "it ends too early"),
        ("agent", "it ends too early"),
        ("agent hieros", "'hieros' is not expected there"),
        ("(agent=hieros", "a parenthesis is not closed"),
        ("agent=hieros)", "')' is not expected there"),
        ("agent=hieros env.task=three", "'env.task' is not expected there"),
        ("agent~'('", "not a regular expression"),
        ("agent='hier", "cannot be read"),
        ("", "it ends too early"),
    ],
)
def test_what_cannot_be_read_is_refused_with_an_example(where, said):
    with pytest.raises(UserError) as refused:
        chosen(RUNS, where)
    assert said in str(refused.value) and "agent=hieros and env.task=three" in str(refused.value)


def test_where_no_run_is_meant_the_values_that_there_are_are_named():
    with pytest.raises(UserError, match=r"no run is meant by it; agent is one of director, hieros, ppo; env\.length is"):
        chosen(RUNS, "agent=nobody and env.length=three")
    many = [of(n, agent=f"a{n}") for n in range(VALUES + 2)]
    with pytest.raises(UserError, match=r"agent is one of a0, a1, a2, a3, a4, a5, a6, a7 and 2 more$"):
        chosen(many, "agent=b")


def test_a_key_of_the_same_part_is_suggested_before_a_likelier_one_elsewhere():
    runs = [of(1, env__task="three", en__taks="x")]
    with pytest.raises(UserError, match=r"did you mean env\.task\?"):
        chosen(runs, "env.taks=three")


def test_a_value_that_no_run_has_is_told_with_the_nearest(tmp_path):
    for seed, agent in enumerate(("hieros", "director")):
        run(tmp_path / agent, seed, 1.0, agent__name=agent)
    with pytest.raises(UserError, match="agent is one of director, hieros; did you mean director"):
        chosen(archive.read([tmp_path]), "agent=directr")
    with pytest.raises(UserError, match="there is no such folder; did you mean director"):
        archive.read([tmp_path / "directr"])
