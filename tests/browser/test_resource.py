"""The page of a resource added by a description: the same features as for passengers, generated from the OpenAPI document."""

import re

import pytest
from playwright.sync_api import expect

VESSEL = {
    "name": "Ada",
    "shipType": "ferry",
    "tonnage": 1200.5,
    "imo": 9007199254740993,
    "price": "12345678901234567.89",
    "launched": "1999-05-01",
    "surveyed": "2026-01-31T12:00:00Z",
    "afloat": True,
}


def rows(page):
    return page.locator("#rows tr[data-uuid]")


@pytest.fixture
def vessels(stack):
    """vessels(count): exactly this many of them."""

    def fill(count):
        for row in stack.request("GET", "/v1/vessels?limit=1000").json():
            stack.request("DELETE", f"/v1/vessels/{row['uuid']}")
        kinds = ["ferry", "cargo", "tanker"]
        for index in range(count):
            body = {**VESSEL, "name": f"Vessel {index:03}", "shipType": kinds[index % 3], "tonnage": index * 10}
            assert stack.request("POST", "/v1/vessels", body).status == 201

    return fill


def test_other_resources_are_linked_and_listed(open_page, vessels):
    vessels(3)
    page = open_page()
    page.get_by_role("navigation", name="Site").get_by_role("link", name="Vessels").click()
    expect(page).to_have_url(re.compile("/resources/vessels$"))
    expect(page.get_by_role("heading", level=1)).to_have_text("Vessels")
    expect(page.get_by_role("columnheader")).to_have_text(
        ["Name", "Ship type", "Tonnage", "Imo", "Price", "Launched", "Surveyed", "Afloat"]
    )
    expect(rows(page)).to_have_count(3)
    expect(rows(page).first).to_contain_text("9007199254740993")
    expect(page.get_by_role("status")).to_have_text("3 of 3")


def test_the_link_of_the_shown_resource_is_visible_in_a_bar_that_is_too_narrow(open_page, vessels):
    vessels(1)
    page = open_page("/resources/vessels", viewport={"width": 320, "height": 600})
    link = page.get_by_role("navigation", name="Site").get_by_role("link", name="Vessels")
    expect(link).to_be_in_viewport(ratio=1)
    expect(link).to_have_css("white-space", "nowrap")


def test_filters_of_columns_that_are_not_shown_are_folded_unless_they_are_set(open_page):
    page = open_page("/resources/crates")
    remark = page.get_by_label("Remark")
    expect(page.get_by_label("Harbour")).to_be_visible()
    expect(remark).to_be_hidden()
    page.get_by_text("1 more filter").click()
    remark.fill("fragile")
    expect(page).to_have_url(re.compile("#remark=fragile$"))
    page.reload()
    expect(remark).to_have_value("fragile")
    expect(remark).to_be_visible()


def test_rows_are_filtered_sorted_and_paged(open_page, vessels):
    vessels(60)
    page = open_page("/resources/vessels")
    expect(rows(page)).to_have_count(50)
    page.get_by_role("button", name="Next").click()
    expect(rows(page)).to_have_count(10)
    page.get_by_role("button", name="Tonnage").click()
    expect(rows(page).first).to_contain_text("Vessel 000")
    page.get_by_role("button", name="Tonnage").click()
    expect(rows(page).first).to_contain_text("Vessel 059")
    search = page.get_by_role("search")
    search.get_by_label("Ship type").select_option("cargo")
    expect(rows(page)).to_have_count(20)
    search.get_by_label("Tonnage from").fill("550")
    expect(rows(page)).to_have_count(2)
    search.get_by_label("Name").fill("058")
    expect(rows(page)).to_have_count(1)
    # The state of the view is in the URL.
    address = page.url
    page.get_by_role("button", name="Clear").click()
    expect(rows(page)).to_have_count(50)
    page.goto(address)
    expect(rows(page)).to_have_count(1)


