"""The reproducibility checklist, filled from what the runs recorded: met, not met, or not to be told, and by which fact."""

from collections.abc import Callable, Sequence

from hieros_repro.findings.declared import TOLERANCE, clash, steadiness
from hieros_repro.findings.evidence import Evidence, kinds
from hieros_repro.findings.finding import FEW, Finding
from hieros_repro.findings.held import Held
from hieros_repro.findings.origin import changed_lines, is_pinned
from hieros_repro.findings.page import Checklist, Item, Paragraph, Section, listed
from hieros_repro.provenance.code import code
from hieros_repro.provenance.machine import lock
from hieros_repro.records import Damaged

LEAST = 3  # seeds
CHECKED = 4 * 2**30  # bytes of checkpoints that are read at most


def section(finding: Finding, evidence: Sequence[Evidence], held: Sequence[Held]) -> Section:
    items = fill(finding, evidence, held)
    met, unmet = (sum(item.met is wanted for item in items) for wanted in (True, False))
    text = f"{met} of {len(items)} met, {unmet} not met, {len(items) - met - unmet} cannot be told."
    counts = Paragraph(text, "warning" if unmet else "plain")
    return Section("Reproducibility checklist", [counts, Checklist(items), Paragraph(_complete(evidence))])


def fill(finding: Finding, evidence: Sequence[Evidence], held: Sequence[Held]) -> list[Item]:
    begun = [one for one in evidence if one.account]
    from_runs: list[Callable[[Sequence[Evidence]], Item]] = [
        _committed, _one_code, _pinned, _configured, _seeded, _hardware, _one_numerics, _strict, _operations,
    ]  # fmt: skip
    items = [judge(begun) for judge in from_runs]
    items += [_enough(finding), _intervals(finding), _steady(finding), _expected(held), _repeated(finding)]
    return [*items, _intact(evidence)]


# -- Code --------------------------------------------------------------------------------------------------------------


def _committed(begun: Sequence[Evidence]) -> Item:
    demand = "code committed, without changes"
    codes = [one.account.get("code") or {} for one in begun]
    if not codes or any(code.get("commit") is None for code in codes):
        return Item(None, demand, "a commit was not recorded: the runs were made outside a git checkout")
    changed = [one for one, code in zip(begun, codes, strict=True) if code.get("changed")]
    if not changed:
        return Item(True, demand, f"commit {', '.join(sorted({code['commit'][:10] for code in codes}))}")
    lines = changed_lines(changed[0].folder / "code.patch")
    return Item(
        False,
        demand,
        f"{len(changed)} of {len(begun)} runs had uncommitted changes ({lines:,} lines in {changed[0].name}/code.patch)",
    )


def _one_code(begun: Sequence[Evidence]) -> Item:
    found = kinds(begun, "code", "sources")
    if not found or None in found:
        return Item(None, "one program for all runs", "a digest of the sources was not recorded")
    fact = f"sources {next(iter(found))[:10]}" if len(found) == 1 else f"{len(found)} different digests of the sources"
    return Item(len(found) == 1, "one program for all runs", fact)


def _pinned(begun: Sequence[Evidence]) -> Item:
    """Of the packages that the lock file names, those that are installed must be as it says. The lock file is that of the
    present checkout, so that it says nothing about runs of other code."""
    demand, pinned = "package versions pinned", lock()
    packages = [one.account.get("packages") or {} for one in begun]
    if not pinned or not packages or not all(packages):
        return Item(None, demand, "packages were not recorded" if pinned else "there is no requirements.lock here")
    if foreign := _foreign(begun):
        fact = f"{len(foreign)} of {len(begun)} runs are of other code than the present checkout, whose requirements.lock it is"
        return Item(None, demand, fact)
    other = sorted({f"{name} {version} instead of {pinned[name]}" for found in packages for name, version in found.items()
                    if name in pinned and not is_pinned(version, pinned[name])})  # fmt: skip
    count = len({name for found in packages for name in found if name in pinned})
    if not other:
        return Item(
            True, demand, f"all {count} installed packages that requirements.lock of this checkout names are the pinned ones"
        )
    return Item(
        False,
        demand,
        f"{len(other)} of {count} are not as in this checkout's requirements.lock: {listed(other)}",
    )


