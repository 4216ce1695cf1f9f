"""Attacks on what the probe leaves: outcomes forged on the disk, and bytes that a reader may choke on."""

from __future__ import annotations

from attack import EVERYWHERE, RIGHT, Attack, beside_right

# `plant(name, i, files)` writes outcome i of an exercise before the probe does; `after(do)` runs when a probe ends
TOOLS = """import builtins, io, json, os, pathlib, struct, sys
work = pathlib.Path(os.environ["SEGEDU_WORK"])
NAMES = ("double", "total", "box_area")


def plant(name, i, files):
    out = work / "job" / name / "out"
    out.mkdir(parents=True, exist_ok=True)
    for part, data in files.items():
        path = out / f"{i}.{part}"
        path.write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())


def value(node):
    return {"json": {"dict": {"value": node, "arguments": {"list": [0]}}}}


def npy(header, body=b"", version=(1, 0)):
    header = header.encode() + b"\\n"
    size = struct.pack("<H" if version == (1, 0) else "<I", len(header))
    return b"\\x93NUMPY" + bytes(version) + size + header + body


import segedu.teaching.checks.remote as remote
"""
INSTEAD = """
def run_probe(name, folder, namespace):
    for i in range(4):
        plant(name, i, forged(name, i))


remote.run_probe = run_probe
"""


def codec(name: str, tries: str, right: str, forged: str, note: str = "", **more) -> Attack:
    """An attack that writes what `forged(name, i)` gives in place of each outcome."""
    return Attack(name, "codec", tries, right, TOOLS + forged + INSTEAD, note=note, **{"levels": EVERYWHERE} | more)


UNREAD = "outcomes could not be read"
WRITES = """import pathlib
pathlib.Path("out").mkdir()
np.save("out/0.npy", np.arange(4.0))
print(np.load("out/0.npy"))"""

