"""pyinstaller#7339, Nuitka#1339, mar10/wsgidav#141, mitmproxy#6361, keras#8395 (sys.stdout is None: pythonw, services, '>&-'); a photo itself on standard input."""

import subprocess

from common import ENV, PY, TMP, TOKEN, check, end, shop

model, root = shop()
p = root / "apple" / "0.jpg"


def sh(line):
    r = subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, errors="replace", env=dict(ENV, MIXTURA_TOKEN=TOKEN)
    )
    return r.returncode, r.stdout, r.stderr


M = f"{PY} -m mixtura"
code, out, err = sh(f"{M} predict {model} {p} -q >&-")
check(
    "predict with stdout closed: no 'fault in mixtura'",
    "fault in mixtura" not in err and "Traceback" not in err,
    err.strip()[:110],
)
code, out, err = sh(f"{M} fit {root} -o {TMP}/o --encoder pixels -q >&-")
check(
    "fit with stdout closed: the model is there and the code is 0",
    code == 0 and (TMP / "o" / "config.json").exists(),
    f"rc {code}",
)
code, out, err = sh(f"timeout 8 {M} serve {model} --port 0 >&-")
check("serve with stdout closed: serves (until stopped)", code in (124, 130, 143), f"rc {code} {err.strip()[:90]}")
code, out, err = sh(f"{M} predict {model} {p} -q 2>&-")
check("predict with stderr closed: code 0", code == 0, f"rc {code} {out.strip()[-20:]!r}")
code, out, err = sh(f"{M} predict {model} - -q <&-")
check("predict - with stdin closed: one sentence", "fault in mixtura" not in err, err.strip()[:100])
code, out, err = sh(f"cat {p} | {M} predict {model} - -q")
check(
    "a photo piped into predict -: answered, or one sentence (not a row for each line of its bytes)",
    len(out.splitlines()) <= 1,
    f"rc {code}, {len(out.splitlines())} rows",
)
end()
