"""The forms in which photos are sent: each is answered as the photo itself, or refused in a sentence."""

import base64
import json

import httpx
import pytest

from mixtura.web.problems import Refusal
from mixtura.web.uploads import decoded, photos_in

BYTES = bytes(range(256)) * 3 + b"x"
TEXT = base64.b64encode(BYTES).decode()
URL = base64.urlsafe_b64encode(BYTES).decode()


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        TEXT.rstrip("="),
        URL,
        URL.rstrip("="),
        base64.encodebytes(BYTES).decode(),
        base64.encodebytes(BYTES).decode().replace("\n", "\r\n"),
        f" {TEXT}\n",
        f"data:image/jpeg;base64,{TEXT}",
        f"DATA:;base64,{TEXT}",
        f"data:image/png;name=a;base64,{URL.rstrip('=')}",
    ],
)
def test_base64_in_every_common_form(text):
    assert decoded([TEXT, text]) == [BYTES, BYTES]


@pytest.mark.parametrize(
    "text",
    [
        *("http://127.0.0.1/x.jpg", "../../etc/passwd", "AAAA\0", "A", "AAAAA", "AA=A", "AAA===", "AAAA\u00e9"),
        *("data:image/png,AAAA", "data:,AAAA", "data:image/png;base64,data:image/png;base64,AAAA"),
        *("\u200bAAAA", "[object Blob]"),
    ],
)
def test_what_is_not_base64_is_named_by_its_number(text):
    with pytest.raises(Refusal, match=r"^images, photo 2: .*base64") as refused:
        decoded([TEXT, text, "*"])
    assert refused.value.status == 422 and (len(text) < 5 or text not in refused.value.detail)


def form(*parts, boundary="x", end="--"):
    """A form of parts (head, content)."""
    body = b"".join(f"--{boundary}\r\n{head}\r\n\r\n".encode() + data + b"\r\n" for head, data in parts)
    return body + f"--{boundary}{end}\r\n".encode()


FILE = 'Content-Disposition: form-data; name="file"; filename="a.jpg"'


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (form((FILE, BYTES)), "multipart/form-data; boundary=x"),
        (
            form((FILE.lower() + "\r\ncontent-type: image/jpeg", BYTES)),
            'Multipart/Form-Data; charset=utf-8; boundary="x"',
        ),
        (b"\r\n" + form((FILE, BYTES)) + b"epilogue", "multipart/form-data; boundary=x"),
        (form((FILE.replace("a.jpg", '\u58f6 \u00e9\\".jpg'), BYTES)), "multipart/form-data; boundary=x"),
        (
            form(("Content-Disposition: form-data; name=f\r\nContent-Type: image/png", BYTES)),
            "multipart/form-data;boundary=x",
        ),
        (form((FILE.replace("filename=", "filename*=utf-8''"), BYTES)), "multipart/form-data; boundary=x"),
        (form((FILE, BYTES), boundary="----WebKit/a+b=c"), "multipart/form-data; boundary=----WebKit/a+b=c"),
        (BYTES, "application/octet-stream"),
        (BYTES, "application/x-www-form-urlencoded"),
        (BYTES, ""),
        (BYTES, "image/jpeg"),
    ],
)
def test_files_of_forms_and_bodies_without_a_kind(body, kind):
    assert photos_in(body, kind) == [BYTES]


def test_several_files_of_a_form_keep_their_order():
    contents = [BYTES, b"", b"\r\n--y\r\n", b"\r\n-x", b"\r\n", b"\r\n--xy\r\n--x-y\r\n--x\ry"]
    assert photos_in(form(*((FILE, data) for data in contents)), "multipart/form-data; boundary=x") == contents


@pytest.mark.parametrize(
    ("body", "kind", "status", "said"),
    [
        (form((FILE, BYTES)), "multipart/form-data", 415, "boundary"),
        (form((FILE, BYTES)), "multipart/form-data; boundary=" + "x" * 300, 415, "no part"),
        (form((FILE, BYTES)), 'multipart/form-data; boundary=""', 415, "boundary"),
        (b"preamble\r\n" + form((FILE, BYTES)), "multipart/form-data; boundary=x", 415, "no part"),
        (form((FILE, BYTES)), "multipart/form-data; boundary=other", 415, "no part"),
        (form(), "multipart/form-data; boundary=x", 415, "no part"),
        (form((FILE, BYTES), end=""), "multipart/form-data; boundary=x", 422, "last boundary"),
        (form(*[(FILE, b"x")] * 33), "multipart/form-data; boundary=x", 422, "33 parts"),
        (form(('Content-Disposition: form-data; name="k"', b"5")), "multipart/form-data; boundary=x", 422, "'k'"),
        (form(("", BYTES)), "multipart/form-data; boundary=x", 422, "not a file"),
        (
            form(('Content-Disposition: form-data; name="k\u00e9"', b"5")),
            "multipart/form-data; boundary=x",
            422,
            "'k\u00e9'",
        ),
        (b"--x\r\n--x\r\n--x--", "multipart/form-data; boundary=x", 422, "Part 1 of the form is malformed"),
        (form((FILE, BYTES), (FILE + "\r\na b: c", BYTES)), "multipart/form-data; boundary=x", 422, "Part 2 of"),
        (form((FILE + "\r\na: b" * 20, BYTES)), "multipart/form-data; boundary=x", 422, "Part 1 of"),
        (form((FILE.replace("a.jpg", "a" * 9000), BYTES)), "multipart/form-data; boundary=x", 422, "Part 1 of"),
        (form((FILE, BYTES))[:-10], "multipart/form-data; boundary=x", 422, "last boundary"),
        (b'{"images": []}', "", 415, "application/json"),
        (b" [1]", "application/octet-stream", 415, "application/json"),
        (b"", "image/png", 422, "empty"),
    ],
)
def test_what_is_refused_says_why(body, kind, status, said):
    with pytest.raises(Refusal, match=said) as refused:
        photos_in(body, kind)
    assert refused.value.status == status


