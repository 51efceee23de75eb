"""python -m hieros_repro.doctor: can this machine keep the promise?

    python -m hieros_repro.doctor                       Python, packages against the lock, devices, disk, determinism probes
    python -m hieros_repro.doctor --snapshot env.json   also write all of it to a file
    python -m hieros_repro.doctor checkpoint=<path>     what a checkpoint holds, and whether it is intact

Exit codes: 0 all well, 1 something is not, 2 could not look.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from hieros_repro.provenance.machine import free_gb, lock, machine, packages
from hieros_repro.records import UserError

SUPPORTED = ((3, 11), (3, 12))


class Finding(NamedTuple):
    """One thing looked at. ok is None where there is nothing to judge."""

    name: str
    ok: bool | None
    text: str


def main() -> None:
    parser = argparse.ArgumentParser("hieros-doctor", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", nargs="?", help="checkpoint=<path>: a checkpoint's folder")
    parser.add_argument("--snapshot", type=Path, metavar="FILE", help="write everything found as JSON")
    arguments = parser.parse_args()
    try:
        if arguments.checkpoint:
            name, _, path = arguments.checkpoint.partition("=")
            if name != "checkpoint" or not path:
                raise UserError(f"{arguments.checkpoint!r}: write checkpoint=<path>")
            sys.exit(show_checkpoint(Path(path)))
        findings = look()
        for finding in findings:
            mark = {True: "ok", False: "NOT OK", None: "-"}[finding.ok]
            print(f"{finding.name:<22} {mark:<7} {finding.text}")
        if arguments.snapshot:
            write_snapshot(arguments.snapshot, findings)
            print(f"written to {arguments.snapshot}")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    sys.exit(1 if any(finding.ok is False for finding in findings) else 0)


# -- The machine -------------------------------------------------------------------------------------------------------


def look() -> list[Finding]:
    """Everything, in the order in which it matters."""
    return [
        _python(),
        _packages(),
        *_devices(),
        _disk(),
        _hash_seed(),
        *(_probe(name, probe) for name, probe in PROBES.items()),
    ]


def _python() -> Finding:
    text = f"{sys.version.split()[0]} at {sys.executable}"
    return Finding("Python", sys.version_info[:2] in SUPPORTED, text)


def _packages() -> Finding:
    pinned, installed = lock(), packages()
    if not pinned:
        return Finding("packages", None, f"{len(installed)} installed; no lock file here to hold them against")
    wrong = [
        f"{name} {installed[name]} instead of {wanted}"
        for name, wanted in pinned.items()
        if name in installed and installed[name].partition("+")[0] != wanted
    ]
    if wrong:
        return Finding("packages", False, f"{len(wrong)} differ from the lock: {', '.join(wrong[:4])}")
    return Finding(
        "packages",
        True,
        f"{sum(name in installed for name in pinned)} of {len(pinned)} pinned ones installed, all at their pin",
    )


def _devices() -> list[Finding]:
    import torch

    facts = machine()
    level = torch.backends.cpu.get_cpu_capability()
    found = [Finding("CPU", True, f"{facts['cpu']}, {facts['cores']} cores, {level}, {facts['memory_gb']} GB memory")]
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            free, total = (x / 2**30 for x in torch.cuda.mem_get_info(index))
            found.append(Finding("CUDA", True, f"{torch.cuda.get_device_name(index)}, {free:.0f} of {total:.0f} GB free"))
    else:
        found.append(Finding("CUDA", None, "no device: hardware=gpu will be refused"))
    return found


def _disk() -> Finding:
    free = free_gb(Path.cwd())
    return Finding("disk", free > 1, f"{free:.1f} GB free in {Path.cwd()}")


def _hash_seed() -> Finding:
    value = os.environ.get("PYTHONHASHSEED")
    text = "not set: train restarts itself once with it" if value is None else f"PYTHONHASHSEED={value}"
    return Finding("hash seed", None, text)


def _probe(name: str, probe: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, probe())
    except AssertionError as error:
        return Finding(name, False, str(error))


def _same_twice() -> str:
    """Two processes train a small network on the same data; their digests must be equal."""
    digests = [_child(seed="0"), _child(seed="1")]
    assert digests[0] == digests[1], f"two processes computed different numbers: {digests[0]} and {digests[1]}"
    return f"two processes trained to the same digest {digests[0]}"


def _keys() -> str:
    """Random numbers are what they are on every machine."""
    from hieros_repro.determinism.fingerprint import combine, digest
    from hieros_repro.determinism.keys import Key

    key = Key(42)("stats", "probe")
    found = combine([digest(key.uniform((1000,))), digest(key.normal((1000,))), digest(key.integers(10, (1000,)))])
    assert found == KEYS_DIGEST, f"random numbers have digest {found}, they should have {KEYS_DIGEST}"
    return f"keys give the numbers they give everywhere ({found})"


def _globals_untouched() -> str:
    """Building and training a model of ours draws nothing from the global generators."""
    from hieros_repro.determinism import snapshot
    from hieros_repro.determinism.fingerprint import digest_tree

    before = digest_tree(snapshot.take())
    _train_small()
    assert digest_tree(snapshot.take()) == before, "a global generator was drawn from"
    return "no global generator was drawn from"


PROBES: dict[str, Callable[[], str]] = {
    "probe: keys": _keys,
    "probe: globals": _globals_untouched,
    "probe: repeats": _same_twice,
}
KEYS_DIGEST = "4bfd0869eade9a38"


def _train_small() -> str:
    import torch

    from hieros_repro.determinism.keys import Key
    from hieros_repro.determinism.ledger import describe_all
    from hieros_repro.nn.conv import ImageEncoder
    from hieros_repro.nn.init import fill
    from hieros_repro.nn.mlp import Linear
    from hieros_repro.nn.optimiser import Adam

    key = Key(7)
    encoder = ImageEncoder((16, 16, 3), depth=8)
    model = torch.nn.Sequential(encoder, Linear(encoder.features, 4))
    fill(model, key("init"))
    optimiser = Adam(dict(model.named_parameters()), max_norm=1.0)
    images = torch.from_numpy(key("data", "images").integers(256, (32, 16, 16, 3))).to(torch.uint8)
    for _ in range(5):
        optimiser.backward(model(images).square().mean())
        optimiser.step(1e-3)
    return describe_all(dict(model.named_parameters()))


def _child(seed: str) -> str:
    code = "from hieros_repro import doctor, seed_everything; seed_everything(0); print(doctor._train_small())"
    environment = {**os.environ, "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, f"the probe's process failed: {done.stderr.strip()[-500:]}"
    return done.stdout.strip()


def write_snapshot(path: Path, findings: list[Finding]) -> None:
    from hieros_repro.determinism.numerics import numerics
    from hieros_repro.provenance.code import code

    facts: dict[str, Any] = {
        "findings": [finding._asdict() for finding in findings],
        "machine": machine(),
        "packages": packages(),
        "code": code(),
        "numerics": numerics("cpu", "fp32", None, 1),
    }
    try:
        path.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf8")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from error


# -- A checkpoint ------------------------------------------------------------------------------------------------------


def show_checkpoint(path: Path) -> int:
    """Prints what it holds; 1 if it is damaged."""
    from hieros_repro.run import checkpoint

    if not path.exists():
        raise UserError(f"checkpoint={path}: there is no such folder")
    if (path / "config.yaml").exists():
        names = ", ".join(f"step_{step}" for step in checkpoint.steps(path / "checkpoints"))
        raise UserError(f"checkpoint={path}: that is a run; in its folder checkpoints/ there are {names or 'none'}")
    try:
        parts, facts = checkpoint.load(path)
    except checkpoint.Damaged as error:
        print(f"damaged: {error}")
        return 1
    if problems := list(checkpoint.replay_problems(path)):
        print("\n".join(f"damaged: {problem}" for problem in problems))
        return 1
    print(f"{path}: intact, format {facts['format']}, step {facts.get('step', '?')}")
    for name, entry in facts["files"].items():
        print(f"\n{name}  {entry['bytes']:,} bytes, SHA-256 {entry['sha256'][:16]}...")
        for leaf, meaning in checkpoint.describe({Path(name).stem: parts[Path(name).stem]}):
            print(f"  {leaf:<48} {meaning}")
    if "rng_state" not in parts:
        print("\nno rng_state: global randomness would differ after loading")
    return 0


if __name__ == "__main__":
    main()