CODEC = [
    codec(
        "o10_points_in_the_outcome",
        "to add points, passed and max to an outcome",
        "0: keys that no probe writes are left out",
        """def forged(name, i):
    return {"json": {"dict": {"value": 0, "arguments": {"list": [0]}, "points": 99, "passed": True, "max": 1,
                              "accept": True, "status": {"str": "passed"}}}}
""",
        twin=WRITES,
    ),
    codec(
        "o11_huge_shape",
        "to announce an array of 10^12 numbers",
        "0, refused before anything is made",
        """def forged(name, i):
    header = "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000)}"
    return value({"array": 0}) | {"0.npy": npy(header, b"x" * 8)}
""",
        UNREAD,
        twin="x = np.zeros((1, 0, 4))\nprint(x.shape)",
    ),
    codec(
        "o12_pickle_in_npy",
        "to smuggle a pickle in an object array",
        "0, nothing is unpickled",
        """import pickle


class Evil:
    def __reduce__(self):
        return (os.system, ("touch @BAIT@/unpickled",))


def forged(name, i):
    header = "{'descr': '|O', 'fortran_order': False, 'shape': (1,)}"
    return value({"array": 0}) | {"0.npy": npy(header, pickle.dumps([Evil()]))}
""",
        UNREAD,
        levels=(3, 2),
        twin="""import pickle
pickle.dump({"a": 1}, open("mine.pkl", "wb"))
print(pickle.load(open("mine.pkl", "rb")))""",
    ),
    codec(
        "o13_code_in_the_header",
        "to put code into the header of an array",
        "0: a header is a literal",
        """def forged(name, i):
    header = "{'descr': __import__('os').system('touch @BAIT@/header'), 'fortran_order': False, 'shape': (1,)}"
    return value({"array": 0}) | {"0.npy": npy(header, b"x" * 8)}
""",
        UNREAD,
        levels=(3, 2),
        twin="import ast\nprint(ast.literal_eval('(1, 2)'))",
    ),
    codec(
        "o14_deep_structure",
        "to break the reader by depth",
        "0, refused",
        """def forged(name, i):
    if i % 2:
        return {"json": b'{"dict": {"value": ' + b'{"list": [' * 20_000 + b"]}" * 20_000 + b"}}"}
    return {"json": b"[" * 900_000}
""",
        UNREAD,
        twin="x = []\nfor _ in range(500):\n    x = [x]\nprint(len(x))",
    ),
    codec(
        "o15_long_texts_in_a_list",
        "to make the comparison of a list of texts need all memory of the grader",
        "0, refused: numpy would give each item the length of the longest",
        """def forged(name, i):
    texts = [{"str": "x" * 100_000}, *[{"str": ""}] * 4_000]
    return value({"list": texts})
""",
        UNREAD,
        twin="names = ['x' * 5000] + [''] * 100\nprint(len(names))",
    ),
    codec(
        "o16_many_parts",
        "to hand over more parts, keys and arrays than can be walked",
        "0, refused",
        """def forged(name, i):
    if i == 0:
        return value({"list": [0] * 200_000})
    if i == 1:
        return value({"dict": {str(k): k for k in range(30_000)}})
    array = npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1,)}", b"\\0" * 8)
    return value({"list": [{"array": k} for k in range(300)]}) | {f"{k}.npy": array for k in range(300)}
""",
        UNREAD,
        twin="x = {str(k): k for k in range(30_000)}\nprint(len(x))",
    ),
    codec(
        "o30_one_array_many_times",
        "to fill the grader's memory by an array that an outcome refers to 250 times",
        "0, refused: an array is read once",
        """def forged(name, i):
    array = npy("{'descr': '<f8', 'fortran_order': False, 'shape': (8192,)}", b"\\0" * 65536)
    return value({"list": [{"array": 0}] * 250}) | {"0.npy": array}
""",
        UNREAD,
        twin="import numpy as np\nx = np.zeros(8192)\nprint(len([x] * 250))",
    ),
    codec(
        "o17_odd_json",
        "to hand over NaN keys, doubled keys, huge numbers and broken UTF-8",
        "0, one note a kind",
        """def forged(name, i):
    return {"json": [b'{"dict": {"value": NaN, "value": 0, "NaN": 1, "arguments": {"list": [NaN]}}}',
                     b'{"dict": {"value": ' + b"9" * 5_000 + b"}}", b"\\xff\\xfe{}\\xed\\xa0\\x80",
                     b'{"dict": {"value": 1e999, "arguments": {"list": [-1]}, "raises": 5}}'][i]}
""",
        UNREAD,
        twin="import json\nprint(json.loads('{\"a\": NaN}'), json.dumps(float('inf')))",
    ),
    codec(
        "o18_odd_arrays",
        "to hand over structured, complex, text, wide, negative and foreign arrays",
        "0, refused",
        """KINDS = ["[('a', '<f8')]", "'<c16'", "'<U9'", "('<f8', (2,))", "'<g'", "'<M8[s]'", "'|V8'", "'>f2'"]


def forged(name, i):
    shape = ["(1,)", "(-1,)", "(True,)", "(" + "1, " * 40 + ")"][i]
    descr = KINDS[i + 4 * (name == "total")]
    header = "{'descr': " + descr + ", 'fortran_order': False, 'shape': " + shape + "}"
    return value({"array": 0}) | {"0.npy": npy(header, b"\\0" * 16, (1, 0) if i else (2, 0))}
""",
        UNREAD,
        twin="x = np.zeros(3, dtype=[('a', float)])\nprint(x['a'], np.array(['a']))",
    ),
    codec(
        "o19_both_outcomes",
        "to say that it returned and raised and was refused, all at once",
        "0",
        """def forged(name, i):
    return {"json": {"dict": {"value": 0, "raises": {"str": "ValueError"}, "refused": {"str": "x"},
                              "arguments": {"list": [0]}, "grads": {"list": []}, "parameters": {"list": []}}}}
""",
    ),
    codec(
        "o20_fixture",
        "to make the grader build one of its own classes",
        "0: only our cases may name one",
        """def forged(name, i):
    return value({"fixture": "ValidFilter", "with": {"margin": 20_000}})
""",
        UNREAD,
    ),
]

