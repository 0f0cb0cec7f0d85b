"""How `make mutants` judges output recorded from cargo-mutants 27.1.0, and whether its tables match the source."""

import importlib.machinery
import importlib.util
import json
import re
import tomllib

import pytest

from support import REPOSITORY

loader = importlib.machinery.SourceFileLoader("mutants", str(REPOSITORY / "scripts" / "mutants"))
mutants = importlib.util.module_from_spec(importlib.util.spec_from_loader("mutants", loader))
loader.exec_module(mutants)

RECORDED = json.loads((REPOSITORY / "tests" / "stack" / "mutants.json").read_text())
TABLE = mutants.Table(mutants.TABLE.read_text())
FOLDERS = ("auth", "db", "http", "idempotency", "resource")

SMALL = """
[[part]]
group = "db"
files = ["src/db/*"]
tests = ["db::"]

[[part]]
group = "http"
files = ["src/http/*"]
tests = ["http::"]

[[survivor]]
mutant = "src/db/a.rs: replace < with <= in late"
line = "if at < end {"
reason = "both are the same instant"
"""


def after(*outcomes, group="db"):
    names = [f"src/{group}/a.rs:{row}:1: replace a with b" for row in range(1, 1 + len(outcomes))]
    return [mutants.Mutant(name, group, "a", outcome) for name, outcome in zip(names, outcomes)]


def understood():
    return mutants.Mutant("src/db/a.rs:9:5: replace < with <= in late", "db", "if at < end {", mutants.SURVIVED)


def report(found):
    return mutants.report(found, mutants.Table(SMALL), {"db": 70, "http": 30}, "Seed 1.")


def row(text, group):
    (found,) = (line for line in text.splitlines() if line.startswith(f"| {group} |"))
    return [cell.strip() for cell in found.strip("|").split("|")]


def judged(name):
    mutant = mutants.Mutant(name, "db", "")
    mutants.classify(mutant, RECORDED["outcomes"], lambda path: "\n".join(RECORDED["logs"][path]))
    return mutant


@pytest.mark.parametrize(
    ("name", "outcome", "caught_by"),
    [
        ("4:5: replace late -> bool with true", "caught", "db::late::tests::what_is_before_the_end_is_late"),
        ("4:8: replace < with <= in late", "survived", None),
        ("10:14: replace -= with += in turns", "timed out", None),
        ("17:5: replace made -> Made with Default::default()", "unviable", None),
    ],
)
def test_a_run_of_cargo_mutants_is_read(name, outcome, caught_by):
    mutant = judged(f"src/db/late.rs:{name}")
    assert (mutant.outcome, mutant.caught_by) == (outcome, caught_by)
    assert mutant.seconds > 0.1


def test_every_outcome_was_recorded():
    assert {one["summary"] for one in RECORDED["outcomes"]["outcomes"]} == set(mutants.SUMMARIES)


def test_a_run_without_the_mutant_is_rejected():
    with pytest.raises(ValueError):
        judged("src/db/late.rs:4:5: replace late -> bool with false")


def test_a_run_passes_if_every_viable_mutant_was_caught_or_timed_out():
    text, good = report(after("caught", "caught", "timed out", "unviable") + after("caught", group="http"))
    assert good
    assert row(text, "db") == ["db", "70", "4", "2", "1", "1", "0", "0", "100 %"]
    assert row(text, "all") == ["all", "100", "5", "3", "1", "1", "0", "0", "100 %"]


def test_a_survivor_without_a_reason_fails_the_run():
    text, good = report(after(*["caught"] * 99, "survived"))
    assert not good
    assert "survived: src/db/a.rs:100:1: replace a with b" in text
    assert "no reason" in text


def test_a_run_passes_with_an_explained_survivor_if_enough_are_caught():
    text, good = report(after(*["caught"] * 9) + [understood()])
    assert good
    assert "both are the same instant" in text
    assert row(text, "db")[6:] == ["1", "1", "90 %"]


def test_a_run_fails_below_90_percent_even_if_every_survivor_is_explained():
    assert not report(after(*["caught"] * 8) + [understood()])[1]
    # Mutants that do not compile do not count.
    assert not report(after(*["caught"] * 8, *["unviable"] * 9) + [understood()])[1]


