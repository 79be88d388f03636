"""Runs the tests on mutants of the package and lists those on which none fails.

    python -m tests.run_mutants [--each 12] [--seed 0] [--again] [--out FILE] [PATH ...]

First every test file runs once, and which tests run which lines is written down. Then each mutant
is tried with the tests that run its statement: those of its own module first, then those of the
rooms above. Nothing is written into the package: a forked child compiles the changed module in its
memory. So tests that start Python anew do not see the change and are not among those that count.

What was found stands in FILE, a JSON object a line, and is not looked for again; `--again` tries
once more what survived, for tests that were written since, and what ran out of time, for a machine
that was busy. With `make mutants` options go into MUTANTS:
`make mutants MUTANTS="--each 30 ragbook/methods"`.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.abc
import importlib.util
import json
import os
import random
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # libraries that have started threads cannot be forked

import pytest

from tests.mutants import Mutant, sample

ROOT = Path(__file__).resolve().parents[1]
TESTS = ("models", "index", "retrieval", "methods", "training", "evaluation", "experiments",
         "explorer", "test_own_models.py", "test_cli.py")  # fmt: skip
"""The tests of the rooms from the models upwards, in tests/."""
PATHS = ("ragbook/methods", "ragbook/evaluation", "ragbook/models",
         "ragbook/training/contrastive.py", "ragbook/training/distil.py",
         "ragbook/training/dpr.py", "ragbook/training/lm.py", "ragbook/training/rag.py",
         "ragbook/training/reader/objectives.py", "ragbook/training/realm/pretraining.py",
         "ragbook/training/realm/open_qa.py")  # fmt: skip
"""What is changed where no path is named; of the training, the modules that hold its losses."""
CACHE = ROOT / "build" / "mutants-reached.json"
NO_ANSWER = "(out of time, or died)"
"""What stands in place of a test's name. A change that never ends is killed so; a busy machine may
do the same to one that survives."""

MEMORY = 16 * 2**30
"""Bytes of addresses a child may have: a change may make a loop that never ends."""

Reached = dict[str, Any]
"""Of one test file: `seconds` {test: s}, `lines` {module's path: {line: [test or ""]}}; the empty
name is the file's own code, its fixtures and imports."""


class Recorder:
    """A plugin of pytest: the tests' times, the first that failed, and what each has run."""

    def __init__(self, coverage: Any = None) -> None:
        self.coverage, self.failed, self.seconds = coverage, "", {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the time, and the name of the first failed test."""
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration
        if report.failed and not self.failed:
            self.failed = report.nodeid

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A file that cannot be imported is a failed test."""
        if report.failed and not self.failed:
            self.failed = report.nodeid

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Any:
        """Lines run from here on are the test's; before and after they are the file's."""
        if self.coverage is not None:
            self.coverage.switch_context(item.nodeid)
        try:
            return (yield)
        finally:
            if self.coverage is not None:
                self.coverage.switch_context("")


class Changed(SourceFileLoader, importlib.abc.MetaPathFinder):
    """Imports one module from the code of its mutant."""

    def __init__(self, mutant: Mutant) -> None:
        self.file = str(ROOT / mutant.path)
        self.module = mutant.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        super().__init__(self.module, self.file)
        self.code = mutant.compiled(self.file)

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        """The mutant, if it is asked for."""
        if fullname != self.module:
            return None
        return importlib.util.spec_from_file_location(fullname, self.file, loader=self)

    def get_code(self, fullname: str) -> Any:
        """The changed code, not that of the file or of its cache."""
        return self.code


def in_child(work: Callable[[], dict[str, Any]], seconds: float) -> dict[str, Any] | None:
    """What `work` returns in a forked child; None if it died or took longer than `seconds`."""
    answer = ROOT / "build" / f"mutants-{os.getpid()}.json"
    answer.unlink(missing_ok=True)
    child = os.fork()
    if not child:
        try:
            os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            nowhere = os.open(os.devnull, os.O_RDWR)
            for stream in range(3):
                os.dup2(nowhere, stream)
            found = json.dumps(work())
            answer.write_text(found, encoding="utf-8")
        finally:
            os._exit(0)
    limit = time.monotonic() + seconds
    try:
        while os.waitpid(child, os.WNOHANG) == (0, 0):
            if time.monotonic() > limit:
                raise TimeoutError
            time.sleep(0.02)
    except (TimeoutError, KeyboardInterrupt) as stopped:
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        if isinstance(stopped, KeyboardInterrupt):
            raise
    if not answer.exists():
        return None
    found = json.loads(answer.read_text(encoding="utf-8"))
    answer.unlink()
    return found


def run_tests(tests: Sequence[str], recorder: Recorder) -> int:
    """pytest's exit status, for tests in this order."""
    os.chdir(ROOT)
    options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--hypothesis-seed=0"]
    return int(pytest.main([*options, *tests], plugins=[recorder]))


def reached_by(file: str) -> dict[str, Any]:
    """Run one test file on the package as it is: see `Reached`; `failed` names a failed test."""
    import coverage

    measured = coverage.Coverage(data_file=None, source=[str(ROOT / "ragbook")], config_file=False)
    recorder = Recorder(measured)
    measured.start()
    status = run_tests([file], recorder)
    measured.stop()
    data = measured.get_data()
    lines = {
        Path(path).relative_to(ROOT).as_posix(): data.contexts_by_lineno(path)
        for path in data.measured_files()
    }
    failed = recorder.failed or (f"{file} (exit status {status})" if status not in (0, 5) else "")
    return {"seconds": recorder.seconds, "lines": lines, "failed": failed}


def reached() -> dict[str, Reached]:
    """What every test file runs; from the stored result where it and the package are the same."""
    held = json.loads(CACHE.read_text(encoding="utf-8")) if CACHE.exists() else {}
    package = sorted((ROOT / "ragbook").rglob("*.py"))
    helpers = [p for p in sorted((ROOT / "tests").rglob("*.py")) if not p.name.startswith("test_")]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in package + helpers))
    files = []
    for place in (ROOT / "tests" / name for name in TESTS):
        files += sorted(place.rglob("test_*.py")) if place.is_dir() else [place]
    found: dict[str, Reached] = {}
    for path in files:
        file = path.relative_to(ROOT).as_posix()
        own = digest.copy()
        own.update(path.read_bytes())
        old = held.get(file)
        if old and old["digest"] == own.hexdigest():
            found[file] = old
            continue
        print(f"what {file} runs", flush=True)
        new = in_child(lambda file=file: reached_by(file), 1800)
        if new is None or new["failed"]:
            raise SystemExit(f"tests fail without any change: {new['failed'] if new else file}")
        found[file] = {"digest": own.hexdigest(), **new}
        CACHE.write_text(json.dumps({**held, **found}), encoding="utf-8")
    return found


