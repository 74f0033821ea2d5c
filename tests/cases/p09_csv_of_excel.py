"""django-import-export#181, JetBrains-Research/jbr#140, Giskard-AI/ai-inspector#15 (';'), Windows paths, blank rows, blanks after commas."""

import shutil

from common import TMP, check, cli, end, folder

root = folder(TMP / "p")
rows = [(f"{c}/{i}.jpg", c) for c in ("apple", "pear", "plum") for i in range(14)]
base = "\n".join(f"{a},{b}" for a, b in rows) + "\n"


def case(name, text, good, enc="utf-8"):
    f = root / "list.csv"
    f.write_bytes(text.encode(enc))
    shutil.rmtree(TMP / "o", ignore_errors=True)
    code, out, err = cli("fit", f, "-o", TMP / "o", "--encoder", "pixels", "-q")
    check(name, code == 0 or any(g in err for g in good), err.strip()[:160])


case("plain", "file_name,label\n" + base, ())
case(
    "semicolons (Excel in half of Europe): read, or the semicolon is named",
    "file_name;label\n" + base.replace(",", ";"),
    ("semicolon", "separated", "';'"),
)
case(
    "tabs: read, or the tab is named", "file_name\tlabel\n" + base.replace(",", "\t"), ("separated by", "a tab", "tabs")
)
case("blank after the comma of the header", "file_name, label\n" + base, ("blank", "space"))
case("a blank last row of Excel (',')", "file_name,label\n" + base + ",\n", ())
case(
    "Windows paths: read, or the backslash is named", "file_name,label\n" + base.replace("/", "\\"), ("backslash", "\\")
)
case("UTF-16 of Excel: told", "file_name,label\n" + base, ("UTF-8",), "utf-16")
case("CRLF and BOM", "\ufefffile_name,label\r\n" + base.replace("\n", "\r\n"), ())
end()
