"""A person at the page: photos in, verdicts out, and the catalog taught and put right again."""

import re

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

CHOOSE = ".photo input[type=file]"


def ask_about(page, *paths):
    page.locator(CHOOSE).last.set_input_files([str(path) for path in paths])
    expect(page.locator(".verdict")).to_be_visible()


def press(page, name, within="body"):
    page.locator(within).get_by_role("button", name=name, exact=True).click()


def notice(page):
    return page.locator("#notice [role=status]")


def say_name(page, name):
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name").fill(name)
    return dialog


def test_a_photo_of_a_product_is_a_match_with_its_evidence(visit, shop, photos):
    page = visit.open(shop.entry)
    ask_about(page, photos / "apple0.jpg")
    expect(page.locator(".verdict")).to_have_text(re.compile("Match.*apple"))
    expect(page.locator("#said")).to_contain_text("match: apple.")
    bars = page.locator(".bars li")
    expect(bars).to_have_count(3)
    expect(bars.first).to_contain_text("apple")
    meter = page.get_by_role("meter", name="Typicality")
    limit = shop.catalog.model.decision.false_reject_rate
    assert float(meter.get_attribute("aria-valuenow")) >= limit
    expect(meter).to_have_attribute("aria-valuetext", re.compile(rf"the limit is {100 * limit:.0f}%"))
    near = page.locator(".evidence .thumbs li")
    expect(near).to_have_count(3)
    near.first.scroll_into_view_if_needed()
    expect(near.locator("img[src^='blob:']")).to_have_count(3)
    assert page.evaluate("[...document.querySelectorAll('.thumbs img')].every((image) => image.naturalWidth > 20)")


def test_the_sentence_and_the_numbers_are_those_of_the_command_line(visit, shop, photos, learned):
    import mixtura

    page = visit.open(shop.entry)
    for name in ("apple1.jpg", "mug1.jpg"):
        ask_about(page, photos / name)
        (answer,) = mixtura.predict(learned, [photos / name])
        expect(page.locator(".sentence")).to_have_text(answer.sentence)
        shown = float(page.get_by_role("meter").get_attribute("aria-valuenow"))
        assert shown == pytest.approx(answer.typicality, abs=1e-6)


def test_an_unknown_photo_becomes_a_product_is_recognized_and_undone(visit, shop, photos):
    page = visit.open(shop.entry)
    ask_about(page, photos / "mug0.jpg")
    expect(page.locator(".verdict")).to_have_text(re.compile("Unknown.*Not in the catalog"))
    press(page, "Add as new product")
    dialog = say_name(page, "striped mug")
    dialog.get_by_label("More photos").set_input_files([str(photos / f"mug{n}.jpg") for n in (1, 2)])
    dialog.get_by_role("button", name="Add it").click()
    expect(notice(page)).to_contain_text(re.compile("earlier products.*%"))
    expect(page.get_by_role("button", name="Ask again")).to_be_focused()
    added = shop.catalog.product("striped mug")
    assert (added.items, added.status) == (3, "provisional")
    assert shop.journal.unknowns() == ()  # the photo is no riddle any more

    press(page, "Ask again")
    expect(page.locator(".verdict h2")).to_have_text("striped mug")
    ask_about(page, photos / "mug3.jpg")
    expect(page.locator(".verdict h2")).to_contain_text("striped mug")

    press(page, "Undo", "#notice")
    expect(page.get_by_role("button", name="Ask again")).to_be_visible()
    assert "striped mug" not in shop.names()
    press(page, "Ask again")
    expect(page.locator(".verdict h2")).to_have_text("Not in the catalog")


def test_what_the_person_says_reaches_the_journal(visit, shop, photos):
    page = visit.open(shop.entry)
    ask_about(page, photos / "apple0.jpg")
    press(page, "That is right")
    expect(notice(page)).to_contain_text("it was apple")
    press(page, "Correct this")
    page.get_by_role("dialog").get_by_label("The right product").select_option(label="plum")
    press(page, "That is it")
    expect(notice(page)).to_contain_text("it was plum")
    plum = shop.catalog.product("plum")
    assert [noted.product for noted in shop.journal.answered()] == [plum.id]

    ask_about(page, photos / "mug0.jpg")
    press(page, "Not in the catalog")
    expect(notice(page)).to_contain_text("not in the catalog")
    assert [noted.told for noted in shop.journal.unknowns()] == [True]

    press(page, "Correct this")
    page.get_by_role("dialog").get_by_label("The right product").select_option(label="plum")
    page.get_by_role("dialog").get_by_label("Add this photo").check()
    press(page, "That is it")
    expect(notice(page).get_by_role("button", name="Undo")).to_be_visible()
    assert shop.catalog.product("plum").items == plum.items + 1


