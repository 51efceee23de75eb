"""The architecture as house rules: who may import whom, how long things may be, and what may not be written."""

import ast
import re
import sys
from pathlib import Path

import pytest

from tests.runs import ROOT

PACKAGE = ROOT / "hieros_repro"
FILES = sorted(PACKAGE.rglob("*.py"))
NAMES = [path.relative_to(PACKAGE).as_posix() for path in FILES]
TREES = {name: ast.parse(path.read_text(encoding="utf8")) for name, path in zip(NAMES, FILES, strict=True)}

# Each imports only from those before it, and from itself. In the middle, folders of one set do not import each other.
LAYERS = [
    {"records", "determinism", "atomic", "construct"},
    {"ops"},
    {"nn"},
    {"env", "replay", "world", "log", "stats", "provenance", "hardware"},
    {"agent"},
    {"run"},
    {"check"},
    {"findings"},
    {"build"},
]
VERBS = {"train", "evaluate", "verify", "compare", "doctor", "report", "dataset"}
VERBS_LEVEL = {"proof", "sweep"}  # folders of what verbs do: they may import whatever verbs may
RANK = {part: rank for rank, layer in enumerate(LAYERS) for part in layer}
AGENTS_NEVER = {"env", "replay", "log", "run"}


def part(module: str) -> str:
    """The folder or file below hieros_repro that a module's name or path belongs to."""
    return module.removeprefix("hieros_repro.").removesuffix(".py").replace("/", ".").split(".")[0]


