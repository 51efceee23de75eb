"""Datasets of Minari's, from and to the local folder of datasets (MINARI_DATASETS_PATH). Nothing is fetched.

What is exported carries its own description, so that importing it again gives the same dataset, version included. Of a foreign
one the spaces are read: a Box of uint8 with two or three axes is an image (its channels go last), any other Box a vector,
Discrete observations become one-hot vectors, a Dict or Tuple gives one entry per leaf.
"""

import difflib
import json
import re
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hieros_repro.records import Space, Spaces, UserError, needs_extra
from hieros_repro.replay.dataset import Dataset, Writer, episode

OWN = "hieros_repro"  # the key of Minari's metadata under which a dataset of ours describes itself
VALID = re.compile(r"([-_\w][-_\w/]*/)?[-_\w]+-v\d+")
Reader = Callable[[Any], np.ndarray]


def imported(name: str, out: Path, rows_per_file: int, made: Mapping[str, Any]) -> Dataset:
    """A local Minari dataset as one of ours."""
    minari = _minari()
    if not _folder(minari, name).joinpath("data").exists():
        near = difflib.get_close_matches(name, minari.list_local_datasets(), n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"{name}: no such Minari dataset in {_folder(minari, '')}{hint}")
    theirs = minari.load_dataset(name)
    spaces, readers, action = _spaces(theirs.observation_space, theirs.action_space)
    source: Mapping[str, Any] = {"minari": name, "env": json.loads(theirs.storage.metadata.get("env_spec") or "null")}
    pipeline: list[Any] = []
    own = theirs.storage.metadata.get(OWN)
    if own is not None:
        spaces, source, pipeline = Spaces.from_plain(own["spaces"]), own["source"], own["pipeline"]
        rows_per_file = own["rows_per_file"]
    seeds = [facts.get("seed") for facts in theirs.storage.get_episode_metadata(theirs.episode_indices)]
    accounts = own["accounts"] if own is not None and len(own["accounts"]) == len(seeds) else [{}] * len(seeds)
    with Writer(out, spaces, rows_per_file) as writer:
        for found, seed, account in zip(theirs.iterate_episodes(), seeds, accounts, strict=True):
            obs = {n: read(found.observations) for n, read in readers.items()}
            ended = bool(found.terminations[-1])
            writer.add(episode(spaces, obs, action(found.actions), found.rewards, ended), seed, account)
        return writer.finish(source, pipeline, {**made, "minari": name})


def exported(dataset: Dataset, name: str) -> Path:
    """A dataset of ours as a local Minari dataset, losslessly. Returns its folder, which is complete or absent."""
    minari = _minari()
    if not VALID.fullmatch(name):
        raise UserError(f"{name!r} is no name for a Minari dataset: <namespace>/<name>-v<number>, the namespace optional")
    folder = _folder(minari, name)
    if folder.exists():
        raise UserError(f"{folder}: there is something already; a dataset is never overwritten, so name another version")
    observation, action = _gym(dataset.spaces)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about authors and permalinks that nobody named
            theirs = minari.create_dataset_from_buffers(
                name, _buffers(dataset), observation_space=observation, action_space=action, jpeg_encoding=False,
                description=f"{dataset.manifest['name']}, version {dataset.version}, SHA-256 {dataset.digest}",
            )  # fmt: skip
        own = {**dataset.content, "accounts": [dict(e.account) for e in dataset.episodes]}
        theirs.storage.update_metadata({OWN: own})
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def _buffers(dataset: Dataset) -> Iterator[Any]:
    """Our rows as Minari's episodes: T + 1 observations, T of everything else."""
    from minari.data_collector import EpisodeBuffer

    for e, rows in dataset.read():
        obs: dict[str, Any] = {name: rows[f"obs.{name}"] for name in dataset.spaces.observation}
        ends = np.zeros((2, e.length), bool)
        ends[:, -1] = e.terminal, not e.terminal
        yield EpisodeBuffer(
            seed=e.seed,
            observations=next(iter(obs.values())) if len(obs) == 1 else obs,
            actions=rows["action"][:-1],
            rewards=rows["reward"][1:],
            terminations=ends[0],
            truncations=ends[1],
        )


def _minari() -> Any:
    try:
        import h5py  # noqa: F401 - what Minari keeps its rows in
        import minari
    except ModuleNotFoundError:
        raise UserError(needs_extra("a Minari dataset", "minari")) from None
    return minari


def _folder(minari: Any, name: str) -> Path:
    from minari.storage.datasets_root_dir import get_dataset_path

    return Path(get_dataset_path(name))


