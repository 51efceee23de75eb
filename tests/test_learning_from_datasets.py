"""Runs that learn from recorded episodes: these alone, or these and their own experience, in any share."""

import shutil

import pytest

from hieros_repro.recording import record
from hieros_repro.records import UserError
from hieros_repro.replay import parts
from hieros_repro.replay.dataset import Dataset
from hieros_repro.replay.mixed import Mixed
from tests.checking import mostly_slow
from tests.runs import SHORT_DQN, assert_equal, compose, facts, process, run, short, stopped
from tests.worlds import world

pytestmark = pytest.mark.usefixtures("swift")


def recorded(out, *overrides):
    typed = [f"out={out}", "agent=random", "episodes=12", *overrides]
    return record(compose(*typed, name="dataset"), typed)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Twelve random episodes, nine of them for training."""
    dataset = recorded(tmp_path_factory.mktemp("data") / "random", "env=cartpole", "seed=1", "env.num_envs=4")
    shares = {"train": 0.75, "val": 0.25}
    parts.write(dataset.path, parts.SPLITS, dataset.digest, {**shares, "seed": 1}, parts.split(12, shares, 1), replace=False)
    return dataset.path


def dqn(folder, *overrides):
    return run(folder, *overrides, usual=SHORT_DQN)


@pytest.fixture(scope="module")
def learnt(tmp_path_factory, data):
    """The run that nothing interrupts, for each way of learning."""
    made = {}

    def of(name):
        if name not in made:
            made[name] = dqn(tmp_path_factory.mktemp("whole") / "run", f"replay.dataset={data}", *WAYS[name])
        return made[name]

    return of


ALONE = ("run.collect=false", "replay.dataset_share=1.0")
WAYS = {
    "alone": ALONE,
    "a part alone, balanced": (*ALONE, "replay.dataset_part=train", "replay=time_balanced_naive"),
    "half": ("replay.dataset_share=0.5",),
    "half, balanced, ahead": ("replay=time_balanced_naive", "replay.lead=3", "replay.workers=4", "replay.online=true"),
    "all, and collecting": ("replay.dataset_share=1.0",),
}


@pytest.mark.parametrize("name", mostly_slow(WAYS, "half, balanced, ahead"))
def test_a_run_that_was_stopped_goes_on_to_the_same_files(tmp_path, data, learnt, name):
    overrides = (f"replay.dataset={data}", *WAYS[name])
    stopped(tmp_path / "run", 171, *overrides, usual=SHORT_DQN)
    assert_equal(learnt(name), dqn(tmp_path / "run", *overrides, "resume=auto"))


@pytest.mark.parametrize("name", ["alone", "half"])
def test_the_same_run_twice_with_the_dataset_elsewhere_has_equal_parameters(tmp_path, data, learnt, name):
    moved = shutil.copytree(data, tmp_path / "elsewhere")
    again = dqn(tmp_path / "run", f"replay.dataset={moved}", *WAYS[name])
    assert_equal(learnt(name), again)


def test_a_run_says_which_dataset_it_learns_from(data, learnt):
    told = facts(learnt("half"))["datasets"]["windows"]
    assert (told["path"], told["sha256"]) == (str(data), Dataset.open(data).digest)
    assert (told["part"], told["episodes"]) == (None, Dataset.open(data).count)
    assert f"dataset     {data}, version {told['version']}, {told['share']:.0%} of every batch" in (
        learnt("half") / "console.log"
    ).read_text(encoding="utf8")


def test_a_run_on_a_dataset_alone_plays_no_episode_and_learns_at_its_pace(learnt):
    folder = learnt("alone")
    assert (folder / "episodes.jsonl").read_bytes() == b""
    assert not (folder / "replay").exists() or list((folder / "replay" / "windows").iterdir()) == []
    told = facts(folder)["results"]
    assert (told["step"], told["updates"]) == (600, 8 * 600 // 48)


def test_of_every_batch_the_share_comes_from_the_dataset(tmp_path, data, monkeypatch):
    """Every recorded reward is made 7: 12 of 16 windows are to have it."""
    batches = []
    from hieros_repro.agent.dqn import DQN

    learn, fill = DQN.learn, Mixed.__init__

    def noticed(self, given, noise, step):
        batches.append((given["windows"]["reward"] == 7).any(1).tolist())
        return learn(self, given, noise, step)

    def marked(self, own, recorded, *rest):
        recorded.bank.arrays["reward"][:] = 7
        fill(self, own, recorded, *rest)

    monkeypatch.setattr(DQN, "learn", noticed)
    monkeypatch.setattr(Mixed, "__init__", marked)
    dqn(tmp_path / "run", f"replay.dataset={data}", "replay.dataset_share=0.75", "hardware.compile=null", "run.steps=200")
    assert len(batches) > 10
    assert all(batch == [False] * 4 + [True] * 12 for batch in batches)


# -- Refused -----------------------------------------------------------------------------------------------------------


def refusal(folder, *overrides):
    with pytest.raises(UserError) as caught:
        dqn(folder, *overrides)
    return str(caught.value)


def test_a_dataset_that_changed_is_refused_when_a_run_goes_on(tmp_path, data):
    mine = shutil.copytree(data, tmp_path / "data")
    half = (f"replay.dataset={mine}", *WAYS["half"])
    stopped(tmp_path / "run", 100, *half, usual=SHORT_DQN)
    shutil.rmtree(mine)
    recorded(mine, "env=cartpole", "seed=2", "env.num_envs=4")
    text = refusal(tmp_path / "run", *half, "resume=auto")
    assert text.startswith(f"replay.dataset={mine}: its digest is ") and "the checkpoint learned from" in text


def test_a_part_that_changed_is_refused_when_a_run_goes_on(tmp_path, data):
    mine = shutil.copytree(data, tmp_path / "data")
    train = (f"replay.dataset={mine}", *WAYS["half"], "replay.dataset_part=train")
    stopped(tmp_path / "run", 100, *train, usual=SHORT_DQN)
    digest = Dataset.open(mine).digest
    parts.write(mine, parts.SPLITS, digest, {}, parts.split(12, {"train": 0.75, "val": 0.25}, seed=2), replace=True)
    text = refusal(tmp_path / "run", *train, "resume=auto")
    assert text == "replay.dataset_part=train: the checkpoint learned from other episodes of this dataset"


FAULTS = [
    (("run.collect=false",), "run.collect: false means learning from a dataset alone; name one with replay.dataset=<folder>"),
    (("run.collect=false", "replay.dataset={data}"), "replay.dataset_share: 0.5"),
    (("replay.dataset={data}", "replay.dataset_share=1.5"), "replay.dataset_share: 1.5 is not allowed; it must be a number"),
    (("replay.dataset={data}", "replay.dataset_share=0"), "replay.dataset_share: 0: nothing would come from the dataset"),
    (("replay.dataset={data}", "replay.dataset_part=tran"), "it has no part 'tran'; there are train, val"),
    (("replay.dataset=nowhere",), "nowhere: not a dataset (it has no manifest.json)"),
    (("replay.dataset={data}", *world("Clock")), "replay.dataset={data}: it was recorded"),
    (("replay.dataset={data}", "env.normalise_observation=true"), "env.normalise_observation: true"),
    (("replay.dataset={data}", "agent.n_step=1_000"), "replay.size: 240: 120 steps of each of 2 environments are less"),
    (("replay.dataset={data}", "agent.n_step=1_000", "replay.size=5_000"), "replay.dataset={data}: its 2"),
]  # fmt: skip


@pytest.mark.parametrize(("overrides", "text"), FAULTS, ids=[" ".join(o) for o, _ in FAULTS])
def test_a_fault_is_said_in_one_sentence(tmp_path, data, overrides, text):
    said = refusal(tmp_path / "run", *(override.format(data=data) for override in overrides))
    assert text.format(data=data) in said


def test_the_program_says_a_fault_with_exit_code_2(tmp_path, data):
    arguments = short(tmp_path / "run", f"replay.dataset={data}", "replay.dataset_part=tran", usual=SHORT_DQN)
    done = process("train", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1
