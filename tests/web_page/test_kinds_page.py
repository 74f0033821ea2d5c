"""A person divides a product into its kinds, sees them in an answer, and takes it back."""

import re

import pytest
from playwright.sync_api import expect


@pytest.fixture
def fruit(shop):
    """A product of two kinds: apples and pears."""
    shop.catalog.merge("pear", "apple")
    shop.catalog.rename("apple", "fruit")
    return shop.catalog.product("fruit").id


def grave(page, axe):
    page.evaluate(axe)
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")["violations"]
    return [one["id"] for one in found if one["impact"] in {"serious", "critical"}]


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_kinds_are_found_named_shown_and_undone(visit, shop, fruit, axe, width, scheme):
    page = visit.open(shop.entry, width=width, scheme=scheme)
    page.goto(f"{shop.address}/#products/{fruit}")
    find = page.get_by_role("button", name="Find kinds")
    find.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_text(re.compile(r"^2 kinds\. Half of the photos"))).to_be_visible(timeout=60_000)
    expect(page.get_by_label("Name of kind 1")).to_be_focused()
    assert grave(page, axe) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.keyboard.press("Control+A")
    page.keyboard.type("round")
    page.get_by_label("Kind 2 is not a kind").check()
    expect(page.get_by_label("Name of kind 2")).to_be_disabled()
    page.get_by_role("button", name="Accept these kinds").click()
    expect(page.locator("#notice [role=status]")).to_contain_text("Fruit has 1 kind: round (32), and 32 of no kind")
    expect(page.get_by_role("heading", name=re.compile("^round: "))).to_be_visible()
    page.get_by_label("Make them a kind named").fill("long")
    page.get_by_role("button", name="Name it").click()
    expect(page.get_by_role("heading", name=re.compile("^long: "))).to_be_visible()
    assert {kind.name for kind in shop.catalog.kinds(fruit)} == {"round", "long"}
    assert grave(page, axe) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_role("heading", name=re.compile("^Of no kind: "))).to_be_visible()
    page.get_by_role("button", name="round is not a kind").click()
    expect(page.get_by_text("Its photos are one kind so far.")).to_be_visible()
    assert [kind.name for kind in shop.catalog.kinds(fruit)] == ["fruit"]
    assert shop.catalog.model.subclasses is None


def test_an_answer_names_the_kind(visit, shop, fruit, photos):
    names = {item.id: item.source for item in shop.catalog.items(fruit) if item.split != "test"}
    shop.catalog.give_kinds({fruit: {item: "green" if "pear" in source else "red" for item, source in names.items()}})
    page = visit.open(shop.entry)
    page.locator(".photo input[type=file]").last.set_input_files([str(photos / "pear0.jpg")])
    expect(page.locator(".answer")).to_contain_text("green")


def test_unknown_photos_become_a_kind_of_a_product(visit, shop, photos):
    page = visit.open(shop.entry)
    for n in range(3):
        page.locator(".photo input[type=file]").last.set_input_files([str(photos / f"mug{n}.jpg")])
        expect(page.locator(".verdict")).to_be_visible()
        expect(page.locator(".asked button")).to_have_count(n + 1 if n else 0)
    page.goto(f"{shop.address}/#new")
    page.get_by_label("Is it a kind of a product?").select_option("plum")
    page.locator(".groups form input").fill("striped")
    page.get_by_role("button", name="Add as a kind of it").click()
    expect(page.locator("#notice [role=status]")).to_contain_text("plum, as striped")
    assert {kind.name for kind in shop.catalog.kinds("plum")} == {"plum", "striped"}
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#notice [role=status]")).to_contain_text("Undone: Added 3 items to plum")
    assert [kind.name for kind in shop.catalog.kinds("plum")] == ["plum"]