def test_a_reason_applies_to_its_line_only():
    moved, changed = understood(), understood()
    moved.name = moved.name.replace(":9:5:", ":12:8:")
    changed.line = "if at < end && open {"
    assert report(after(*["caught"] * 9) + [moved])[1]
    assert not report(after(*["caught"] * 9) + [changed])[1]


def test_an_empty_run_fails():
    text, good = report(after(None, None))
    assert not good
    assert "not run: 2" in text
    assert not report(after("unviable"))[1]


def test_a_seed_determines_the_sample_which_is_balanced_over_the_groups():
    there = after(*[None] * 50) + after(*[None] * 3, group="http")
    chosen = mutants.choose(there, ["db", "http"], 10, 7)
    assert chosen == mutants.choose(there[::-1], ["db", "http"], 10, 7) != mutants.choose(there, ["db", "http"], 10, 8)
    assert [one.group for one in chosen] == ["db", "http"] * 3 + ["db"] * 4
    assert chosen[:6] == mutants.choose(there, ["db", "http"], 6, 7)
    assert len(mutants.choose(there, ["db", "http"], 1000, 7)) == 53


def test_a_retry_finds_survivors_at_their_current_position():
    there = mutants.listed(json.dumps(RECORDED["list"]), TABLE, lambda file: RECORDED["lines"])
    before = [mutants.dataclasses.asdict(one) | {"outcome": outcome} for one, outcome in zip(there, ("survived", "caught"))]
    before[0]["name"] = re.sub(r":\d+:\d+:", ":1:1:", before[0]["name"])
    before.append(before[0] | {"line": "at < end && open", "outcome": None})
    retried, kept = mutants.again(there, before)
    assert (retried.name, retried.outcome) == (there[0].name, None)
    assert kept.outcome == "caught"


def test_a_mutant_is_selected_by_its_whole_name():
    names = [entry["name"] for entry in RECORDED["list"]]
    for name in names:
        assert [other for other in names if re.search(f"^{mutants.escaped(name)}$", other)] == [name]


def test_a_diff_adds_the_lines_of_the_mutants_and_no_others():
    places = ("b.rs:3:9", "a.rs:5:1", "b.rs:2:1", "b.rs:3:1")
    found = [mutants.Mutant(f"src/{place}: replace a with b", "db", "") for place in places]
    expected = "--- a/src/a.rs\n+++ b/src/a.rs\n@@ -4,0 +5,1 @@\n+five\n"
    expected += "--- a/src/b.rs\n+++ b/src/b.rs\n@@ -1,0 +2,1 @@\n+two\n@@ -1,0 +3,1 @@\n+three\n"
    assert mutants.diff(found, lambda file: ["one", "two", "three", "four", "five"]) == expected


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_file_belongs_to_a_part(folder):
    files = [str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "src" / folder).rglob("*.rs")]
    assert files
    assert {TABLE.part(file)["group"] for file in files} == {folder}


def test_every_part_has_a_file():
    files = [str(path.relative_to(REPOSITORY)) for folder in FOLDERS for path in (REPOSITORY / "src" / folder).rglob("*.rs")]
    used = [TABLE.part(file) for file in files]
    assert [part for part in TABLE.parts if part not in used] == []
    assert [name for part in TABLE.parts for name in part["files"] if not list(REPOSITORY.glob(name))] == []
    configuration = tomllib.loads((REPOSITORY / ".cargo" / "mutants.toml").read_text())
    assert configuration["examine_globs"] == [f"src/{folder}/**/*.rs" for folder in FOLDERS]


def test_every_filter_names_an_existing_module():
    for part in TABLE.parts:
        for name in part["tests"]:
            path = name.removesuffix("::").split("::")
            roots = [REPOSITORY / "src", REPOSITORY / "tests" / "api", REPOSITORY / "tests" / "resource"]
            found = [root.joinpath(*path) for root in roots]
            assert any(place.is_dir() or place.with_suffix(".rs").is_file() for place in found), name


def test_every_reason_is_for_an_existing_line():
    for mutant, line in TABLE.reasons:
        file = mutant.partition(": ")[0]
        assert line in [text.strip() for text in (REPOSITORY / file).read_text().splitlines()], mutant
