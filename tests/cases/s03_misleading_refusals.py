"""fastapi/fastapi#13019 (trailing slash), gradio#3472 #8073 #9529 (proxy and prefix), counting of photos in messages."""

import base64
import json

from common import Server, check, end, jpeg, shop

model, _ = shop()
jpg = jpeg(0, 77)
H = {"Content-Type": "image/jpeg"}
with Server(model, "--host-name", "shop.example.org") as s:
    for p in ("/v1/classify/", "/v1/search/", "/v1/nothing"):
        r = s.req("POST", p, jpg, H)
        check(
            f"POST {p}: 404 (or redirected), not 'needs the token'",
            r[0] in (200, 307, 308, 404),
            f"{r[0]} {json.loads(r[2]).get('detail', '')[:70]}",
        )
    r = s.req("POST", "/v1/classify", b"no picture", H)
    one = json.loads(r[2])["detail"]
    r = s.req(
        "POST",
        "/v1/products",
        json.dumps({"name": "k", "images": [base64.b64encode(b"no picture").decode()]}),
        {"Content-Type": "application/json"},
        token=True,
    )
    two = json.loads(r[2])["detail"]
    check(
        "the first photo has one number in all messages",
        ("photo 0" in one) == ("photo 0" in two) and ("photo 1" in one) == ("photo 1" in two),
        f"{one[:30]!r} / {two[:50]!r}",
    )
    check("a message names the photo once", two.count("photo 1") <= 1, two[:60])
    r = s.req("POST", "/v1/classify", jpg, {**H, "Origin": "https://shop.example.org", "Sec-Fetch-Site": "same-origin"})
    check(
        "nginx as it comes (Host of the upstream, Origin of the named host): answered, or the Host header is named",
        r[0] == 200 or "Host" in json.loads(r[2])["detail"],
        f"{r[0]} {json.loads(r[2]).get('detail', '')}",
    )
    r = s.req("GET", "/")
    page = r[2].decode()
    check(
        "page under a prefix: no address from the root (or an option for it)",
        'href="/static' not in page and 'src="/static' not in page,
        "href=/static/..., fetch('/v1/...'); no --root-path",
    )
end()
