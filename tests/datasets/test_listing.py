import pytest
from PIL import Image

from mixtura.datasets.listing import load
from mixtura.errors import DataError, NoInput


@pytest.fixture
def photos(tmp_path):
    for name in ("1.png", "2.png", "sub/3.png"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "photos" / name)
    return tmp_path / "photos"


def read(photos, text, encoding="utf-8"):
    path = photos.parent / "list.csv"
    path.write_bytes(text.encode(encoding))
    return load(path, photos=photos)


def test_all_columns(photos):
    data = read(
        photos,
        "file_name,label,price,superclass,group,split,weight\n"
        "1.png,pin,3,metal,p1,Train,2.5\nsub/3.png, cafe\u0301 ,,,,,\n2.png, ,,,,validation,0\n",
    )
    one, three, two = data.items
    assert (one.label, one.superlabel, one.group, one.split, one.weight) == ("pin", "metal", "p1", "train", 2.5)
    assert (three.label, three.superlabel, three.group, three.split, three.weight) == (
        "caf\u00e9",
        None,
        None,
        None,
        1.0,
    )
    assert (two.label, two.split, two.weight) == (None, "val", 0.0)
    assert (three.id, three.source) == ("sub/3.png", "sub/3.png")
    assert data.name == "list"
    assert data.image(0).size == (4, 4)


def test_spreadsheet_habits(photos):
    assert len(read(photos, '\ufefffile_name,label\r\n"1.png","a, b"\r\n2.png,"say ""x"""\r\n')) == 2


NAMES = ("1.png", "2.png", "sub/3.png")


@pytest.mark.parametrize(
    "text",
    [
        "file_name;label\n1.png;pin\n2.png;pin\nsub/3.png;badge\n",
        "file_name\tlabel\n1.png\tpin\n2.png\tpin\nsub/3.png\tbadge\n",
        "sep=;\nfile_name;label\n1.png;pin\n2.png;pin\nsub/3.png;badge\n",
        ' file_name , label\n 1.png , pin\n2.png, "pin"\nsub/3.png,badge\n',
        "file_name,label,,\n1.png,pin,,\n,,,\n2.png,pin\n , ,\nsub/3.png,badge,,,,\n,\n\n",
        "file_name,label\n1.png,pin\n2.png,pin\nsub\\3.png,badge\n",
        '"label";"file_name"\n"pin";"1.png"\n"pin";"2.png"\n"badge";".\\sub\\3.png"\n',
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le-mark"])
def test_lists_as_spreadsheets_of_any_country_save_them(photos, text, encoding):
    mark = "\ufeff" if encoding == "utf-16-le-mark" else ""
    data = read(photos, mark + text.replace("\n", "\r\n"), encoding.removesuffix("-mark"))
    assert [(item.id.removeprefix("./"), item.label) for item in data.items] == [
        (name, "badge" if "sub" in name else "pin") for name in NAMES
    ]
    assert data.problems == []


def test_the_line_of_a_fault_counts_what_is_skipped(photos):
    with pytest.raises(DataError, match="line 4: weight 'heavy'"):
        read(photos, "sep=;\nfile_name;label;weight\n;;\n1.png;pin;heavy\n")


@pytest.mark.parametrize("label", ["", " ", "nan", "NaN", "<NA>", '""', "\u200b"])
def test_a_missing_label_is_no_class(photos, label):
    data = read(photos, f"file_name,label,superclass,group\n1.png,{label},{label},{label}\n2.png,None,a,\n")
    assert [(item.label, item.superlabel, item.group) for item in data.items] == [
        (None, None, None),
        ("None", "a", None),
    ]


def test_names_are_found_in_another_unicode_form(photos):
    (photos / "1.png").rename(photos / "cafe\u0301.png")
    data = read(photos, "file_name,label\ncaf\u00e9.png,pin\n")
    assert [item.id for item in data.items] == ["cafe\u0301.png"]
    with pytest.raises(DataError, match="is listed twice, in two spellings"):
        read(photos, "file_name,label\ncaf\u00e9.png,pin\ncafe\u0301.png,pin\n")


def test_a_backslash_in_a_name_that_exists_is_part_of_it(photos):
    (photos / "1.png").rename(photos / "sub\\3.png")
    assert [item.payload.name for item in read(photos, "file_name,label\nsub\\3.png,pin\n").items] == ["sub\\3.png"]


def test_links_out_of_the_folder_are_followed_if_asked_to(photos):
    Image.new("RGB", (4, 4)).save(photos.parent / "far.png")
    (photos / "link.png").symlink_to(photos.parent / "far.png")
    path = photos.parent / "list.csv"
    path.write_text("file_name,label\nlink.png,pin\n../far.png,pin\n1.png,pin\n")
    data = load(path, photos=photos, follow_links=True)
    assert [item.id for item in data.items] == ["link.png", "1.png"]
    assert [(problem.source, problem.reason) for problem in data.problems] == [("../far.png", "outside_root")]


def test_paths_are_relative_to_the_list_by_default(photos):
    (photos / "list.csv").write_text("file_name,label\n1.png,pin\n")
    assert len(load(photos / "list.csv")) == 1


@pytest.mark.parametrize("name", ["../secret.png", "/etc/hostname", "sub/../../secret.png", "link.png"])
def test_nothing_outside_is_read(photos, name):
    Image.new("RGB", (4, 4)).save(photos.parent / "secret.png")
    (photos / "link.png").symlink_to(photos.parent / "secret.png")
    data = read(photos, f"file_name,label\n1.png,pin\n{name},pin\n")
    assert len(data) == 1
    assert [(problem.source, problem.reason) for problem in data.problems] == [(name, "outside_root")]


@pytest.mark.parametrize("name", ["4.png", "x" * 5000, "loop.png", "a\nb.png"])
def test_missing_files_are_problems(photos, name):
    (photos / "loop.png").symlink_to("loop.png")
    data = read(photos, f'file_name,label\n1.png,pin\n"{name}",pin\n')
    assert [problem.reason for problem in data.problems] == ["not_a_file"]
    assert "of list.csv" in data.problems[0].message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no column 'file_name'"),
        ("file,label\n", r"has no column 'file_name' in its first line"),
        ("file_name,lable\n", "has no column 'label' in its first line. Did you mean 'lable'"),
        ("file_name,label,label\n", "a column occurs twice"),
        ("file_name,label\n1.png,pin\n,pin\n", "line 3: has no file_name"),
        ("file_name,label\n1.png,pin\n./1.png,pin\n", r"line 3: './1.png' is already on line 2"),
        ("file_name,label\n1.png,a,b\n", "line 2: holds more fields"),
        ("file_name,label,weight\n1.png,a,-1\n", "line 2: weight '-1' is not 0 or a number from 1e-06 to 1,000,000"),
        ("file_name,label,weight\n1.png,a,nan\n", "line 2: weight 'nan'"),
        ("file_name,label,weight\n1.png,a,1e999\n", "line 2: weight '1e999'"),
        ("file_name,label,split\n1.png,a,tset\n", "line 2: split 'tset' is unknown. Did you mean 'test'"),
        ('file_name,label\n1.png,"a\n', "is not a CSV file"),
        (f"file_name,label\n1.png,{'x' * 200_000}\n", "is not a CSV file"),
    ],
)
def test_a_wrong_list_is_an_error_that_says_where(photos, text, said):
    with pytest.raises(DataError, match=said):
        read(photos, text)