def tests_of(mutant: Mutant, reach: dict[str, Reached]) -> list[str]:
    """The tests that run a mutant's statement, its own module's first, then the quickest first.

    Where a fixture runs it, all tests of the fixture's file; where it runs at import, all tests of
    the files in which a test runs anything of the module.
    """
    name = Path(mutant.path)
    own = f"tests/{name.relative_to('ragbook').parent}/test_{name.stem}.py"
    at_import = not mutant.function or mutant.before.startswith(("def ", "class "))
    chosen: dict[str, float] = {}
    for found in reach.values():
        lines = found["lines"].get(mutant.path, {})
        wanted = lines if at_import else [n for n in map(str, mutant.lines) if n in lines]
        tests = {test for line in wanted for test in lines[line]}
        called = tests - {""}
        if called if at_import else "" in tests:
            called = set(found["seconds"])
        chosen |= {test: found["seconds"].get(test, 0.0) for test in called}

    def order(test: str) -> tuple[int, float]:
        file = test.partition("::")[0]
        near = 0 if file == own else 1 if Path(file).parent == Path(own).parent else 2
        return near, chosen[test]

    return sorted(chosen, key=order)


def attempt(mutant: Mutant, tests: list[str], seconds: float) -> str:
    """The test that fails on a mutant; "" if none does."""

    def work(chosen: list[str]) -> dict[str, Any]:
        recorder = Recorder()
        sys.meta_path.insert(0, Changed(mutant))
        status = run_tests(chosen, recorder)
        return {"status": status, "failed": recorder.failed}

    found = in_child(lambda: work(tests), seconds)
    if found == {"status": pytest.ExitCode.USAGE_ERROR, "failed": ""}:
        # The change took a test its name: what is tested is named in the module.
        files = list(dict.fromkeys(test.partition("::")[0] for test in tests))
        found = in_child(lambda: work(files), 5 * seconds)
    if found is None:
        return NO_ANSWER
    return found["failed"] or (f"(exit status {found['status']})" if found["status"] else "")