def _foreign(begun: Sequence[Evidence]) -> list[Evidence]:
    """Runs of other code than that which makes the report."""
    present = code()

    def same(one: Evidence) -> bool:
        found = one.account.get("code") or {}
        committed = not found.get("changed") and found.get("commit") is not None and found["commit"] == present["commit"]
        return bool(committed or found.get("sources") == present["sources"])

    return [one for one in begun if not same(one)]


# -- Runs --------------------------------------------------------------------------------------------------------------


def _all(begun: Sequence[Evidence], demand: str, has: Callable[[Evidence], bool], fact: str) -> Item:
    """A demand that each run meets by itself."""
    if not begun:
        return Item(None, demand, "no run has begun")
    lacking = [one.name for one in begun if not has(one)]
    if lacking:
        return Item(
            False,
            demand,
            f"not in {len(lacking)} of {len(begun)} runs: {listed(lacking)}",
        )
    return Item(True, demand, fact)


def _configured(begun: Sequence[Evidence]) -> Item:
    return _all(
        begun, "configurations saved", lambda one: bool(one.run.group), "config.yaml and overrides.yaml in every run folder"
    )


def _seeded(begun: Sequence[Evidence]) -> Item:
    seeds = sorted({one.run.seed for one in begun if one.run.seed is not None})
    listed = f"{len(seeds)} different: {', '.join(map(str, seeds[:8]))}{' ...' if len(seeds) > 8 else ''}"
    return _all(begun, "seeds set and recorded", lambda one: one.run.seed is not None, listed)


def _hardware(begun: Sequence[Evidence]) -> Item:
    cpus = sorted({str((one.account.get("machine") or {}).get("cpu")) for one in begun})
    return _all(begun, "hardware recorded", lambda one: bool(one.account.get("machine")), ", ".join(cpus[:4]))


def _one_numerics(begun: Sequence[Evidence]) -> Item:
    found = {one.run.facts.get("numerics") for one in begun if one.account.get("numerics")}
    if not found:
        return Item(None, "equal numerics", "a numerics fingerprint was not recorded")
    fact = "the same fingerprint in all runs" if len(found) == 1 else f"{len(found)} different fingerprints: see provenance"
    return Item(len(found) == 1, "equal numerics", fact)


def _strict(begun: Sequence[Evidence]) -> Item:
    demand = "deterministic algorithms on"
    found = [one.account.get("numerics") or {} for one in begun]
    if not found or any("deterministic" not in numerics for numerics in found):
        return Item(None, demand, "it was not recorded")
    loose = [one.name for one, n in zip(begun, found, strict=True) if not n["deterministic"] or n.get("warn_only")]
    if loose:
        return Item(False, demand, f"off, or only warned about, in {len(loose)} of {len(begun)} runs: {', '.join(loose[:4])}")
    return Item(True, demand, "an operation without a deterministic form would have been an error in every run")


def _operations(begun: Sequence[Evidence]) -> Item:
    demand = "nondeterministic operations listed"
    finished = [one for one in begun if one.run.status == "finished"]
    if not finished or any("nondeterministic_operations" not in one.account for one in finished):
        return Item(None, demand, "no run has finished" if not finished else "a run does not say which it used")
    if blind := [one.name for one in finished if not _watched(one)]:
        return Item(None, demand, f"nothing looked for them (determinism=off) in {len(blind)} run(s): {listed(blind)}")
    named = sorted({str(operation) for one in finished for operation in one.account["nondeterministic_operations"] or ()})
    return Item(
        True, demand, f"none was used in {len(finished)} finished run(s)" if not named else f"used: {', '.join(named)[:400]}"
    )


def _watched(one: Evidence) -> bool:
    """Whether such an operation would have been an error, or a line in run.json."""
    numerics = one.account.get("numerics") or {}
    return bool(numerics.get("deterministic") or numerics.get("warn_only"))


# -- Results -----------------------------------------------------------------------------------------------------------


def _enough(finding: Finding) -> Item:
    counts = {row.name: len(row.values) for row in finding.rows}
    fewest = min(counts.values(), default=0)
    few = [name for name, count in counts.items() if count < LEAST]
    fact = f"the smallest group has {fewest}" + (
        f"; fewer than {FEW}, so its interval is wide" if LEAST <= fewest < FEW else ""
    )
    fact += f"; too few in {listed(few)}" if few else ""
    return Item(not few and bool(counts), f"at least {LEAST} seeds a group, better {FEW}", fact)


