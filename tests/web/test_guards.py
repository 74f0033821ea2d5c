"""Every limit, exceeded by one, and everybody who must stay out; over real connections."""

import json
import socket
import threading
import time

import httpx
import pytest
from uvicorn.protocols.http.h11_impl import H11Protocol

from mixtura.web import guards, server
from mixtura.web.connection import Connection
from mixtura.web.problems import Refusal
from mixtura.web.rate_limit import MAX_CLIENTS, RateLimit
from mixtura.web.settings import MAX_IMAGES, Settings

JSON = {"Content-Type": "application/json"}


def problem(answer, status, *words):
    """A refusal in the form of RFC 9457, with all headers that every answer has."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert set(body) == {"type", "title", "status", "detail", "instance", "request_id"}
    assert body["status"] == status and body["request_id"] == answer.headers["x-request-id"]
    for word in words:
        assert word in body["detail"], body
    assert guards.SECURITY_HEADERS.items() <= dict(answer.headers).items()
    assert "traceback" not in answer.text.lower() and ".py" not in answer.text
    return True


@pytest.fixture(scope="module")
def clock():
    """A clock that stands until it is moved."""

    class Clock:
        now = 1000.0

        def __call__(self):
            return self.now

    return Clock()


# Limits


def test_a_body_of_the_limit_passes_and_one_byte_more_does_not(serve):
    running = serve(body_bytes=5000, edit_bytes=100)
    post = running.client.post
    assert post("/v1/classify", content=b"x" * 5000, headers={"Content-Type": "image/png"}).status_code == 422
    assert problem(post("/v1/classify", content=b"x" * 5001, headers={"Content-Type": "image/png"}), 413, "limit")
    assert post("/v1/feedback", content=b"x" * 100, headers=JSON).status_code == 422
    assert problem(post("/v1/feedback", content=b"x" * 101, headers=JSON), 413)


def test_a_body_without_a_length_is_counted(serve):
    running = serve(body_bytes=5000)

    def send(count):
        pieces = (b"x" * 10 for _ in range(count))
        return running.client.post("/v1/classify", content=pieces, headers={"Content-Type": "image/png"})

    assert send(500).status_code == 422
    assert problem(send(501), 413)


def test_the_default_limit_is_ten_mebibytes(serve):
    running, size = serve(), 10 * 2**20
    send = lambda size: running.client.post(  # noqa: E731
        "/v1/classify", content=b"\xff\xd8\xff" + bytes(size - 3), headers={"Content-Type": "image/jpeg"}
    )
    assert send(size).status_code == 422
    assert problem(send(size + 1), 413, "10 MiB")


def test_all_bodies_together_are_bounded(serve):
    running = serve(held_bytes=3000)
    assert running.client.post("/v1/search", content=b"x" * 3000, headers={"Content-Type": "image/png"}).is_client_error
    answer = running.client.post("/v1/search", content=b"x" * 3001, headers={"Content-Type": "image/png"})
    assert problem(answer, 503) and int(answer.headers["retry-after"]) > 0
    answer = running.client.post("/v1/search", content=b"x" * 3000, headers={"Content-Type": "image/png"})
    assert answer.status_code == 422  # what was refused is not held any more


def test_32_images_pass_and_33_do_not(serve, photo):
    running, one = serve(), photo()
    assert len(running.classify(*[one] * MAX_IMAGES).json()["decisions"]) == MAX_IMAGES
    assert problem(running.classify(*[one] * (MAX_IMAGES + 1)), 422, "images")
    assert problem(running.classify(), 422, "images")


def test_the_head_is_bounded(serve):
    running = serve()
    own = sum(len(k) + len(v) for k, v in running.client.build_request("GET", "/v1/model").headers.raw)
    room = 16 * 2**10 - own - len("/v1/model") - len("x-more")
    assert running.client.get("/v1/model", headers={"X-More": "x" * room}).status_code == 200
    assert problem(running.client.get("/v1/model", headers={"X-More": "x" * (room + 1)}), 431)
    assert problem(running.client.get("/v1/model?" + "x" * 16 * 2**10), 431)


def test_a_head_that_never_ends_is_cut_off(serve):
    assert " 400 " in serve().raw(b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 100_000).partition("\r\n")[0]


def test_requests_in_work_are_bounded(serve, photo):
    """The gate in the encoder holds the first ones back for as long as the test wants."""
    gate = Gate(serve().service.encoder)
    running = serve(encoder=gate, max_in_flight=3, max_wait=20.0)
    threads = [threading.Thread(target=running.classify, args=(photo(),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert gate.begun.wait(20)
    while running.service.photos.admission.taken < 3:
        time.sleep(0.01)
    answer = running.client.get("/v1/products")
    assert problem(answer, 503, "3 requests") and answer.headers["retry-after"] == "1"
    for path in ["/", "/docs", "/static/page.css", "/healthz"]:
        assert running.client.get(path).status_code == 200, path
    gate.open.set()
    for thread in threads:
        thread.join(20)
    assert running.client.get("/v1/products").status_code == 200


def test_photos_that_find_no_place_in_time_are_503(serve, photo):
    gate = Gate(serve().service.encoder)
    running = serve(encoder=gate, photo_slots=1, max_wait=0.05)
    thread = threading.Thread(target=running.classify, args=(photo(), photo()))
    thread.start()
    assert gate.begun.wait(20)
    answer = running.classify(photo())
    assert problem(answer, 503, "photos are waiting") and answer.headers["retry-after"] == "1"
    gate.open.set()
    thread.join(20)
    assert running.classify(photo()).status_code == 200


def test_an_answer_that_takes_too_long_is_given_up(serve, photo):
    gate = Gate(serve().service.encoder)
    running = serve(encoder=gate, request_seconds=0.2)
    answer = running.classify(photo())
    assert problem(answer, 503, "0.2 s") and "retry-after" in answer.headers
    gate.open.set()
    assert running.client.get("/readyz").status_code == 200


class Gate:
    """An encoder that computes only when it is let through."""

    def __init__(self, encoder):
        self._encoder = encoder
        self.open, self.begun = threading.Event(), threading.Event()
        for name in ("name", "dimension", "identity", "fingerprint", "versions", "draft", "prepare"):
            setattr(self, name, getattr(encoder, name))

    def encode(self, batch):
        self.begun.set()
        assert self.open.wait(30)
        return self._encoder.encode(batch)


@pytest.mark.parametrize(("path", "burst"), [("/v1/products", 100), ("/v1/undo", 20)])
def test_what_comes_after_the_burst_is_429(serve, path, burst):
    """At rates so slow that nothing comes back while the test runs."""
    running = serve(public=True, read_rate=1e-6, read_burst=100, write_rate=1e-6, write_burst=20)
    ask = running.client.get if path == "/v1/products" else running.client.post
    assert {ask(path).status_code for _ in range(burst)} <= {200, 409}
    answer = ask(path)
    assert problem(answer, 429, "Too many") and int(answer.headers["retry-after"]) >= 1
    assert running.client.get("/healthz").status_code == 200


def test_on_this_machine_no_rate_is_limited(serve):
    running = serve(read_rate=1e-6, read_burst=1, write_rate=1e-6, write_burst=1)
    assert {running.client.get("/v1/products").status_code for _ in range(5)} == {200}
    assert {running.client.post("/v1/undo").status_code for _ in range(5)} == {409}


def test_the_limits_are_those_of_the_documentation():
    made = Settings("x")
    assert (made.read_rate, made.read_burst, made.write_rate, made.write_burst) == (50.0, 100, 10.0, 20)
    assert (made.body_bytes, made.max_in_flight, made.request_seconds, MAX_IMAGES) == (10 * 2**20, 64, 30.0, 32)
    assert (made.header_bytes, made.max_wait, made.min_body_rate) == (16 * 2**10, 1.0, 1024.0)


def test_a_bucket_fills_at_its_rate(clock):
    rate = RateLimit(10.0, 3, clock)
    for _ in range(3):
        rate.take("a")
    with pytest.raises(Refusal) as refused:
        rate.take("a")
    assert refused.value.status == 429
    rate.take("b")  # another client has its own
    clock.now += 0.099
    with pytest.raises(Refusal):
        rate.take("a")
    clock.now += 0.002
    rate.take("a")
    clock.now += 100
    for _ in range(3):
        rate.take("a")
    with pytest.raises(Refusal):
        rate.take("a")


def test_clients_without_number_take_no_memory_without_bound(clock):
    rate = RateLimit(1.0, 1, clock)
    for number in range(MAX_CLIENTS + 50):
        rate.take(str(number))
    assert len(rate._full_at) == MAX_CLIENTS


def test_requests_that_fail_leave_their_slot(serve):
    running = serve(max_in_flight=1)
    for _ in range(3):
        assert running.client.get("/nothing").status_code == 404
        assert running.client.post("/v1/undo").status_code == 409
    assert running.client.get("/v1/products").status_code == 200


def test_json_of_very_many_values_is_not_read(serve):
    post = serve().client.post
    body = b'{"images": [' + b"[]," * (20_000 // 2) + b"[]]}"
    assert problem(post("/v1/classify", content=body, headers=JSON), 422, "20000 values")
    assert problem(
        post("/v1/classify", content=body[: len(b'{"images": [') + 3000] + b"0]}", headers=JSON), 422, "images"
    )


# Time


def test_a_slow_body_is_given_up(serve):
    running = serve(body_grace=0.2, min_body_rate=1e6)
    head = b"POST /v1/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    answer = running.raw(head + b"Content-Length: 50\r\n\r\n{")
    assert " 408 " in answer.partition("\r\n")[0]


def test_silent_and_slow_heads_are_cut_off(serve, monkeypatch):
    monkeypatch.setattr(Connection, "head_seconds", 0.2)
    running = serve()
    with running.open() as silent, running.open() as slow:
        slow.sendall(b"GET / HTTP/1.1\r\n")
        assert gone(silent) and gone(slow)


def test_a_client_that_reads_no_answer_is_cut_off(serve, monkeypatch):
    """Its answers fill all buffers, so that closing in an orderly way would wait for it without end."""
    lost, ports = threading.Event(), []

    def connection_lost(self, error):
        if self.client[1] in ports:
            lost.set()
        H11Protocol.connection_lost(self, error)

    monkeypatch.setattr(Connection, "connection_lost", connection_lost)
    monkeypatch.setattr(Connection, "head_seconds", 0.2)
    monkeypatch.setattr(Connection, "request_seconds", 0.5)
    running = serve()
    with socket.socket() as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        made.connect(("127.0.0.1", running.port))
        ports.append(made.getsockname()[1])
        made.sendall(b"GET /static/page.css HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 1000)
        assert lost.wait(20)


def test_a_rest_of_a_body_that_nobody_wants_does_not_keep_the_connection(serve, monkeypatch):
    monkeypatch.setattr(Connection, "head_seconds", 0.2)
    monkeypatch.setattr(server, "KEEP_ALIVE_SECONDS", 1)
    running = serve()
    with running.open() as made:
        made.sendall(b"POST /v1/undo HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 900000000\r\n\r\nxxx")
        assert " 401 " in running.answer(made)
        assert gone(made)


def gone(made):
    """Whether the server has closed the connection."""
    try:
        return made.recv(65536) == b""
    except ConnectionResetError:
        return True


def test_500_idle_sockets_keep_nobody_out(serve, monkeypatch, photo):
    monkeypatch.setattr(Connection, "max_connections", 100)
    running = serve()
    idle = [running.open() for _ in range(500)]
    try:
        for made in idle[::2]:
            made.sendall(b"POST /v1/classify HTTP/1.1\r\nHost: 127.0.0.1\r\n")
        for _ in range(5):
            with httpx.Client(base_url=running.address, trust_env=False) as client:
                answer = client.post("/v1/classify", content=photo(), headers={"Content-Type": "image/png"})
                assert answer.status_code == 200
    finally:
        for made in idle:
            made.close()


# Who may


OPEN = ["/", "/docs", "/static/page.css", "/healthz", "/readyz"]
READ = ["/v1/products", "/v1/model", "/v1/history", "/v1/drift", "/v1/unknowns", "/metrics", "/openapi.json"]
WRITE = [
    ("POST", "/v1/products", {"name": "x", "images": ["AAAA"]}),
    ("PATCH", "/v1/products/apple", {"name": "x"}),
    ("DELETE", "/v1/products/apple", None),
    ("DELETE", "/v1/items/1", None),
    ("POST", "/v1/undo", None),
    ("POST", "/v1/feedback", {"decision": "x", "product": None}),
]
WRONG = [
    "",
    "Bearer",
    "Bearer ",
    "Bearer x",
    "Basic {token}",
    "{token}",
    "Bearer {token}x",
    "Bearer {short}",
    "bearer\x00 {token}",
]


def anonymous(running, **options):
    return httpx.Client(base_url=running.address, trust_env=False, **options)


def test_on_this_machine_all_may_read_and_only_the_token_writes(serve):
    running = serve()
    with anonymous(running) as client:
        for path in [*OPEN, *READ]:
            assert client.get(path).status_code == 200, path
        before = client.get("/v1/products").json()
        for method, path, body in WRITE:
            answer = client.request(method, path, json=body)
            assert problem(answer, 401, "token") and answer.headers["www-authenticate"].startswith("Bearer")
        assert client.get("/v1/products").json() == before


def test_elsewhere_only_the_page_and_the_health_are_open(serve, photo):
    running = serve(public=True)
    with anonymous(running) as client:
        for path in OPEN:
            assert client.get(path).status_code == 200, path
        assert client.get("/healthz").json() == {"status": "ok"}
        for path in [*READ, "/v1/items/1/thumbnail"]:
            assert problem(client.get(path), 401, "token"), path
            assert client.head(path).status_code == 401, path
        for path in ("/v1/classify", "/v1/search"):
            assert problem(client.post(path, content=photo(), headers={"Content-Type": "image/png"}), 401)
    for path in READ:
        assert running.client.get(path).status_code == 200, path


@pytest.mark.parametrize("value", WRONG)
def test_no_other_token_will_do(serve, value):
    running = serve()
    token = running.client.headers["authorization"][7:]
    said = value.format(token=token, short=token[:-1])
    head = f"POST /v1/undo HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {said}\r\n\r\n"
    assert running.raw(head.encode()).split(" ")[1] in {"400", "401"}


def test_two_tokens_are_none(serve):
    running = serve()
    right = f"Authorization: {running.client.headers['authorization']}\r\n"
    head = f"POST /v1/undo HTTP/1.1\r\nHost: 127.0.0.1\r\n{right}Authorization: Bearer x\r\n\r\n"
    assert " 400 " in running.raw(head.encode()).partition("\r\n")[0]


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "0.0.0.0",
        "127.0.0.2",
        "localhost@evil.example",
        "[::2]",
        "[::1",
        "::1",
        "[::1]evil.example",
        "[::1%25lo]",
        "",
        "localhost/",
        "127.0.0.1:80:80",
    ],
)
def test_names_that_are_not_ours(serve, host):
    """DNS rebinding: the browser calls us by the name of the attacker's site."""
    running = serve()
    assert " 400 " in running.raw(f"GET /v1/products HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()).partition("\r\n")[0]
    for path in ("/healthz", "/readyz"):  # what changes something, or is no probe, must name us there too
        head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"
        assert " 400 " in running.raw(head.encode()).partition("\r\n")[0]


@pytest.mark.parametrize("public", [False, True])
@pytest.mark.parametrize("host", ["10.244.0.5:8000", "mixtura:8000", "ip-10-0-0-1.ec2.internal", ""])
def test_probes_may_call_us_by_any_name_and_learn_nothing_else(serve, host, public):
    """Load balancers and Kubernetes call the address that they know, without the token."""
    running = serve(public=public)
    for path in ("/healthz", "/readyz"):
        answer = running.raw(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert answer.startswith("HTTP/1.1 200") and answer.endswith('\r\n\r\n{"status":"ok"}')
        foreign = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nOrigin: https://evil.example\r\n\r\n"
        assert running.raw(foreign.encode()).startswith("HTTP/1.1 403")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1234", "127.0.0.1", "[::1]:99", "shop.example.org"])
def test_names_that_are_ours(serve, host):
    running = serve(hosts=frozenset({"127.0.0.1", "localhost", "[::1]", "shop.example.org"}))
    answer = running.raw(f"GET /v1/model HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert " 200 " in answer.partition("\r\n")[0]


def test_no_name_and_two_names_are_refused(serve):
    running = serve()
    assert " 400 " in running.raw(b"GET /v1/model HTTP/1.0\r\n\r\n").partition("\r\n")[0]
    assert " 400 " in running.raw(b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n").partition("\r\n")[0]


FOREIGN = [
    {"Origin": "null"},
    {"Origin": "https://evil.example"},
    {"Origin": "http://127.0.0.1:1"},
    {"Origin": "http://localhost:{port}"},
    {"Origin": "http://127.0.0.1:{port}.evil.example"},
    {"Origin": ""},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
    {"Sec-Fetch-Site": "same-origin", "Origin": "null"},
    {"Sec-Fetch-Site": "nonsense"},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_other_sites_can_neither_write_nor_ask(serve, photo, headers):
    """Even with the token."""
    running = serve()
    headers = {key: value.format(port=running.port) for key, value in headers.items()}
    before = running.client.get("/v1/history").json()
    for method, path, body in WRITE:
        assert problem(running.client.request(method, path, json=body, headers=headers), 403, "site")
    for kind in ("image/png", "multipart/form-data; boundary=x", "application/octet-stream", ""):
        send = {"content": photo(), "headers": headers | {"Content-Type": kind}}
        assert problem(running.client.post("/v1/classify", **send), 403), kind
    assert problem(running.client.get("/v1/products", headers=headers), 403)
    assert running.client.get("/v1/history").json() == before


def test_our_page_and_links_to_it_pass(serve):
    running = serve()
    own = {"Origin": running.address, "Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}
    assert running.client.post("/v1/undo", headers=own).status_code in {200, 409}
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert running.client.get("/", headers=link).status_code == 200
    assert running.client.get("/v1/products", headers={"Sec-Fetch-Site": "none"}).status_code == 200


def test_nobody_else_may_read_the_answers(serve):
    answer = serve().client.options(
        "/v1/products", headers={"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    )
    assert answer.status_code == 403
    assert not [name for name in answer.headers if name.startswith("access-control")]


# Kinds


@pytest.mark.parametrize(
    "kind",
    [
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/octet-stream",
        "text/json",
        "application/jsonx",
        "image",
        "application/json-patch+json",
    ],
)
def test_bodies_of_another_kind(serve, kind):
    running = serve()
    for path in ("/v1/classify", "/v1/products", "/v1/feedback"):
        answer = running.client.post(path, content=b'{"images": []}', headers={"Content-Type": kind})
        assert problem(answer, 415, "Content-Type")


def test_a_photo_is_no_edit_and_nothing_is_unpacked(serve, photo):
    post = serve().client.post
    assert problem(post("/v1/products", content=photo(), headers={"Content-Type": "image/png"}), 415)
    packed = JSON | {"Content-Encoding": "gzip"}
    assert problem(post("/v1/classify", content=b"\x1f\x8b", headers=packed), 415, "compressed")


def test_what_is_not_there(serve):
    running = serve()
    assert problem(running.client.get("/nothing"), 404)
    assert problem(running.client.get("/v1/products/"), 404)
    answer = running.client.put("/v1/products", json={})
    assert problem(answer, 405) and answer.headers["allow"] == "GET, HEAD, POST"


@pytest.mark.parametrize("public", [False, True])
def test_what_is_not_there_is_said_before_a_token_is_asked_for(serve, photo, public):
    running = serve(public=public)
    with anonymous(running) as client:
        for path in ("/v1/classify/", "/v1/search/", "/v1/nothing", "/v1", "/static", "/nothing"):
            send = {"content": photo(), "headers": {"Content-Type": "image/png"}}
            assert problem(client.post(path, **send), 404, "nothing at this address"), path
            assert problem(client.delete(path), 404), path
        assert problem(client.put("/v1/classify", json={}), 405, "method")
        assert problem(client.delete("/v1/products"), 405)
        assert problem(client.delete("/v1/products/no-such-one"), 401)  # which products there are is not told


def test_head_is_get_without_its_body(serve):
    running = serve()
    for path in ["/", "/docs", "/static/page.css", "/healthz", "/readyz", "/v1/products", "/v1/model", "/openapi.json"]:
        got, head = running.client.get(path), running.client.head(path)
        assert head.status_code == 200 and head.content == b"", path
        assert head.headers["content-length"] == got.headers["content-length"] == str(len(got.content)), path
        assert guards.SECURITY_HEADERS.items() <= dict(head.headers).items()
    with running.open() as made:  # what comes behind it on the same connection is not taken for its body
        made.sendall(b"HEAD / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nGET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        answers = b""
        while not answers.endswith(b'{"status":"ok"}'):
            answers += made.recv(65536)
    assert answers.count(b"HTTP/1.1 200") == 2 and b"<html" not in answers
    assert running.client.head("/v1/classify").status_code == 405
    assert running.client.head("/nothing").status_code == 404
    assert running.client.head("/v1/products", headers={"Host": "evil.example"}).status_code == 400
    assert running.client.head("/v1/products", headers={"Origin": "https://evil.example"}).status_code == 403


def test_behind_a_proxy_that_hides_the_name_the_header_is_named(serve, photo):
    """As nginx does by itself: Host is that of the upstream, Origin that of the page; still nobody is let in."""
    running = serve(hosts=frozenset({"127.0.0.1", "shop.example.org"}))
    send = {"content": photo(), "headers": {"Content-Type": "image/png", "Origin": "https://shop.example.org"}}
    for site in ({}, {"Sec-Fetch-Site": "same-origin"}):
        headers = send["headers"] | site
        assert problem(running.client.post("/v1/classify", content=photo(), headers=headers), 403, "Host header")
        passed_on = headers | {"Host": "shop.example.org"}
        assert running.client.post("/v1/classify", content=photo(), headers=passed_on).status_code == 200
    other = send["headers"] | {"Sec-Fetch-Site": "cross-site"}
    assert problem(running.client.post("/v1/classify", content=photo(), headers=other), 403, "another site")
    for origin in ("https://evil.example", "https://shop.example.org.evil.example", "null", "https://[", "https://:1"):
        answer = running.client.post("/v1/undo", headers={"Origin": origin})
        assert problem(answer, 403, "another site"), origin


def test_a_mistake_of_ours_says_only_its_number(serve, photo, caplog):
    running = serve()

    def broken(*arguments):
        raise RuntimeError("secret shop/catalog.sqlite")

    running.service.encoder.encode = broken
    try:
        answer = running.classify(photo())
    finally:
        del running.service.encoder.encode
    assert problem(answer, 500, answer.headers["x-request-id"])
    assert "secret" not in answer.text
    assert answer.headers["x-request-id"] in caplog.text and "secret" in caplog.text


def test_the_log_holds_no_token_and_no_photo(serve, photo, caplog):
    caplog.set_level("DEBUG")
    running = serve()
    running.classify(photo())
    running.client.post("/v1/undo")
    running.client.get("/v1/products?token=" + running.client.headers["authorization"][7:])
    logged = "\n".join(
        record.getMessage() for record in caplog.records if not record.name.startswith(("http", "asyncio"))
    )
    assert "/v1/classify" in logged
    assert running.client.headers["authorization"][7:] not in logged
    assert json.dumps(photo()[:40].decode("latin-1")) not in logged


def test_where_there_is_no_room_a_photo_is_refused_unread(serve, photo, monkeypatch):
    running = serve()
    queue = running.service.photos.admission
    monkeypatch.setattr(queue, "_waiting", [(1, threading.Event())])
    monkeypatch.setattr(queue, "_update_overload", lambda: True)
    head = f"POST /v1/classify HTTP/1.1\r\nHost: 127.0.0.1:{running.port}\r\nContent-Type: image/png\r\n"
    answer = running.raw(f"{head}Content-Length: 500000\r\n\r\n".encode())  # none of it is sent
    assert answer.startswith("HTTP/1.1 503") and "retry-after: 1" in answer.lower() and "Too many photos" in answer
    assert running.client.get("/v1/products").status_code == 200
    monkeypatch.undo()
    assert running.client.post("/v1/classify", content=photo(), headers={"Content-Type": "image/png"}).is_success