PROBES = [
    Attack(
        "o21_outcomes_written_early",
        "probe",
        "to write the outcomes of all exercises before any probe runs, and to die",
        "0: what lies there is compared like any other",
        TOOLS
        + """
for name in NAMES:
    for i in range(4):
        plant(name, i, value(0))
os._exit(0)
""",
        note="ended the kernel",
        twin=WRITES,
    ),
    Attack(
        "o22_replayed_cases",
        "probe",
        "to hand in the cases themselves, and other exercises' outcomes, as outcomes",
        "0",
        TOOLS
        + """
def forged(name, i):
    other = NAMES[(NAMES.index(name) + 1) % 3]
    folder = work / "job" / (name if i % 2 else other) / "in"
    case = json.loads((folder / f"{i}.json").read_text())
    args = case["dict"]["args"]["list"][0]
    arrays = {"0.npy": (folder / f"{i}.0.npy").read_bytes()} if isinstance(args, dict) else {}
    return value(args) | arrays
"""
        + INSTEAD,
        levels=EVERYWHERE,
        twin="import os\nprint(os.listdir('.'))",
    ),
    Attack(
        "o23_writer_in_another_process",
        "probe",
        "to rewrite outcomes from a process that outlives the kernel",
        "0, and it ends",
        TOOLS
        + """
import time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        until = time.time() + 20
        while time.time() < until:
            for name in NAMES:
                for i in range(4):
                    try:
                        plant(name, i, value([0, True, 1e9][int(time.time() * 10) % 3]))
                    except OSError:
                        pass
    os._exit(0)
""",
        twin="""import threading, pathlib
thread = threading.Thread(target=lambda: pathlib.Path("log.txt").write_text("done"))
thread.start(); thread.join()""",
    ),
    beside_right(
        "o24_pipe_for_an_outcome",
        "probe",
        "to let the collector hang on pipes, folders and links in out/",
        "what is no plain file is no outcome; the others count",
        cell=TOOLS
        + """
real = remote.run_probe


def run_probe(name, folder, namespace):
    real(name, folder, namespace)
    if name == "total":
        out = pathlib.Path(folder, "out")
        for path in list(out.iterdir()):
            path.unlink()
        os.mkfifo(out / "0.json")
        (out / "1.json").symlink_to("/etc/passwd")
        (out / "2.json").mkdir()
        os.symlink("/proc/self/mem", out / "3.json")
        os.mkfifo(out / "junk")


remote.run_probe = run_probe
""",
        points=6.0,
        twin="import os\nos.symlink('nothing', 'link')\nos.mkdir('folder')",
    ),
    beside_right(
        "o25_out_is_a_link",
        "probe",
        "to make out/ a link to the grader's own folders, and to another exercise's",
        "links are not followed: that exercise alone is lost",
        cell=TOOLS
        + """
(work / "job" / "total" / "out").symlink_to("@BAIT@")
(work / "elsewhere").mkdir()
(work / "job" / "box_area" / "out").symlink_to(work / "elsewhere")
""",
        points=3.0,
        twin="import os\nos.makedirs('a/b')\nos.symlink('b', 'a/link')",
    ),
    beside_right(
        "o26_flood_of_files",
        "probe",
        "to bury the outcomes under thousands of files and sparse gigabytes",
        "bounded: its own outcomes may be lost, nobody's else",
        cell=TOOLS
        + """
real = remote.run_probe


def run_probe(name, folder, namespace):
    real(name, folder, namespace)
    if name == "box_area":
        for i in range(3_000):
            (work / "job" / "total" / "out" / f"junk{i}").write_bytes(b"")
        with open(work / "job" / "total" / "out" / "0.json", "wb") as file:
            file.truncate(60 << 20)


remote.run_probe = run_probe
""",
        own_loss=True,
        twin="import pathlib\nfor i in range(300):\n    pathlib.Path(f'{i}.txt').write_text('x')",
    ),
    beside_right(
        "o27_new_files_at_each_death",
        "probe",
        "to fill the grader's memory with what each dying kernel leaves",
        "what is taken is bounded over all kernels of a submission",
        answers={
            name: f"import os, pathlib\nout = pathlib.Path(os.environ['SEGEDU_WORK'], 'job', '{name}', 'out')\n"
            "out.mkdir(exist_ok=True)\nfor i in range(3):\n"
            "    (out / f'{os.urandom(4).hex()}').write_bytes(bytes(15 << 20))\nos._exit(0)"
            for name in RIGHT
        },
        note="ended the kernel",
        twin="import pathlib\npathlib.Path('big').write_bytes(bytes(15 << 20))",
    ),
    beside_right(
        "o28_probe_never_ends",
        "probe",
        "to replace what the probe calls: threads, files, the copy of a case",
        "those exercises are lost, at the limit of a cell; the next one runs",
        cell=TOOLS
        + """
import torch, time
real = remote.run_probe


def run_probe(name, folder, namespace):
    if name == "double":
        torch.set_num_threads = lambda n: time.sleep(600)
    real(name, folder, namespace)


remote.run_probe = run_probe
""",
        points=6.0,
        note="was stopped at the limit",
        twin="import torch\ntorch.set_num_threads(2)\ntorch.manual_seed(0)",
    ),
    Attack(
        "o29_replaced_codec",
        "probe",
        "to replace the codec and the probe's call in place",
        "0",
        TOOLS
        + """
from segedu.teaching.checks import codec, probes
codec.pack = lambda outcome, real=codec.pack: real({"value": True, "arguments": [0]})
probes.call = lambda function, case: {"value": np.ones(4), "arguments": case["args"]}
remote.PROBES["call"] = probes.call
remote.write_files = lambda folder, stem, files, real=remote.write_files: real(folder, stem, files)
""",
        levels=EVERYWHERE,
        twin="from segedu.teaching.checks import outcomes\nprint(outcomes.describe(3))",
    ),
    Attack(
        "n31_atexit",
        "probe",
        "to change files when the process ends",
        "0: it is killed, not asked to end",
        TOOLS
        + """
import atexit


def late():
    for name in NAMES:
        for i in range(4):
            plant(name, i, value(1))
    open("@BAIT@/late", "w").write("late")


atexit.register(late)
""",
        twin="import atexit\natexit.register(print, 'bye')",
    ),
]
