"""renpy#2327, PFERD#141, obsidian-bridge.nvim#43, unmade/shelf-back#50 (NFD names of a Mac); Persian and emoji names (zero-width joiners)."""

import base64
import json
import unicodedata

from common import TMP, Server, check, classes_of, cli, end, folder, jpeg, shop

nfc, nfd = "caf\u00e9", "cafe\u0301"
f = folder(TMP / "f", ("x", "pear"))
(f / "x").rename(f / nfc)
(f / nfd).mkdir()
(f / nfd / "z.jpg").write_bytes(jpeg(0, 50))
code, out, err = cli("fit", f, "-o", TMP / "o", "--encoder", "pixels", "-q")
check("folders: one class", classes_of(TMP / "o") == [nfc, "pear"], classes_of(TMP / "o"))
code, out, err = cli("fit", f, "-o", TMP / "o2", "--encoder", "pixels", "-q", "--unknown", nfd)
check("--unknown in NFD finds the class", "No item has the label" not in err, err.strip()[:110])
model, _ = shop()
for i in (1, 2):
    (TMP / f"k{i}.jpg").write_bytes(jpeg(4, i))
cli("enroll", model, nfc, TMP / "k1.jpg")
cli("enroll", model, nfd, TMP / "k2.jpg")
code, out, err = cli("products", model, "--json")
names = [p["name"] for p in json.loads(out)]
check(
    "enroll NFC then NFD: one product of two photos",
    sum(unicodedata.normalize("NFC", n) == nfc for n in names) == 1,
    [n for n in names if n not in ("apple", "pear", "plum", "lemon")],
)
m2, _ = shop("shop2")
cli("enroll", m2, nfc, TMP / "k1.jpg")
m3, _ = shop("shop3")
cli("enroll", m3, nfc, TMP / "k1.jpg")
code, out, err = cli("remove", m3, "--product", nfd)
check("remove --product finds the name in NFD", code == 0, err.strip()[:100])
code, out, err = cli("rename", m2, "apple", nfd)
check("rename to a name that is there in another form is refused", code != 0, out.splitlines()[:1])
zwnj = "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"
(TMP / "k3.jpg").write_bytes(jpeg(4, 3))
code, out, err = cli("enroll", model, zwnj, TMP / "k3.jpg")
check("a Persian name with U+200C: enrolled and shown as it is", code == 0 and "u200c" not in out, out.splitlines()[:1])
with Server(model) as s:
    r = s.req(
        "POST",
        "/v1/products",
        json.dumps({"name": "\U0001f469\u200d\U0001f373", "images": [base64.b64encode(jpeg(4, 9)).decode()]}),
        {"Content-Type": "application/json"},
        token=True,
    )
    check("an emoji name with U+200D by the service", r[0] == 201)
    n = len(json.loads(s.req("GET", "/v1/products")[2])["products"])
    s.req(
        "POST",
        "/v1/products",
        json.dumps({"name": nfd, "images": [base64.b64encode(jpeg(4, 10)).decode()]}),
        {"Content-Type": "application/json"},
        token=True,
    )
    s.req(
        "POST",
        "/v1/products",
        json.dumps({"name": nfc, "images": [base64.b64encode(jpeg(4, 11)).decode()]}),
        {"Content-Type": "application/json"},
        token=True,
    )
    got = [
        p["name"]
        for p in json.loads(s.req("GET", "/v1/products")[2])["products"]
        if unicodedata.normalize("NFC", p["name"]) == nfc
    ]
    check("the service: one product", len(got) == 1, got)
end()
