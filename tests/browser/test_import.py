"""The import of CSV files on the page: rows and notes, or each error with its line, for ten inputs of the corpus."""

import json

import pytest
from playwright.sync_api import expect

import support

CORPUS = support.REPOSITORY / "tests" / "corpus"
CASES = {case["file"]: case for case in json.loads((CORPUS / "cases.json").read_text())}
CHOSEN = [
    "blanks.csv",
    "excel-semicolon.csv",
    "excel-utf16.txt",
    "mac-line-ends.csv",
    "pandas-index.csv",
    "titanic-kaggle-lenient.csv",
    "two-separators.csv",
    "unclosed-quote.csv",
    "windows-1252.csv",
    "windows-1252-unnamed.csv",
]


def rows_of(stack, resource):
    return stack.request("GET", f"/v1/{resource}?order=uuid.desc&limit=1000").json()


def choose(page, case):
    page.get_by_role("button", name="Import…").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("File").set_input_files(CORPUS / "inputs" / case["file"])
    if "encoding" in case:
        dialog.get_by_label("Encoding").select_option(case["encoding"])
    if case.get("lenient"):
        dialog.get_by_label("ignore unknown columns").check()
    dialog.get_by_role("button", name="Import", exact=True).click()
    return dialog


@pytest.mark.parametrize("name", CHOSEN)
def test_an_input_gives_its_rows_and_notes_or_its_error(open_page, stack, name):
    case = CASES[name]
    resource = case.get("resource", "specimens")
    before = len(rows_of(stack, resource))
    page = open_page("/" if resource == "passengers" else f"/resources/{resource}")
    dialog = choose(page, case)
    if "error" in case:
        error = case["error"]
        place = f"Line {error['line']}" + (f", {error['field']}" if error["field"] else "")
        expect(dialog.get_by_role("alert")).to_contain_text(f"{place} {error['detail']}")
        assert len(rows_of(stack, resource)) == before
        return
    count = len(case["rows"])
    said = f"{count} row{'s were' if count != 1 else ' was'} imported"
    expect(dialog.get_by_role("status")).to_have_text(f"{said}.")
    expect(dialog.get_by_role("listitem")).to_have_text(case["notes"])
    dialog.get_by_role("button", name="Done").click()
    expect(page.locator("#status")).to_contain_text(said)
    stored = rows_of(stack, resource)
    assert len(stored) == before + count
    for row, expected in zip(reversed(stored[:count]), case["rows"], strict=True):
        for column, value in expected.items():
            assert row[column] == value, (column, row)
        # The rows are shared with other tests of the stack.
        stack.request("DELETE", f"/v1/{resource}/{row['uuid']}")


def test_a_file_is_read_again_in_another_encoding(open_page, stack):
    page = open_page("/resources/specimens")
    dialog = choose(page, CASES["windows-1252-unnamed.csv"])
    expect(dialog.get_by_role("alert")).to_contain_text("must be text in UTF-8")
    dialog.get_by_label("Encoding").select_option("windows-1252")
    dialog.get_by_role("button", name="Import", exact=True).click()
    expect(dialog.get_by_role("status")).to_have_text("2 rows were imported.")
    assert {"a", "café"} <= {row["label"] for row in rows_of(stack, "specimens")[:2]}