def test_photos_can_be_dropped_and_pasted(visit, shop, photos):
    page = visit.open(shop.entry)
    data = [list((photos / name).read_bytes()) for name in ("plum1.jpg", "pear0.jpg")]
    made = """([event, kind, bytes]) => {
        const carried = new DataTransfer();
        carried.items.add(new File([new Uint8Array(bytes)], "photo.jpg", { type: "image/jpeg" }));
        const options = { bubbles: true, cancelable: true, [kind]: carried };
        const happened = event === "drop" ? new DragEvent(event, options) : new ClipboardEvent(event, options);
        document.body.dispatchEvent(happened);
    }"""
    page.evaluate(made, ["drop", "dataTransfer", data[0]])
    expect(page.locator(".verdict h2")).to_have_text("plum")
    page.evaluate(made, ["paste", "clipboardData", data[1]])
    expect(page.locator(".verdict h2")).to_have_text("pear")
    row = page.get_by_role("list", name="Photos asked about").get_by_role("button")
    expect(row).to_have_count(2)
    row.last.click()
    expect(page.locator(".verdict h2")).to_have_text("plum")
    expect(row.last).to_be_focused()


def test_a_bad_photo_is_told_from_a_strange_one(visit, shop, tmp_path):
    Image.fromarray(np.full((96, 96, 3), 3, np.uint8)).save(tmp_path / "dark.png")
    page = visit.open(shop.entry)
    ask_about(page, tmp_path / "dark.png")
    expect(page.locator(".verdict")).to_have_text(re.compile("Unknown.*Take another photo"))
    expect(page.locator(".why")).to_contain_text("What helps:")


def test_a_phone_offers_its_camera(visit, shop):
    page = visit.open(shop.entry, width=360, is_mobile=True, has_touch=True)
    camera = page.get_by_label("Take a photo")
    expect(camera).to_have_attribute("capture", "environment")
    expect(page.get_by_label("Choose a photo")).to_have_count(1)
    expect(visit.open(shop.entry).get_by_label("Take a photo")).to_have_count(0)


