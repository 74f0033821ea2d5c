"""The page where things go wrong, for the keyboard, for other eyes, and on small screens."""

import json
import re

import pytest
from playwright.sync_api import expect

CHOOSE = ".photo input[type=file]"
VIEWS = ("classify", "products", "new", "history", "drift")


def ask_about(page, *paths):
    page.locator(CHOOSE).last.set_input_files([str(path) for path in paths])


def alarm(page):
    return page.locator("#notice [role=alert]")


def problem(status, detail, **headers):
    body = {"type": "about:blank", "title": "", "status": status, "detail": detail, "request_id": "r1"}
    kind = {"content-type": "application/problem+json"}
    return {"status": status, "headers": kind | headers, "body": json.dumps(body)}


def test_the_token_leaves_the_address_and_goes_with_the_tab(visit, shop):
    page = visit.open(shop.entry)
    expect(page.get_by_role("button", name="Forget the token")).to_be_visible()
    assert "token" not in page.url
    page.reload()
    expect(page.get_by_role("button", name="Forget the token")).to_be_visible()
    assert page.evaluate("localStorage.length") == 0 and page.context.cookies() == []
    expect(visit.open("/").get_by_role("button", name="Enter token")).to_be_visible()


def test_a_change_without_the_token_asks_for_it_and_goes_on(visit, shop, photos):
    visit.refusals = {401}
    page = visit.open("/")
    ask_about(page, photos / "apple0.jpg")
    page.get_by_role("button", name="That is right").click()
    dialog = page.get_by_role("dialog", name="Token")
    field = dialog.get_by_label("Token", exact=True)
    expect(field).to_be_focused()
    field.fill("a wrong one")
    field.press("Enter")
    expect(dialog).to_contain_text("does not take this token")
    dialog.get_by_label("Token", exact=True).fill(shop.token)
    dialog.get_by_role("button", name="Use this token").click()
    expect(page.locator("#notice")).to_contain_text("it was apple")
    assert len(shop.journal.answered()) == 1


@pytest.mark.parametrize("settings", [{"public": True}], ids=["public"])
def test_at_a_public_address_the_token_opens_everything(visit, shop, photos, settings):
    visit.refusals = {401}
    page = visit.open("/#products")
    page.get_by_role("dialog", name="Token").get_by_label("Token", exact=True).fill(shop.token)
    page.keyboard.press("Enter")
    expect(page.locator(".products img[src^='blob:']")).to_have_count(9)
    visit.refusals = set()
    page = visit.open(shop.entry)
    ask_about(page, photos / "apple0.jpg")
    expect(page.locator(".verdict h2")).to_have_text("apple")
    expect(page.locator(".evidence img[src^='blob:']")).to_have_count(3)


def test_escape_gives_up_and_the_reason_stays(visit, shop, photos):
    visit.refusals = {401}
    page = visit.open("/")
    ask_about(page, photos / "apple0.jpg")
    page.get_by_role("button", name="Not in the catalog").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(alarm(page)).to_contain_text("token")
    assert shop.journal.answered() == ()


def test_what_is_no_photo_is_said_in_words(visit, shop, photos):
    visit.refusals = {422}
    page = visit.open(shop.entry)
    ask_about(page, photos / "broken.jpg")
    expect(page.locator(".answer")).to_contain_text("No answer")
    expect(page.locator(".answer .trouble")).to_contain_text(re.compile(r"[a-z]+ [a-z]+.*\."))
    expect(page.locator("#said")).not_to_be_empty()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (problem(429, "More than 50 requests a second.", **{"retry-after": "7"}), "Try again in 7 s."),
        (problem(503, "64 photos are being worked on.", **{"retry-after": "2"}), "Try again in 2 s."),
        ({"status": 413, "body": "no JSON"}, "10 MiB"),
        ({"status": 500, "body": ""}, "The server answered 500."),
        (problem(500, "A fault of the server."), "A fault of the server. (request r1)"),
    ],
    ids=["429", "503", "413", "500 bare", "500"],
)
def test_refusals_of_a_photo_are_said_in_words(visit, shop, photos, answer, said):
    visit.refusals = {answer["status"]}
    page = visit.open(shop.entry)
    page.route("**/v1/classify*", lambda route: route.fulfill(**answer))
    ask_about(page, photos / "apple0.jpg")
    expect(page.locator(".answer .trouble")).to_contain_text(said)
    page.unroute("**/v1/classify*")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".verdict h2")).to_have_text("apple")


