"""``mixtura serve`` as people start and stop it."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys

import httpx
import pytest

from mixtura.cli.app import run
from mixtura.encoders.tiny import Tiny
from mixtura.errors import NoInput, UsageError
from mixtura.web import server, tuning
from mixtura.web.settings import Settings

SECRET = "a-secret-of-thirty-two-characters"


def heed_ctrl_c():
    """What a shell starts in the background ignores Ctrl-C, and so would all that it starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def start(shop, tmp_path):
    """Servers as processes of their own, on copies of the catalog; what is left of them is killed."""
    shutil.copytree(shop, tmp_path / "shop")
    made = []

    def begin(*options, **variables):
        environment = {key: value for key, value in os.environ.items() if key != server.TOKEN_VARIABLE}
        command = [sys.executable, "-m", "mixtura", "serve", "shop", "--port", "0", "--json", *options]
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            env=environment | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=heed_ctrl_c,
        )
        made.append(process)
        said = ""
        while not said.endswith("}\n"):
            line = process.stdout.readline()
            assert line, process.stderr.read()
            said += line
        return process, json.loads(said)

    yield begin
    for process in made:
        process.kill()
        process.communicate()


def sentence(capsys, code, expected, *words):
    told = capsys.readouterr().err
    assert code == expected, told
    assert told.count("\n") == 1 and told.startswith("mixtura: ") and "Traceback" not in told
    for word in words:
        assert word in told, told


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_it_starts_answers_and_stops(start, photo, number, code):
    process, record = start()
    assert record["page"] == f"{record['address']}/#token={record['token']}"
    assert record["address"].startswith("http://127.0.0.1:") and len(record["token"]) >= 43
    with httpx.Client(base_url=record["address"], trust_env=False, timeout=30) as client:
        answer = client.post("/v1/classify", content=photo(), headers={"Content-Type": "image/png"}).json()
        assert answer["decisions"][0]["label"] == "apple" and answer["model"]["title"] == "shop"
        assert client.post("/v1/undo").status_code == 401
        assert client.post("/v1/undo", headers={"Authorization": f"Bearer {record['token']}"}).status_code == 409
        process.send_signal(number)
        said, told = process.communicate(timeout=30)
    assert process.returncode == code and said == ""
    assert told.count("\n") == 1 and "Traceback" not in told and record["token"] not in told


def test_a_token_of_ones_own_and_all_addresses(start):
    _, record = start("--host", "0.0.0.0", "--host-name", "Shop.example.org", MIXTURA_TOKEN=SECRET)
    assert record["token"] == SECRET
    port = record["address"].rpartition(":")[2]
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as client:
        right = {"Authorization": f"Bearer {SECRET}"}
        assert client.get("/v1/products").status_code == 401
        assert client.get("/v1/products", headers=right).status_code == 200
        assert client.get("/v1/products", headers=right | {"Host": "shop.example.org"}).status_code == 200
        assert client.get("/v1/products", headers=right | {"Host": "other.example.org"}).status_code == 400
        assert client.get("/healthz").status_code == 200


def test_a_port_in_use_is_one_sentence(capsys, shop):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        sentence(capsys, run(["serve", str(shop), "--port", str(port)]), 2, f"Port {port}", "in use", "--port")


def test_what_cannot_be_served(capsys, shop, tmp_path):
    sentence(capsys, run(["serve", str(tmp_path / "nothing"), "--port", "0"]), 66, "nothing")
    short = tmp_path / "token"
    short.write_text("short")
    sentence(capsys, run(["serve", str(shop), "--token-file", str(short)]), 2, "token")
    sentence(capsys, run(["serve", str(shop), "--token-file", str(tmp_path / "none")]), 66, "none")
    sentence(capsys, run(["serve", str(shop), "--host", "192.0.2.1", "--port", "0"]), 2, "192.0.2.1")
    wrong = ["serve", str(shop), "--port", "0", "--host-name", "http://shop.example.org"]
    sentence(capsys, run(wrong), 2, "http://shop.example.org")


def test_without_the_extra_the_command_to_install_it_is_named(capsys, shop, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("mixtura.web")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    sentence(capsys, run(["serve", str(shop), "--port", "0"]), 2, "pip install 'mixtura[serve]'")


def test_tokens(tmp_path, monkeypatch):
    monkeypatch.delenv(server.TOKEN_VARIABLE, raising=False)
    made = {server.token_of(None) for _ in range(100)}
    assert len(made) == 100 and all(len(token) >= 43 for token in made)
    monkeypatch.setenv(server.TOKEN_VARIABLE, SECRET)
    assert server.token_of(None) == SECRET
    path = tmp_path / "token"
    path.write_text(f"  {SECRET}2\n")
    assert server.token_of(path) == f"{SECRET}2"
    for wrong in ("x" * 21, "x" * 257, "two words of a long secret", "ümlaut" * 10, "", "a\nb" * 20):
        path.write_text(wrong)
        with pytest.raises(UsageError):
            server.token_of(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(NoInput):
        server.token_of(path)


def test_names_and_addresses():
    with server.bind("127.0.0.1", 0) as made:
        port = made.getsockname()[1]
        assert server.is_local(made)
        assert server.host_names(made, ["Shop.Example.Org"]) == {"127.0.0.1", "localhost", "[::1]", "shop.example.org"}
        assert server.address(made, ()) == f"http://127.0.0.1:{port}"
        for wrong in ("", "a b", "http://x", "x:80", "x/y", "-x", "*"):
            with pytest.raises(UsageError):
                server.host_names(made, [wrong])
    with server.bind("0.0.0.0", 0) as made:
        assert not server.is_local(made)
        assert server.address(made, ()).startswith("http://127.0.0.1:")
        assert server.address(made, ["shop.example.org"]).startswith("http://shop.example.org:")


@pytest.mark.parametrize(
    ("cost", "expected"),
    [(lambda n: n, (1, 1)), (lambda n: 1.0, (16, 16)), (lambda n: 1 + 0.25 * n, (16, 8)), (lambda n: n * n, (1, 1))],
    ids=["each costs the same", "more cost nothing", "a fixed part and a share", "more at once is slower"],
)
def test_photos_at_once_are_as_many_as_pay(cost, expected, monkeypatch):
    monkeypatch.setattr(tuning, "_batch_seconds", lambda encoder, photo, size: cost(size))
    assert tuning.measure_batch_size(Tiny()) == expected


def test_of_two_bound_to_a_port_one_listens_and_the_other_says_so(shop, tmp_path):
    folder = shutil.copytree(shop, tmp_path / "twice")
    first = server.bind("127.0.0.1", 0)
    second = server.bind("127.0.0.1", first.getsockname()[1])
    first.listen(1)
    settings = Settings(token=SECRET)
    with first, second, pytest.raises(UsageError, match="is in use"):
        server.run(server.open_folder(folder, False), settings, second, lambda: pytest.fail("nobody can connect"))