def preload() -> None:
    """Import what every child would: import only, for a library in use cannot be forked."""
    import faiss  # noqa: F401
    import pandas  # noqa: F401
    import pyarrow.compute  # noqa: F401
    import scipy.optimize
    import scipy.stats  # noqa: F401
    import torch  # noqa: F401
    import transformers
    import transformers.models.bert.modeling_bert  # noqa: F401


def last_results(out: Path) -> dict[str, dict[str, Any]]:
    """The last line about each mutant."""
    if not out.exists():
        return {}
    lines = out.read_text(encoding="utf-8").splitlines()
    return {one["mutant"]: one for one in map(json.loads, lines)}


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("paths", nargs="*", default=PATHS, help="modules, or folders of them")
    parser.add_argument("--each", type=int, default=12, help="mutants of each module")
    parser.add_argument("--seed", type=int, default=0, help="draws which mutants")
    parser.add_argument("--again", action="store_true", help="try what survived once more")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "mutants.jsonl")
    options = parser.parse_args(arguments)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    CACHE.parent.mkdir(exist_ok=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # no child is left behind
    preload()
    reach = reached()
    drawn: list[Mutant] = []
    for path in map(Path, options.paths):
        whole = (ROOT / path).resolve()
        for file in sorted(whole.rglob("*.py")) if whole.is_dir() else [whole]:
            drawn += sample(file, ROOT, options.each, options.seed)
    random.Random(options.seed).shuffle(drawn)  # a run that is cut short has seen every module
    done = last_results(options.out)
    for number, mutant in enumerate(drawn, 1):
        old = done.get(mutant.name)
        if old and not (options.again and old["killed_by"] in ("", NO_ANSWER)):
            continue
        tests = tests_of(mutant, reach)
        expected = sum(found["seconds"].get(t, 0) for found in reach.values() for t in tests)
        began = time.monotonic()
        killed_by = attempt(mutant, tests, 120 + 10 * expected) if tests else ""
        done[mutant.name] = {
            "mutant": mutant.name, "line": mutant.lines.start, "tests": len(tests),
            "killed_by": killed_by, "seconds": round(time.monotonic() - began, 1),
        }  # fmt: skip
        with options.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(done[mutant.name]) + "\n")
        print(f"{number}/{len(drawn)} {killed_by or 'SURVIVED'}: {mutant.name}", flush=True)
    report([done[mutant.name] for mutant in drawn])


def report(results: Sequence[dict[str, Any]]) -> None:
    """Print what survived or ran out of time, and how many of how many in each room."""
    rooms = ["/".join(one["mutant"].split("/")[:2]) for one in results]
    left: dict[str, Counter[str]] = {"survived": Counter(), "out of time": Counter()}
    for room, one in zip(rooms, results, strict=True):
        if one["killed_by"] in ("", NO_ANSWER):
            how = "out of time" if one["killed_by"] else "survived"
            left[how][room] += 1
            print(f"{how}, line {one['line']}, {one['tests']} tests: {one['mutant']}")
    for room, n in sorted(Counter(rooms).items()):
        counts = ", ".join(f"{count[room]} {how}" for how, count in left.items())
        print(f"{room}: of {n} mutants {counts}")


if __name__ == "__main__":
    main()