def test_another_encoding_is_an_error(photos):
    with pytest.raises(DataError, match="is not UTF-8 text"):
        read(photos, "file_name,label\n1.png,caf\u00e9\n", "latin-1")


def test_nothing_to_read(photos):
    with pytest.raises(NoInput, match="cannot be read"):
        load(photos / "missing.csv")
    with pytest.raises(NoInput, match="none of its files is in"):
        read(photos, "file_name,label\n9.png,pin\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0.123;0.5;-1e3\n1;2;3\n".replace(";", ","), "is a table of numbers"),
        ("0.123,0.5,nan,apple\n", "is a table of numbers"),
        ("5\n6\n", "is a table of numbers"),
        ("0.123;0.3\n", "is a table of numbers"),
        (",".join(f"f{n}" for n in range(3000)) + "\n1\n", "It has 3,000 columns, the first is 'f0'."),
    ],
)
def test_a_table_of_features_is_named_as_such_and_not_printed(tmp_path, text, said):
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(DataError) as caught:
        load(tmp_path / "list.csv")
    assert said in str(caught.value)
    assert "0.123" not in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("File_Name,label", "Rename the column 'File_Name' to file_name."),
        ("file name,label", "Rename the column 'file name' to file_name."),
        ("file_name;LABEL", "Rename the column 'LABEL' to label."),
        ("file_name label", "Put commas, semicolons or tabs between the columns, not blanks."),
    ],
)
def test_a_header_that_is_nearly_right_says_what_to_change(tmp_path, header, said):
    (tmp_path / "list.csv").write_text(f"{header}\n")
    with pytest.raises(DataError) as caught:
        load(tmp_path / "list.csv")
    assert said in str(caught.value)