def typing_only(tree: ast.AST) -> set[ast.AST]:
    blocks = [node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    return {child for block in blocks for child in ast.walk(block)}


def imported(tree: ast.Module, inside_functions: bool = True) -> set[str]:
    """Full names of modules, and of what is taken from them, as they are imported when the program runs."""
    found, ignored = set(), typing_only(tree)
    if not inside_functions:
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        ignored |= {child for function in functions for child in ast.walk(function)}
    for node in ast.walk(tree):
        if node in ignored:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def ours(tree: ast.Module) -> set[str]:
    """The parts of the package that a module imports."""
    return {part(module) for module in imported(tree) if module.startswith("hieros_repro.")} - {"__version__"}


def functions(tree: ast.AST) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf8").splitlines())


def of(*parts: str) -> list[str]:
    return [name for name in NAMES if part(name) in parts]


def roots(name: str, inside_functions: bool = True) -> set[str]:
    """The distributions that a module imports."""
    return {module.split(".")[0] for module in imported(TREES[name], inside_functions)}


def test_imports_go_down_the_layers_only():
    wrong = {}
    for name in of(*RANK):
        own = part(name)
        allowed = {other for other, rank in RANK.items() if rank < RANK[own]} | {own}
        allowed |= LAYERS[0] if own in LAYERS[0] else set()
        wrong[name] = ours(TREES[name]) - allowed
    assert {name: parts for name, parts in wrong.items() if parts} == {}


def test_every_folder_has_its_layer():
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders <= set(RANK) | VERBS_LEVEL


def test_an_agent_knows_no_environment_replay_log_or_loop():
    assert {name for name in of("agent") if ours(TREES[name]) & AGENTS_NEVER} == set()


def test_nothing_below_imports_a_verb():
    assert {name for name in of(*RANK) if ours(TREES[name]) & VERBS} == set()


def test_only_the_verbs_and_the_check_see_hydra_and_its_containers():
    assert {name for name in of(*(set(RANK) - {"check"})) if roots(name) & {"hydra", "omegaconf"}} == set()


def test_environments_do_without_torch():
    assert {name for name in of("env", "records") if "torch" in roots(name, inside_functions=False)} == set()


@pytest.mark.parametrize("verb", sorted(VERBS & {part(name) for name in NAMES}))
def test_a_verb_does_not_import_torch_before_its_main(verb):
    """As seen by a parse of everything that its import would import."""
    seen, waiting = set(), [f"{verb}.py"]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        assert "torch" not in roots(name, inside_functions=False), name
        for module in imported(TREES[name], inside_functions=False):
            path = module.removeprefix("hieros_repro.").replace(".", "/")
            waiting += [n for n in (f"{path}.py", f"{path.rpartition('/')[0]}.py", f"{path}/__init__.py") if n in TREES]


# Size


def test_no_file_is_longer_than_400_lines():
    assert {name: lines(PACKAGE / name) for name in NAMES if lines(PACKAGE / name) > 400} == {}


def test_no_function_is_longer_than_60_lines():
    every = [(name, f.name, f.end_lineno - f.lineno + 1) for name in NAMES for f in functions(TREES[name])]
    assert [found for found in every if found[2] > 60] == []


def test_no_function_takes_more_than_8_parts():
    """Keyword-only arguments are configuration, one per key; positional ones are what a reader must keep apart."""
    every = [(name, f.name, len(f.args.posonlyargs) + len(f.args.args)) for name in NAMES for f in functions(TREES[name])]
    assert [found for found in every if found[2] > 8] == []


def test_the_reading_paths_are_short():
    run = ("train.py", "build.py", "run/loop.py")
    assert sum(lines(PACKAGE / name) for name in (*run, "agent/ppo.py")) < 700
    dreams = ("agent/tier.py", "agent/level.py", "ops/returns.py")
    assert sum(lines(PACKAGE / name) for name in (*run, *dreams)) < 1000  # how they learn
    assert sum(lines(PACKAGE / name) for name in (*run, *dreams, "agent/dream.py", "agent/hierarchy.py")) < 1400  # and act


# Names


def test_no_file_is_named_after_nothing():
    nothing = {"utils", "util", "tools", "common", "helpers", "helper", "misc"}
    assert [name for name in NAMES if Path(name).stem in nothing] == []


def test_no_file_is_named_like_the_standard_library():
    by_design = {"provenance/code.py"}  # what run.json calls it
    named = [name for name in NAMES if Path(name).stem in sys.stdlib_module_names and not name.endswith("__init__.py")]
    assert set(named) <= by_design


def test_every_module_says_what_it_is():
    assert [name for name in NAMES if not ast.get_docstring(TREES[name])] == []


def test_nothing_is_left_to_be_done():
    left = re.compile(rf"T[O]DO|F[I]XME|X[X]X|NotImplemented[E]rror|{re.escape(str(ROOT))}|{re.escape(str(Path.home()))}/")
    assert [name for name in NAMES if left.search((PACKAGE / name).read_text(encoding="utf8"))] == []


# Randomness and time

GLOBAL_DRAWS = re.compile(
    r"(?<![\w.])random\.\w+\(|np\.random\.(?!Philox)\w+|(?<![\w.])torch\.(?:rand|randn|randint|randperm|rand_like|randn_like"
    r"|multinomial|bernoulli|normal|manual_seed|seed|Generator)\(|default_rng|\.(?:normal_|uniform_|random_|bernoulli_)\("
    r"|torch\.distributions|nn\.init\.|(?<!\w)(?:uuid|secrets)\.\w+"
)
MAY_DRAW = {
    "env/parallel.py": {"random.seed(", "np.random.seed"},  # in a worker, as snapshot.py does in the main process
    "env/contract.py": {"random.getstate(", "np.random.get_state"},  # to see that nobody drew
    "proof/claims.py": {"random.uniform("},  # the instants at which it kills a run, which must not repeat
}
TRAINS = {"determinism", "ops", "nn", "env", "replay", "world", "agent", "hardware", "records"}


def code_only(name: str) -> str:
    """A module without comments and docstrings."""
    tree = ast.parse((PACKAGE / name).read_text(encoding="utf8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body[0] = ast.Pass()
    return ast.unparse(tree)


def test_nothing_draws_from_a_generator_with_hidden_state():
    others = [name for name in NAMES if name != "determinism/snapshot.py"]  # which seeds, saves and restores them for others
    draws = {name: set(GLOBAL_DRAWS.findall(code_only(name))) - MAY_DRAW.get(name, set()) for name in others}
    assert {name: found for name, found in draws.items() if found} == {}


@pytest.mark.parametrize(
    "line",
    [
        "random.random()",
        "np.random.seed(3)",
        "torch.rand(3)",
        "torch.manual_seed(1)",
        "nn.init.orthogonal_(w)",
        "w.normal_(0, 1)",
        "np.random.default_rng(3)",
    ],
)
def test_a_draw_would_be_seen(line):
    assert GLOBAL_DRAWS.search(line)


def test_what_trains_reads_no_clock():
    clocks = {name: imported(TREES[name]) for name in NAMES if part(name) in TRAINS}
    assert [name for name, found in clocks.items() if {module.split(".")[0] for module in found} & {"time", "datetime"}] == []


def swallowed(tree: ast.Module) -> list[int]:
    """Lines of handlers of Exception or wider that never raise."""
    handlers = [node for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler)]
    wide = [
        h for h in handlers if h.type is None or {"Exception", "BaseException"} & set(re.findall(r"\w+", ast.unparse(h.type)))
    ]
    return [h.lineno for h in wide if not any(isinstance(child, ast.Raise) for child in ast.walk(h))]


def test_an_exception_of_any_kind_is_raised_again():
    found = {name: swallowed(TREES[name]) for name in NAMES}
    assert {name: numbers for name, numbers in found.items() if numbers} == {}


# Tests mirror the tree


def test_a_test_lies_where_what_it_tests_lies():
    folders = {path.parent.name for path in (ROOT / "tests").glob("*/test_*.py")}
    assert {folder for folder in folders if not (PACKAGE / folder).is_dir()} == set()
