"""fastapi/fastapi#1773, Kludex/fastapi-health#18, Chainlit#835 (HEAD gives 405); kubeflow/mcp-server#91, cvat-ai/cvat#8567, kubernetes#14713 (Host is the pod's address)."""

import shutil
from pathlib import Path

from common import Server, check, end, jpeg, shop

model, _ = shop()
with Server(model) as s:
    for p in ("/healthz", "/readyz", "/", "/docs"):
        r = s.req("HEAD", p)
        check(f"HEAD {p} like GET", r[0] == 200, r[0])
    for h in ("10.244.0.5:8000", "mixtura:8000"):
        r = s.req("GET", "/healthz", headers={"Host": h})
        check(f"GET /healthz with Host {h}", r[0] == 200, r[0])
    (Path(model).parent / "away").mkdir()
    shutil.move(str(model), str(Path(model).parent / "away" / "m"))
    r = s.req("POST", "/v1/classify", jpeg(0, 1), {"Content-Type": "image/jpeg"})
    q = s.req("GET", "/readyz")
    check(
        "/readyz is not ok while every question gets 503",
        not (q[0] == 200 and r[0] == 503),
        f"classify {r[0]}, readyz {q[0]}",
    )
    shutil.move(str(Path(model).parent / "away" / "m"), str(model))
with Server(model, "--host", "0.0.0.0") as s:
    r = s.req("GET", "/healthz", headers={"Host": "10.244.0.5:8000"})
    check("--host 0.0.0.0: GET /healthz with the pod's address", r[0] == 200, r[0])
    r = s.req("GET", "/readyz")
    check("--host 0.0.0.0: GET /readyz without the token (it tells no more than ok)", r[0] == 200, r[0])
end()