def test_a_lost_network_is_said_and_overcome(visit, shop, photos):
    visit.refusals = {0}
    page = visit.open(shop.entry)
    expect(page.locator("#model")).to_contain_text("3 products")
    page.context.set_offline(True)
    page.get_by_role("link", name="Products", exact=True).click()
    expect(alarm(page)).to_contain_text("cannot be reached")
    page.context.set_offline(False)
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".products li")).to_have_count(3)


def test_reading_waits_for_a_busy_server(visit, shop):
    visit.refusals = {429}
    page = visit.open(shop.entry)
    left = [problem(429, "Too many.", **{"retry-after": "1"})] * 2

    def busy_twice(route):
        if left:
            route.fulfill(**left.pop())
        else:
            route.continue_()

    page.route("**/v1/products", busy_twice)
    page.get_by_role("link", name="Products", exact=True).click()
    expect(page.locator(".products li")).to_have_count(3)


def test_many_pictures_stay_within_the_rate_of_the_server(visit, shop):
    """40 pictures at once, and again: nothing is refused, nothing is fetched twice."""
    page = visit.open(shop.entry)
    fetched = []
    page.on("response", lambda response: fetched.append(response.url) if "thumbnail" in response.url else None)
    pear = shop.catalog.product("pear").id
    for _ in range(2):
        page.goto(f"{shop.address}/#products/{pear}")
        page.locator(".items li").last.scroll_into_view_if_needed()
        expect(page.locator(".items img[src^='blob:']")).to_have_count(40)
        page.goto(f"{shop.address}/#history")
        expect(page.get_by_role("heading", level=1, name="History")).to_be_visible()
    assert len(fetched) == len(set(fetched)) == 40


def test_everything_can_be_done_by_keyboard(visit, shop, photos):
    page = visit.open(shop.entry)
    page.on("filechooser", lambda chooser: chooser.set_files(str(photos / "mug0.jpg")))
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_be_focused()
    page.keyboard.press("Tab")
    chooser = page.locator(CHOOSE)
    expect(chooser).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(".verdict")).to_be_visible()
    button = page.get_by_role("button", name="Add as new product")
    for _ in range(4):
        page.keyboard.press("Tab")
        if button.evaluate("(node) => node === document.activeElement"):
            break
    expect(button).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_label("Name")).to_be_focused()
    page.keyboard.press("Escape")
    expect(button).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_label("Name")).to_be_focused()
    page.keyboard.type("striped mug")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Ask again")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(".verdict h2")).to_contain_text("striped mug")
    outline = page.evaluate("getComputedStyle(document.querySelector('nav a')).outlineStyle")
    page.locator("nav a").first.focus()
    page.keyboard.press("Tab")
    assert outline == "none"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_the_skip_link_stays_in_the_view(visit, shop):
    page = visit.open(shop.entry)
    page.goto(f"{shop.address}/#products")
    expect(page.locator(".products li")).to_have_count(3)
    page.get_by_role("link", name="Skip to the content").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_be_focused()
    expect(page.get_by_role("heading", level=1, name="Products")).to_be_visible()


def looked_at(visit, shop, photos, width, scheme):
    """A page that has something to show in every view."""
    page = visit.open(shop.entry, width=width, scheme=scheme)
    ask_about(page, *(photos / name for name in ("apple0.jpg", "mug0.jpg", "mug1.jpg", "mug2.jpg")))
    expect(page.locator(".asked .dot")).to_have_count(4)
    return page


def violations(page, axe):
    page.evaluate(axe)
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")["violations"]
    grave = [one for one in found if one["impact"] in {"serious", "critical"}]
    return [f"{one['id']}: {node['html']} {node['failureSummary']}" for one in grave for node in one["nodes"]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_axe_finds_nothing_grave_and_nothing_is_cut_off(visit, shop, photos, axe, width, scheme):
    page = looked_at(visit, shop, photos, width, scheme)
    pear = shop.catalog.product("pear").id
    places = [*(f"/#{view}" for view in VIEWS), f"/#products/{pear}", "/docs"]
    for place in places:
        page.goto(f"{shop.address}{place}")
        page.wait_for_selector("h1:visible")
        expect(page.locator("[aria-busy=true]")).to_have_count(0)
        assert violations(page, axe) == [], place
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), place
        assert page.get_by_role("main").count() == 1 and page.get_by_role("heading", level=1).count() == 1


