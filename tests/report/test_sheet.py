"""Contact sheets: whole, escaped, and with nothing from outside."""

import io
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from mixtura.records.contact_sheet import ContactSheet, Picture, PictureRow, SheetGroup
from mixtura.report import sheet as sheets
from mixtura.report.sheet import sheet_page, write_sheet

VOID = {"meta", "link", "img"}


def jpeg():
    target = io.BytesIO()
    Image.new("RGB", (20, 12), (200, 30, 30)).save(target, "JPEG")
    return target.getvalue()


def sheet_of(groups=2, name="Cluster", caption="a.jpg"):
    strips = (
        PictureRow("Typical", (Picture("1", caption), Picture("gone", caption, "0.98"))),
        PictureRow("Borderline", ()),
    )
    shown = tuple(SheetGroup(f"{name} {n}", "9 items", strips) for n in range(groups))
    return ContactSheet("A <shop>", "What is to be seen.", shown, (("Method", "kmeans"),))


def pictures(id):
    return jpeg() if id == "1" else None


class Balance(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.references, self.ids = [], [], []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.references += [values[name] for name in ("href", "src") if name in values]
        self.ids += [values["id"]] if "id" in values else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_balanced_and_needs_nothing_from_outside():
    text = sheet_page(sheet_of(), pictures)
    reader = Balance()
    reader.feed(text)
    assert reader.open == [] and len(set(reader.ids)) == len(reader.ids)
    assert all(reference.startswith(("#", "data:")) for reference in reader.references)
    assert "default-src 'none'" in text and "<script" not in text and "url(" not in text
    assert text.count("data:image/jpeg;base64,") == 2 and text.count('aria-label="no photo"') == 2
    assert "Borderline" not in text and "0.98" in text


def test_names_of_files_are_no_markup():
    hostile = '"><script>alert(1)</script>'
    text = sheet_page(sheet_of(name=hostile, caption=hostile), lambda id: b"<svg onload=x>")
    assert "<script>" not in text and "<svg" not in text and not re.search(r"<[^>]* on[a-z]+=", text)


def test_what_is_left_out_is_counted(monkeypatch):
    monkeypatch.setattr(sheets, "MAX_PICTURES", 3)
    text = sheet_page(sheet_of(groups=5), pictures)
    assert "2 more groups are not shown" in text and "Cluster 2" in text and "Cluster 3" not in text


@pytest.mark.parametrize("groups", [0, 1])
def test_a_sheet_without_groups_is_still_a_page(tmp_path, groups):
    path = write_sheet(sheet_of(groups), tmp_path / "deep" / "sheet.html", pictures)
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