def test_a_photo_beyond_the_limit_is_made_smaller_here(visit, shop, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (2200, 2200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "large.png")
    assert (tmp_path / "large.png").stat().st_size > 10 * 2**20
    page = visit.open(shop.entry)
    ask_about(page, tmp_path / "large.png")


def test_products_are_found_renamed_confirmed_merged_and_split(visit, shop):
    page = visit.open(shop.entry)
    page.get_by_role("link", name="Products", exact=True).click()
    expect(page.get_by_role("heading", level=1, name="Products")).to_be_focused()
    cards = page.locator(".products li")
    expect(cards).to_have_count(3)
    expect(cards.first.locator("img[src^='blob:']")).to_have_count(3)
    page.get_by_label("Search").fill("pl")
    expect(cards.filter(visible=True)).to_have_count(2)  # apple and plum
    page.get_by_role("link", name="plum").click()

    page.get_by_label("New name").fill("prune")
    press(page, "Rename")
    expect(page.get_by_role("heading", name="prune")).to_be_visible()
    assert "prune" in shop.names()

    boxes = page.get_by_role("checkbox")
    boxes.nth(0).check()
    boxes.nth(1).check()
    expect(page.get_by_text("2 photos chosen")).to_be_visible()
    page.get_by_label("Name of the new product").fill("damson")
    press(page, "Split off")
    expect(notice(page)).to_contain_text("damson")
    assert shop.catalog.product("damson").items == 2

    page.get_by_role("link", name="All products").click()
    page.get_by_label("Search").fill("")
    page.get_by_role("link", name="damson").click()
    if shop.catalog.product("damson").status == "provisional":
        press(page, "Confirm")
        expect(page.get_by_role("button", name="Confirm", exact=True)).to_have_count(0)
        assert shop.catalog.product("damson").status == "confirmed"
    page.get_by_label("Put all photos").select_option(label="prune")
    press(page, "Merge")
    expect(page.get_by_role("heading", name="prune")).to_be_visible()
    assert sorted(shop.names()) == ["apple", "pear", "prune"]


def test_what_was_removed_comes_back(visit, shop):
    page = visit.open(f"{shop.entry}")
    pear = shop.catalog.product("pear")
    page.get_by_role("link", name="Products", exact=True).click()
    page.get_by_role("link", name="pear").click()
    press(page, "Remove pear, photo 1")
    expect(page.locator(".items li")).to_have_count(39)
    assert len(shop.catalog.items(pear.id)) == 39
    press(page, "Undo", "#notice")
    expect(page.locator(".items li")).to_have_count(40)

    press(page, "Remove this product")
    expect(page.locator(".products li")).to_have_count(2)
    press(page, "Undo", "#notice")
    expect(page.locator(".products li")).to_have_count(3)
    assert shop.catalog.product("pear").items == pear.items


def test_history_tells_all_and_takes_back(visit, shop):
    shop.catalog.rename(shop.catalog.product("pear").id, "nashi")
    page = visit.open(shop.entry)
    page.get_by_role("link", name="History").click()
    rows = page.locator(".history tbody tr")
    expect(rows).to_have_count(1)
    expect(rows.first).to_contain_text("nashi")
    press(page, "Undo the last edit")
    expect(rows).to_have_count(2)
    expect(rows.last).to_contain_text("undone")
    expect(page.get_by_text("Everything is undone.")).to_be_visible()
    assert "pear" in shop.names()


def test_days_are_drawn(visit, shop, photos):
    page = visit.open(shop.entry)
    page.get_by_role("link", name="Drift").click()
    expect(page.get_by_text("No photo has been asked about yet")).to_be_visible()
    page.get_by_role("link", name="Classify").click()
    ask_about(page, *(photos / f"{kind}{n}.jpg" for kind in ("apple", "mug") for n in range(3)))
    expect(page.locator(".asked .dot")).to_have_count(6)
    page.get_by_role("link", name="Drift").click()
    chart = page.get_by_role("img", name=re.compile("Unknown and unsure by day"))
    expect(chart.locator("rect.unknown")).to_have_count(1)
    page.get_by_text("The same in numbers").click()
    expect(page.get_by_role("table").first).to_contain_text("6")


def test_a_group_of_unknown_photos_becomes_a_product(visit, shop, photos):
    page = visit.open(shop.entry)
    ask_about(page, *(photos / f"mug{n}.jpg" for n in range(4)))
    expect(page.locator(".asked .dot")).to_have_count(4)
    page.get_by_role("link", name="New products").click()
    group = page.locator(".groups > li").first
    expect(group.locator("img").first).to_be_visible()  # of this tab: the server keeps none
    size = int(re.search(r"(\d+) photo", group.get_by_role("heading").inner_text())[1])
    assert size >= 2
    group.get_by_label("Name").fill("striped mug")
    group.get_by_role("button", name="Add as new product").click()
    expect(notice(page)).to_contain_text("striped mug")
    assert shop.catalog.product("striped mug").items == size


@pytest.mark.parametrize("settings", [{"keep_photos": True}, {"keep_photos": False}], ids=["kept", "not kept"])
def test_the_page_says_whether_photos_are_kept(visit, shop, photos, settings):
    page = visit.open(shop.entry)
    said = "kept beside the catalog" if settings["keep_photos"] else "The photo is not kept"
    expect(page.locator("#kept")).to_contain_text(said)
    ask_about(page, *(photos / f"mug{n}.jpg" for n in range(3)))
    expect(page.locator(".asked .dot")).to_have_count(3)
    other = visit.open(shop.entry)
    other.get_by_role("link", name="New products").click()
    group = other.locator(".groups > li").first
    expect(group).to_be_visible()
    if settings["keep_photos"]:
        expect(group.locator("img[src^='blob:']").first).to_be_visible()
    else:
        expect(group).to_contain_text("were not kept")