def test_axe_finds_nothing_grave_in_dialogs_and_messages(visit, shop, photos, axe):
    page = looked_at(visit, shop, photos, 360, "light")
    for name in ("Correct this", "Add as new product"):
        page.get_by_role("button", name=name).click()
        expect(page.get_by_role("dialog")).to_be_visible()
        assert violations(page, axe) == [], name
        page.keyboard.press("Escape")
    page.get_by_role("button", name="Not in the catalog", exact=True).click()
    expect(page.locator("#notice p")).to_be_visible()
    assert violations(page, axe) == []


def test_pictures_do_not_move_the_page(visit, shop, photos):
    page = visit.open(shop.entry, width=360)
    page.evaluate(
        """() => {
            window.moved = 0;
            const add = (list) => list.getEntries().forEach((entry) => (window.moved += entry.value));
            new PerformanceObserver(add).observe({ type: "layout-shift", buffered: true });
        }"""
    )
    pear = shop.catalog.product("pear").id
    page.goto(f"{shop.address}/#products/{pear}")
    expect(page.locator(".items li")).to_have_count(40)
    before = page.evaluate("document.documentElement.scrollHeight")
    page.locator(".items li").last.scroll_into_view_if_needed()
    expect(page.locator(".items img[src^='blob:']").last).to_be_visible()
    assert page.evaluate("document.documentElement.scrollHeight") == before
    assert page.evaluate("window.moved") < 0.05  # half of what counts as good


def test_nothing_moves_by_itself(visit, shop, photos):
    page = visit.open(shop.entry, reduced_motion="reduce")
    ask_about(page, photos / "apple0.jpg")
    expect(page.locator(".verdict")).to_be_visible()
    assert page.evaluate("document.getAnimations().length") == 0


def test_names_are_text_and_never_markup(visit, shop):
    shop.catalog.rename(shop.catalog.product("pear").id, "<img src=x onerror=alert(1)>")
    page = visit.open(shop.entry)
    for view in ("products", "history"):
        page.goto(f"{shop.address}/#{view}")
        expect(page.locator("main")).to_contain_text("<img src=x onerror=alert(1)>")
    assert page.locator("img[src=x]").count() == 0


def test_the_longest_name_breaks_no_line(visit, shop, photos):
    pear = shop.catalog.product("pear").id
    shop.catalog.rename(pear, "W" * 128)
    page = visit.open(shop.entry, width=360)
    ask_about(page, photos / "pear1.jpg")
    expect(page.locator(".verdict")).to_be_visible()
    page.get_by_role("button", name="Correct this").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate(
        "(({ scrollWidth, clientWidth }) => scrollWidth <= clientWidth)(document.querySelector('dialog'))"
    )
    page.keyboard.press("Escape")
    for place in ("classify", "products", f"products/{pear}", "history", "drift"):
        page.goto(f"{shop.address}/#{place}")
        expect(page.locator("[aria-busy=true]")).to_have_count(0)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), place


def test_docs_show_every_route_with_a_command(visit, shop):
    page = visit.open("/docs")
    api = page.request.get(f"{shop.address}/openapi.json").json()
    wanted = {(method.upper(), path) for path, methods in api["paths"].items() for method in methods}
    expect(page.locator(".route").first).to_be_visible()
    shown = {tuple(text.split(" ", 1)) for text in page.locator(".route h2").all_inner_texts()}
    assert shown == wanted
    commands = page.locator(".route pre").all_inner_texts()
    assert len(commands) == len(wanted) and all(text.startswith("curl ") for text in commands)
    classify = next(text for text in commands if "/v1/classify" in text)
    assert "--data-binary @photo.jpg -H 'Content-Type: image/jpeg'" in classify
    assert "Authorization: Bearer" in next(text for text in commands if "-X DELETE" in text)
