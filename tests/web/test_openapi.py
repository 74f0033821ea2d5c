"""The service does what its OpenAPI document says, for requests that schemathesis makes up.

The suite makes some hundred; ``MIXTURA_EXAMPLES=75 pytest tests/web/test_openapi.py`` makes 1,500 in a minute or two.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HOOKS = Path(__file__).with_name("schemathesis_hooks.py")
EXAMPLES = os.environ.get("MIXTURA_EXAMPLES", "2")
REFUSALS = {"400", "403", "404", "405", "422", "431", "500"}


@pytest.mark.slow
@pytest.mark.parametrize("public", [False, True])
def test_no_request_breaks_the_contract(serve, tmp_path, public):
    """All four phases of schemathesis with all its checks: no status 5xx, no answer that is not documented."""
    running = serve(public=public)
    authorization = f"Authorization: {running.client.headers['authorization']}"
    program = Path(sys.executable).with_name("schemathesis")
    told = ["--max-examples", EXAMPLES, "--header", authorization, "--seed", "1", "--no-color"]
    schema = tmp_path / "openapi.json"
    schema.write_text(running.client.get("/openapi.json").text)
    done = subprocess.run(
        [program, "run", schema, "--url", running.address, *told],
        cwd=tmp_path,
        env=os.environ | {"SCHEMATHESIS_HOOKS": str(HOOKS)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    count = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    assert count and int(count[1]) == int(count[2]) >= 300, done.stdout[-2000:]
    assert running.client.get("/readyz").status_code == 200


def test_every_refusal_is_documented(serve):
    """For each address and method the refusals of the guards, and the token where it is needed."""
    for public in (False, True):
        made = serve(public=public).client.get("/openapi.json").json()
        for path, operations in made["paths"].items():
            for method, operation in operations.items():
                statuses = set(operation["responses"])
                assert statuses >= REFUSALS, (path, method)
                closed = path not in {"/healthz", "/readyz"} and (
                    public or (method != "get" and path not in CLOSED_ONLY_ELSEWHERE)
                )
                assert ("401" in statuses) == closed == ("security" in operation), (path, method)
                if method != "get":
                    assert statuses >= {"408", "413", "415"}


CLOSED_ONLY_ELSEWHERE = {"/v1/classify", "/v1/search"}


def test_no_field_takes_a_path_or_an_address(serve):
    """Every text that a client may send is an id, a photo or the name of a product."""
    made = serve().client.get("/openapi.json").json()
    named = made["components"]["schemas"]
    sent = {"Photos", "EnrollPhotos", "EnrollDecisions", "Rename", "Confirm", "Merge", "Part", "Split", "Feedback"}
    assert sent <= set(named)
    for schema in sent:
        assert named[schema]["additionalProperties"] is False
        for text in texts(named[schema]):
            fixed = text.get("const") == ""
            assert text.get("pattern") or text.get("format") == "photo" or fixed, (schema, text)
    for path, operations in made["paths"].items():
        for operation in operations.values():
            for parameter in operation.get("parameters", []):
                assert parameter["schema"].get("pattern") or parameter["schema"]["type"] == "integer", path


def texts(schema):
    """All parts of a schema that describe a text."""
    if isinstance(schema, dict):
        if schema.get("type") == "string":
            yield schema
        for part in schema.values():
            yield from texts(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from texts(part)
