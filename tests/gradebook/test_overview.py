"""The instructor's pages: numbers that are right, every link somewhere, names that are text, pages for many students."""

from __future__ import annotations

import re
import subprocess
import sys
from decimal import Decimal
from html import unescape
from html.parser import HTMLParser
from urllib.parse import unquote

import pytest

from segedu.grading.gradebook import charts, overview
from segedu.grading.gradebook.bookkeeping import rebuild
from segedu.grading.gradebook.policy import LabBook, read_instructor_files
from segedu.grading.gradebook.statistics import LabStatistics

# run in a separate process, because tracemalloc also counts what other tests and threads of a process allocate
PEAK = """
import sys, tracemalloc
from pathlib import Path
from segedu.grading.gradebook.bookkeeping import rebuild
tracemalloc.start()
rebuild(Path(sys.argv[1]))
print(tracemalloc.get_traced_memory()[1])
"""


class Reader(HTMLParser):
    """Tags, attributes, and the cells of each table."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.tables, self.cell = [], [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.append((tag, dict(attrs)))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self.tables[-1][-1].append("")
            self.cell = True

    def handle_endtag(self, tag):
        self.cell = self.cell and tag not in ("th", "td")

    def handle_data(self, data):
        if self.cell:
            self.tables[-1][-1][-1] += data


def page_of(out, name="00_tiny/index.html"):
    text = (out / name).read_text(encoding="utf-8")
    return text, Reader(text)


@pytest.fixture
def out(made, tmp_path):
    wrong = {"name": "takes the mean", "message": "You take the <mean>.", "hint": ""}
    tampered = made.exercise("double", 0, tampered=True, status="tampered", named=[])
    records = [
        made.record("anna", (3, 3)),
        made.record("bert", (3, 0)),
        made.record("chris", exercises=[made.exercise("double", 3), made.exercise("total", 1, named=[wrong])]),
        made.record("dora", exercises=[tampered, made.exercise("total", 0, status="blank", named=[])]),
        made.record("emil", (0, 0), status="unreadable", problem="x"),
        made.record("fay", (0, 0), status="failed", problem="x"),
        made.record("gus", (3, 3), submitted="2026-10-06T10:00:00Z"),
        made.record("gus", (3, 3), attempt=2, submitted="2026-10-06T11:00:00Z"),
    ]
    return made.write(
        tmp_path, *records,
        roster="student,name,section\n" + "".join(f"{n},{n.title()},A\n" for n in "anna bert chris dora emil fay gus zoe".split()[1:]),
        policy="[late]\nafter = 0.5\n[labs.00_tiny]\ndue = 2026-10-05T12:00:00Z\n",
    )  # fmt: skip


def test_the_page_says_what_happened(out):
    rebuild(out)
    text, page = page_of(out)
    facts = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", text))
    assert facts["Students"] == "8" and facts["Handed in"] == "7" and facts["Full points"] == "1"
    assert facts["Mean"] == "2.29 of 6" and facts["Median"] == "3 of 6"  # 6, 3, 4, 0, 0, 0, 3
    assert re.sub("<.*?>", "", facts["Due"]) == "2026-10-05 12:00 UTC"
    flags = {unescape(word): int(count) for word, count in re.findall(r'flag \w+">([^<]*)</span> <strong>(\d+)<', text)}
    assert flags == {"tampered": 1, "failed": 1, "unreadable": 1, "not on roster": 1, "late": 1, "nothing handed in": 1}
    numbers, exercises, wrongs, students = page.tables
    assert [row[1] for row in numbers[1:]] == ["3", "0", "0", "2", "1", "0", "1"]
    # of five graded notebooks: total 3+0+1+0+3 of 15, solved by 2, blank in 1; double 12 of 15, solved by 4
    assert exercises[1:] == [
        ["total", "47 %", "40 %", "80 %", "adds two (1)"],
        ["double", "80 %", "80 %", "100 %", ""],
    ]
    assert wrongs[1:] == [
        ["adds two", "1", "total", "You add 2."],
        ["takes the mean", "1", "total", "You take the <mean>."],
    ]
    rows = {row[0]: row[1:] for row in students[1:]}
    assert sorted(rows) == ["anna", "bert", "chris", "dora", "emil", "fay", "gus", "zoe"]
    assert rows["gus"] == ["3", "GusA", "late", "3", "3", "1 of 2", "22 h late: x 0.5"]
    assert rows["zoe"] == ["0", "ZoeA", "nothing handed in", "", "", "", ""]
    assert rows["dora"][2] == "tampered" and rows["anna"][2] == "not on roster"


def test_pictures_have_words_and_tables_a_keyboard(out):
    rebuild(out)
    text, page = page_of(out)
    svgs = re.findall(r"<svg.*?</svg>", text, re.S)
    assert len(svgs) == 3
    ids = [attrs["id"] for _, attrs in page.attributes if "id" in attrs]
    assert len(set(ids)) == len(ids)
    for svg in svgs:
        names = re.search(r'role="img" aria-labelledby="(\S+) (\S+)"', svg)
        assert all(f'id="{name}"' in svg for name in names.groups())
    assert "Students by points: 0 to below 1: 3, 3 to below 4: 2, 4 to below 5: 1, full: 1." in svgs[0]
    regions = [attrs for tag, attrs in page.attributes if attrs.get("role") == "region"]
    assert len(regions) == len(page.tables) and all(r["tabindex"] == "0" and r["aria-label"] for r in regions)
    heads = [attrs["scope"] for tag, attrs in page.attributes if tag == "th"]
    assert heads.count("row") == sum(len(table) - 1 for table in page.tables)
    assert (
        "prefers-color-scheme: dark" in text
        and 'name="viewport"' in text
        and ("html", {"lang": "en"}) in page.attributes
    )


def test_no_script_no_outside_address_and_every_link_leads_somewhere(out, made):
    evil = '"><img src=x onerror=alert(1)>'
    made.write(
        out,
        made.record("a b#?%", notes=[made.EVIL]),
        roster=f'student,name\nanna,"{evil.replace(chr(34), chr(34) * 2)}"\n',
    )
    rebuild(out)
    for name in ("index.html", "00_tiny/index.html"):
        text, page = page_of(out, name)
        assert not {"script", "img", "link", "iframe", "form", "object"} & set(page.tags)
        assert not any(key.startswith("on") or key == "src" for _, attrs in page.attributes for key in attrs)
        assert "default-src 'none'" in text and "http:" not in text and "https:" not in text
        links = [attrs["href"] for tag, attrs in page.attributes if tag == "a"]
        assert len(links) > 3
        for address in links:
            assert address == "#top" or ((out / name).parent / unquote(address)).is_file(), address
    text, _ = page_of(out)
    assert "<img" not in text and "onerror=alert" in unescape(text)


def test_many_students_are_split_over_pages(made, tmp_path, monkeypatch):
    monkeypatch.setattr(overview, "PAGE", 4)
    out = made.write(tmp_path, *(made.record(f"s{number}") for number in range(9)))
    rebuild(out)
    text, page = page_of(out)
    assert len(page.tables) == 3 and re.findall(r'href="(students-\d.html)">(.*?)<', text) == [
        ("students-1.html", "s0 to s3"), ("students-2.html", "s4 to s7"), ("students-3.html", "s8 to s8")]  # fmt: skip
    found = [[row[0] for row in page_of(out, f"00_tiny/students-{n}.html")[1].tables[0][1:]] for n in (1, 2, 3)]
    assert found == [["s0", "s1", "s2", "s3"], ["s4", "s5", "s6", "s7"], ["s8"]]
    pages = [page_of(out, f"00_tiny/students-{n}.html")[0] for n in (1, 2, 3)]
    links = [re.findall(r">(Previous page|Next page)<", text) for text in pages]
    assert links == [["Next page"] * 2, ["Previous page", "Next page"] * 2, ["Previous page"] * 2]
    for number in range(4, 9):
        (out / "00_tiny" / "records" / f"s{number}.json").unlink()
    rebuild(out)
    assert not list((out / "00_tiny").glob("students-*.html")) and len(page_of(out)[1].tables) == 4


def test_the_front_page_links_the_labs_with_totals(out, made):
    made.write(out, made.record("anna", (1, 1), lab="01_more"), made.record("gus", (3, 3), lab="01_more"))
    rebuild(out)
    text, page = page_of(out, "index.html")
    assert page.tables[0][1:] == [
        ["00_tiny", "7 of 8", "2.29", "3", "6", "1", "1", "4"],
        ["01_more", "2 of 8", "4", "2", "6", "1", "0", "1"],
        ["All labs", "8", "3", "", "12", "", "", ""],  # 6+2, 3, 4, 0, 0, 0, 3+6, 0 of eight students
    ]
    assert 'href="01_more/index.html"' in text and 'href="totals.csv"' in text


@pytest.mark.parametrize(
    ("value", "most", "bin_", "bins"),
    [("0", "6", 0, 6), ("0.99", "6", 0, 6), ("1", "6", 1, 6), ("5.99", "6", 5, 6), ("6", "6", 6, 6), ("9", "6", 6, 6),
     ("2.5", "2.5", 10, 10), ("0.25", "2.5", 1, 10), ("99.9", "100", 9, 10), ("0", "0", 10, 10), ("-1", "6", 0, 6)],
)  # fmt: skip
def test_the_bins_of_a_histogram(value, most, bin_, bins):
    assert charts.bins_for(Decimal(most)) == bins
    assert charts.bin_index(Decimal(value), Decimal(most), bins) == bin_


def test_a_histogram_of_nobody_and_of_many():
    assert "nobody" in charts.histogram([0, 0, 0], Decimal(2), "x", "k")
    svg = charts.histogram([123456, 0, 7], Decimal(2), "<x>", "k")
    assert "&lt;x&gt;" in svg and ">123k</text>" in svg and "0 to below 1: 123456" in svg
    heights = [float(height) for height in re.findall(r'height="([\d.]+)"', svg)]
    assert heights[0] > 90 and heights[1] == 0 and 0 <= heights[2] < 1


def test_the_median_counts_everyone_once(made, tmp_path):
    out = made.write(tmp_path, *(made.record(f"s{n}", (n % 4, 0)) for n in range(8)))
    book = LabBook(read_instructor_files(out), "00_tiny")
    statistics = LabStatistics("00_tiny", book.exercises)
    for student_result in book:
        statistics.add(student_result)
    assert (statistics.median, statistics.mean, statistics.handed) == (1, Decimal("1.5"), 8)
    empty = LabStatistics("00_tiny", [])
    assert (empty.median, empty.mean, empty.misconceptions(), empty.hardest()) == (0, 0, [], [])


def test_everything_is_made_in_little_memory(made, tmp_path):
    made.write(tmp_path, made.record(notes=["x" * 4000]))
    records = tmp_path / "00_tiny" / "records"
    data = (records / "anna.json").read_bytes()
    for number in range(1500):
        (records / f"s{number}.json").write_bytes(data)
    done = subprocess.run([sys.executable, "-c", PEAK, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    peak = int(done.stdout)
    assert len(data) * 1501 > 7_000_000 and peak < 4_000_000, peak
