"""Acly/comfyui-tooling-nodes#39, matatonic/openedai-vision#4, awslabs/multi-model-server#425 (base64), serengil/deepface#1382, fastapi#3306 (multipart), koxudaxi#345 (octet-stream)."""

import base64
import json

from common import Server, check, end, jpeg, shop

model, _ = shop()
jpg = jpeg(0, 77)
b = base64.b64encode(jpg).decode()
J = {"Content-Type": "application/json"}
with Server(model) as s:

    def js(x):
        return s.req("POST", "/v1/classify", json.dumps({"images": [x]}), J)

    check("plain base64", js(b)[0] == 200)
    for n, x, hint in (
        ("data URL of a canvas", "data:image/jpeg;base64," + b, "data:"),
        ("76 columns (base64 FILE, encodebytes)", base64.encodebytes(jpg).decode(), "line break"),
        ("no padding", b.rstrip("="), "padding"),
        ("URL alphabet", base64.urlsafe_b64encode(jpg).decode(), "alphabet"),
    ):
        r = js(x)
        check(
            f"{n}: read, or named",
            r[0] == 200 or hint in json.loads(r[2])["detail"],
            f"{r[0]} {json.loads(r[2]).get('detail', '')}",
        )
    for ct in ("image/jpeg", "image/jpg", "image/pjpeg", "IMAGE/JPEG"):
        check(ct, s.req("POST", "/v1/classify", jpg, {"Content-Type": ct})[0] == 200)
    for ct in ("application/octet-stream", None):
        r = s.req("POST", "/v1/classify", jpg, {"Content-Type": ct} if ct else {})
        check(
            f"Content-Type {ct}: read (its first bytes say JPEG)",
            r[0] == 200,
            f"{r[0]} {json.loads(r[2]).get('detail', '')}",
        )
    body = (
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
        + jpg
        + b"\r\n--x--\r\n"
    )
    r = s.req("POST", "/v1/classify", body, {"Content-Type": "multipart/form-data; boundary=x"})
    check(
        "multipart/form-data (curl -F, HTML form, requests files=): read, or named",
        r[0] == 200 or "multipart" in json.loads(r[2])["detail"],
        f"{r[0]} {json.loads(r[2]).get('detail', '')}",
    )
end()