def test_a_row_is_created_edited_and_deleted_and_each_fault_is_at_its_field(open_page, vessels, stack):
    vessels(0)
    page = open_page("/resources/vessels")
    page.get_by_role("button", name="New vessel").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Create vessel").click()
    expect(dialog.locator("#name-error")).to_contain_text("must be a text of 1 to 80 characters")
    expect(dialog.locator("#launched-error")).to_contain_text("must be a date")
    dialog.get_by_label("Name").fill("Ada")
    dialog.get_by_label("Ship type").select_option("ferry")
    dialog.get_by_label("Imo").fill("9007199254740993")
    dialog.get_by_label("Price").fill("12345678901234567.89")
    dialog.get_by_label("Launched").fill("1999-05-01")
    dialog.get_by_label("Afloat").select_option("true")
    dialog.get_by_role("button", name="Create vessel").click()
    expect(rows(page)).to_have_count(1)
    expect(page.get_by_role("status")).to_have_text("Ada was created. 1 of 1")
    rows(page).first.get_by_role("button", name="Ada").click()
    dialog.get_by_role("button", name="Edit").click()
    dialog.get_by_label("Name").fill("Bea")
    dialog.get_by_role("button", name="Save changes").click()
    expect(dialog.get_by_role("heading", name="Bea")).to_be_visible()
    [stored] = [line for line in stack.request("GET", "/v1/vessels").body.decode().split("},")]
    # The page rounds no number.
    assert '"imo":9007199254740993' in stored and '"price":"12345678901234567.89"' in stored, stored
    assert '"tonnage":null' in stored and '"surveyed":null' in stored, stored
    dialog.get_by_role("button", name="Delete…").click()
    dialog.get_by_role("button", name="Delete vessel").click()
    expect(rows(page)).to_have_count(0)
    expect(page.get_by_role("status")).to_have_text("Bea was deleted. No rows")


def test_statistics_become_a_picture(open_page, vessels):
    vessels(6)
    page = open_page("/resources/vessels")
    expect(page.get_by_role("img", name=re.compile("Count: cargo 2; ferry 2; tanker 2"))).to_be_visible()
    page.get_by_label("Measure").select_option("meanTonnage")
    expect(page.get_by_role("img", name=re.compile("Mean tonnage: cargo 25"))).to_be_visible()


def test_a_resource_that_is_not_there_is_a_problem(open_page, stack):
    assert stack.request("GET", "/resources/nothing").status == 404


def test_a_table_without_charts_is_as_wide_as_the_page(open_page):
    page = open_page("/resources/specimens")
    expect(page.locator("#table")).to_have_attribute("aria-busy", "false")
    assert page.locator(".frame").bounding_box()["width"] > 1200


def test_long_texts_are_cut_in_the_table_and_an_empty_table_is_not_a_filtered_one(open_page, vessels, stack):
    vessels(0)
    page = open_page("/resources/vessels")
    expect(page.locator("#rows")).to_have_text("There are no rows yet.")
    # Four lines at the greatest width of a cell, of which three are shown.
    assert stack.request("POST", "/v1/vessels", {**VESSEL, "name": "long " + "W" * 75}).status == 201
    page.reload()
    text = rows(page).first.get_by_text("long W")
    expect(text).to_be_visible()
    assert 50 < text.bounding_box()["height"] < 70
    assert text.bounding_box()["width"] < 340
    page.get_by_role("searchbox", name="Name").fill("zzz")
    expect(page.locator("#rows")).to_have_text("No matching rows. Clear a filter to see more.")


def test_a_field_may_have_the_name_of_a_property_of_the_form(open_page):
    page = open_page("/resources/crates")
    page.get_by_role("button", name="New crate").click()
    for field in ("Name", "Length", "Width", "Height", "Weight", "Content", "Owner", "Harbour", "Remark"):
        page.get_by_role("dialog").get_by_label(field).fill(f"{field} of it")
    page.get_by_role("dialog").get_by_label("Length").evaluate("control => { control.value = 'x'.repeat(21); }")
    page.get_by_role("button", name="Create crate").click()
    expect(page.locator("#length-error")).to_contain_text("0 to 20 characters")
    page.get_by_role("dialog").get_by_label("Length").fill("12 m")
    page.get_by_role("button", name="Create crate").click()
    expect(page.get_by_role("status")).to_have_text("Name of it was created. 1 of 1")
    expect(rows(page).first).to_contain_text("12 m")