def test_a_large_form_is_read_in_memory(monkeypatch):
    """No temporary file, as the parser's own classes would make."""

    def refuse(*given, **named):
        raise AssertionError("a file was opened")

    large = bytes(range(256)) * 2**13
    with monkeypatch.context() as patch:
        patch.setattr("os.open", refuse)
        patch.setattr("builtins.open", refuse)
        patch.setattr("tempfile.TemporaryFile", refuse)
        assert photos_in(form((FILE, large), (FILE, large)), "multipart/form-data; boundary=x") == [large, large]


def test_a_hostile_form_costs_no_more_than_its_bytes(serve):
    """Ten mebibytes of boundaries, of headers, of one part that never ends."""
    post = serve().client.post
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    size = 10 * 2**20 - 1000
    head = f"--x\r\n{FILE}\r\n\r\n".encode()
    bodies = [b"\r\n--x" * (size // 5), b"--x\r\n" + b"a: b\r\n" * (size // 6), b"--x" + b"\r\n\r\n" * (size // 4)]
    bodies += [head + unit * (size // len(unit)) for unit in (b"\r\n--xa", b"\r\n--x\ra", b"\r\n--", b"\r")]
    for body in bodies:
        answer = post("/v1/classify", content=body, headers=kind)
        assert answer.status_code in {415, 422} and answer.elapsed.total_seconds() < 3


def test_every_form_gets_the_answer_of_the_photo(serve, photo):
    running, data = serve(), photo()
    text = base64.b64encode(data).decode()
    post = running.client.post
    expected = post("/v1/classify", content=data, headers={"Content-Type": "image/png"}).json()["decisions"][0]
    answers = [
        post("/v1/classify", files={"file": ("a.png", data, "image/png")}),
        post("/v1/classify", files=[("files", ("a.png", data)), ("files", ("\u58f6.png", data))]),
        post("/v1/classify", content=data, headers={"Content-Type": "application/octet-stream"}),
        post("/v1/classify", content=data, headers={"Content-Type": "application/x-www-form-urlencoded"}),
        httpx.post(f"{running.address}/v1/classify", content=data, trust_env=False),
        post("/v1/classify", json={"images": [f"data:image/png;base64,{text}"]}),
        post("/v1/classify", json={"images": [base64.encodebytes(data).decode()]}),
    ]
    for answer in answers:
        assert answer.status_code == 200, answer.text
        for decision in answer.json()["decisions"]:
            assert decision["label"] == expected["label"] == "apple"
            assert decision["probability"] == pytest.approx(expected["probability"], abs=1e-5)
    assert [decision["id"] for decision in answers[1].json()["decisions"]] == ["0", "1"]


def test_forms_are_no_edits(serve, photo):
    """An edit takes JSON only, which no page of another site can send unasked."""
    running = serve()
    for path in ("/v1/products", "/v1/feedback"):
        kinds = ("multipart/form-data; boundary=x", "application/octet-stream", "text/plain", "")
        for kind in (*kinds, "application/x-www-form-urlencoded"):
            answer = running.client.post(path, content=form((FILE, photo())), headers={"Content-Type": kind})
            assert answer.status_code == 415, (path, kind)


def test_photos_are_counted_from_one_in_every_message(serve, photo):
    running, post = serve(), serve().client.post
    bad, good = base64.b64encode(b"no picture").decode(), base64.b64encode(photo()).decode()
    raw = post("/v1/classify", content=b"no picture", headers={"Content-Type": "image/png"})
    assert raw.json()["detail"].startswith("photo 1: ")
    several = post("/v1/classify", json={"images": [good, bad]}).json()["decisions"]
    assert several[1]["error"]["message"].startswith("photo 2: ") and several[1]["id"] == "1"
    form_of_two = post("/v1/classify", files=[("f", ("a", photo())), ("f", ("b", b"no picture"))]).json()["decisions"]
    assert form_of_two[1]["error"]["message"].startswith("photo 2: ")
    enrolled = post("/v1/products", json={"name": "x", "images": [good, bad]}).json()["detail"]
    assert enrolled.startswith("Nothing was added: photo 2: ") and enrolled.count("photo 2") == 1
    for path, more in (("/v1/classify", {}), ("/v1/products", {"name": "x"})):
        for image, said in (("*", "photo 2"), ("", "photo 2"), (5, "photo 2")):
            answer = post(
                path, content=json.dumps(more | {"images": [good, image]}), headers={"Content-Type": "application/json"}
            )
            assert answer.status_code == 422 and said in answer.json()["detail"], answer.text
    twice = post("/v1/products", json={"name": "x", "images": [good, good]}).json()["detail"]
    assert twice.startswith("photo 2 was given twice") or "photo 1" in twice
    assert running.client.get("/v1/products").status_code == 200


def test_the_page_names_no_address_from_the_root(serve):
    """So that it works where a proxy puts it under a prefix."""
    client = serve().client
    for page in ("/", "/docs"):
        text = client.get(page).text
        assert 'src="static/' in text and 'href="/' not in text and 'src="/' not in text
        scripts = [part.partition('"')[0] for part in text.split('src="')[1:]]
        assert all(client.get(f"/{script}").status_code == 200 for script in scripts)
    for script in ("api.js", "page.js", "pictures.js", "docs.js"):
        code = client.get(f"/static/{script}").text
        assert "fetch(`/" not in code and 'fetch("/' not in code and "location.origin" not in code
    assert "fetch(here(path)" in client.get("/static/api.js").text