# -- Spaces ------------------------------------------------------------------------------------------------------------


def _gym(spaces: Spaces) -> tuple[Any, Any]:
    """Our spaces as Gymnasium's: a single observation bare, several as a Dict."""
    from gymnasium import spaces as gym

    def box(space: Space) -> Any:
        if space.kind == "image":
            return gym.Box(0, 255, space.shape, np.uint8)
        if space.kind == "continuous":
            least, most = (np.array(bound, np.float32).reshape(space.shape) for bound in (space.low, space.high))
            return gym.Box(least, most, space.shape, np.float32)
        low, high = (0.0, 1.0) if space.kind == "onehot" else (-np.inf, np.inf)
        return gym.Box(low, high, space.shape, np.float32)

    boxes = {name: box(space) for name, space in spaces.observation.items()}
    observation = next(iter(boxes.values())) if len(boxes) == 1 else gym.Dict(boxes)
    if spaces.action.kind == "discrete":
        return observation, gym.Discrete(spaces.action.sizes[0])
    if spaces.action.kind == "multidiscrete":
        return observation, gym.MultiDiscrete(list(spaces.action.sizes))
    return observation, box(spaces.action)


def _spaces(observation: Any, action: Any) -> tuple[Spaces, dict[str, Reader], Reader]:
    """Gymnasium's spaces as ours, and how to read an episode's observations and actions."""
    leaves = dict(_leaves(observation, "", lambda seen: seen))
    ours, read = _action(action)
    return Spaces({name: space for name, (space, _) in leaves.items()}, ours), {n: r for n, (_, r) in leaves.items()}, read


def _leaves(space: Any, name: str, find: Reader) -> Iterator[tuple[str, tuple[Space, Reader]]]:
    """Name -> our space and how to read it, for every leaf. What lies in a Dict or Tuple is named by its path."""
    from gymnasium import spaces as gym

    if isinstance(space, gym.Dict | gym.Tuple):
        children = space.spaces.items() if isinstance(space, gym.Dict) else enumerate(space.spaces)
        for key, child in children:
            yield from _leaves(child, f"{name}_{key}" if name else str(key), lambda seen, key=key: find(seen)[key])  # type: ignore[misc]
        return
    ours, read = _leaf(space)
    yield name or ("image" if ours.kind == "image" else "vector"), (ours, lambda seen: read(np.asarray(find(seen))))


def _leaf(space: Any) -> tuple[Space, Reader]:
    from gymnasium import spaces as gym

    if isinstance(space, gym.Box) and space.dtype == np.uint8 and len(space.shape) in (2, 3):
        if len(space.shape) == 2:
            return Space("image", (*space.shape, 1)), lambda seen: seen[..., None]
        if space.shape[0] <= 4 < space.shape[2]:
            return Space("image", (*space.shape[1:], space.shape[0])), lambda seen: seen.transpose(0, 2, 3, 1)
        return Space("image", space.shape), lambda seen: seen
    if isinstance(space, gym.Box):
        return Space("vector", space.shape), lambda seen: seen
    if isinstance(space, gym.Discrete):
        table, start = np.eye(int(space.n), dtype=np.float32), int(space.start)
        return Space("vector", (int(space.n),)), lambda seen: table[seen.reshape(-1) - start]
    if isinstance(space, gym.MultiBinary) and len(space.shape) == 1:
        return Space("vector", space.shape), lambda seen: seen
    raise UserError(f"observations of {space} cannot be imported: Box, Discrete, MultiBinary, Dict or Tuple can")


def _action(space: Any) -> tuple[Space, Reader]:
    from gymnasium import spaces as gym

    if isinstance(space, gym.Discrete):
        start = int(space.start)
        return Space("discrete", (), sizes=(int(space.n),)), lambda taken: np.asarray(taken).reshape(-1) - start
    if isinstance(space, gym.MultiDiscrete) and space.nvec.ndim == 1:
        return Space("multidiscrete", space.shape, sizes=tuple(int(n) for n in space.nvec)), lambda taken: taken - space.start
    if isinstance(space, gym.MultiBinary) and len(space.shape) == 1:
        return Space("multidiscrete", space.shape, sizes=(2,) * space.shape[0]), np.asarray
    if isinstance(space, gym.Box) and np.issubdtype(space.dtype, np.floating):
        low, high = (tuple(float(x) for x in bound.flatten()) for bound in (space.low, space.high))
        return Space("continuous", space.shape, low=low, high=high), np.asarray
    raise UserError(f"actions of {space} cannot be imported: Discrete, MultiDiscrete, MultiBinary and a float Box can")