def _intervals(finding: Finding) -> Item:
    without = [row.name for row in finding.rows if row.described is None or row.described.low is None]
    if without:
        return Item(
            False,
            "statistics with intervals",
            f"no interval for {len(without)} of {len(finding.rows)} groups, of one seed or none",
        )
    return Item(
        bool(finding.rows), "statistics with intervals", "t-intervals and bootstrap intervals over seeds, for every group"
    )


def _steady(finding: Finding) -> Item:
    demand = "seeds vary within a declared tolerance"
    told = [row for row in finding.rows if row.tolerances]
    if not told:
        return Item(None, demand, f"none was declared of {finding.metric}: sweep.cv_tolerance")
    facts = [f"{row.name}: {clash(TOLERANCE, row.tolerances) or steadiness(row.cv, row.tolerance)}" for row in told]
    verdicts = {row.steady for row in told}
    met = False if False in verdicts else True if verdicts == {True} and len(told) == len(finding.rows) else None
    undeclared = len(finding.rows) - len(told)
    return Item(met, demand, listed(facts) + (f"; {undeclared} group(s) declare none" if undeclared else ""))


def _expected(held: Sequence[Held]) -> Item:
    demand = "expected results with tolerances"
    if not held:
        return Item(None, demand, "no references file fits these runs; --expected names one")
    source = ", ".join(dict.fromkeys(one.source for one in held))
    verdicts = [(one.group, verdict) for one in held for verdict in one.verdicts]
    unclear = [f"{one.group}: {one.why}" for one in held if one.why]
    if not verdicts:
        return Item(None, demand, listed(unclear) if unclear else f"{source} expects nothing")
    failed = [f"{verdict.metric} of {group}" for group, verdict in verdicts if not verdict.met]
    fact = f"{len(verdicts) - len(failed)} of {len(verdicts)} expectations of {source} are met"
    fact += f"; not {listed(failed)}" if failed else ""
    return Item(not failed, demand, "; ".join([fact, *unclear[:4]]))


def _repeated(finding: Finding) -> Item:
    found = [equal for row in finding.rows for equal in row.repeated.values()]
    if not found:
        return Item(None, "a repetition is bit-equal", "no seed was run twice among these runs")
    return Item(
        all(found), "a repetition is bit-equal", f"{sum(found)} of {len(found)} repeated seeds came to the same parameters"
    )


def _complete(evidence: Sequence[Evidence]) -> str:
    """A plain fact: that what failed is listed is the report's doing and not the runs'."""
    lost = [one for one in evidence if one.run.status != "finished"]
    words = ", ".join(f"{one.name} ({one.run.status})" for one in lost[:4])
    words += " ..." if len(lost) > 4 else ""
    if not lost:
        return f"All {len(evidence)} runs finished."
    return f"{len(lost)} of {len(evidence)} runs did not finish and are listed with the reason: {words}."


def _intact(evidence: Sequence[Evidence]) -> Item:
    """Every checkpoint's files against the manifest's sizes and SHA-256, as far as they can be read in reasonable time. Those
    of runs under way come and go, and are not looked at."""
    from hieros_repro.run import checkpoint

    demand, still = "checkpoints intact", [one for one in evidence if one.run.status != "running"]
    there = [path for one in still for path in sorted((one.folder / "checkpoints").glob("[!.]*"))]
    paths = [path for path in there if path.is_dir()]
    under_way = f"; {len(evidence) - len(still)} of {len(evidence)} runs are under way" if len(still) < len(evidence) else ""
    if not paths:
        return Item(None, demand, f"there are none{under_way}")
    read, damaged, seen = 0.0, [], 0
    for path in paths:
        read += sum(file.stat().st_size for file in path.iterdir())
        if read > CHECKED:
            break
        seen += 1
        try:
            checkpoint.manifest(path)
        except Damaged as error:
            damaged.append(str(error))
    if damaged:
        return Item(False, demand, f"{len(damaged)} of {seen} are not: {damaged[0]}")
    unread = "" if seen == len(paths) else f"; the other {len(paths) - seen} were not read, since they are large"
    rest = unread + under_way
    return Item(None if rest else True, demand, f"{seen} of {len(paths)} equal their manifests' SHA-256{rest}")
