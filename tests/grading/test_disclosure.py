"""What a student's process chose is told in words of ours, or not at all."""

from __future__ import annotations

import numpy as np
import pytest

from segedu.grading.gradebook.atomic_files import MAX_CELL, as_text
from segedu.grading.judging import compare
from segedu.grading.judging.disclosure import error_name, helper_error_name, redact_error, redact_line, redact_refusal
from segedu.grading.judging.examine import MAX_HELPER_NOTES, _helper_notes
from segedu.grading.sandbox.kernel_pool import StepResult
from segedu.teaching.checks.outcomes import NotPlain, first_difference, plain


@pytest.mark.parametrize(
    "name", ["ValueError", "ZeroDivisionError", "LinAlgError", "NotAvailableError", "OutOfMemoryError", "error"]
)
def test_exceptions_of_python_and_of_libraries_have_their_names(name):
    assert error_name(name) == name


@pytest.mark.parametrize("name", ["Bcdefghij", "MyError", "x", "print", "", "ValueError\n", "__build_class__", "int"])
def test_other_names_are_the_student_s_own_words(name):
    assert error_name(name) == "an error of another class"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (iter([]), "a list_iterator"), ({1: 2}, "a dict whose keys are not all strings"), ({1}, "a set"),
        (2**70, "an int of more than 64 bits"), (np.array([None]), "an array of dtype object"),
        (np.array(["abc"]), "an array of another dtype"), (type("Abcdefghij", (), {})(), "an object of another class"),
        (1j, "a complex"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_named_by_its_class(value, words):
    with pytest.raises(NotPlain) as error:
        plain(value)
    assert redact_refusal(str(error.value)) == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Linear, where a torch.nn.Module is expected", "Linear, where a torch.nn.Module is expected"),
        ("Abcdefghij, where a torch.nn.Module is expected", "an object of another class, where a torch.nn.Module is expected"),
        ("tuple from forward, where a tensor abcdefghij", "tuple from forward, where a tensor is expected"),
        ("a tensor of dtype torch.complex64 and layout torch.strided", "a tensor of dtype torch.complex64 and layout torch.strided"),
        ("a tensor of dtype abcdef and layout torch.strided", "a tensor of another kind"),
        ("a set of many words", "an object of another class"), ("", "an object of another class"),
    ],
)  # fmt: skip
def test_words_of_a_forged_outcome_are_replaced(text, words):
    assert redact_refusal(text) == words


@pytest.mark.parametrize("shape", [(0, 123456, 654321), (0, 654321, 123456)])
def test_two_shapes_of_one_rank_are_told_alike(shape):
    got, want = {"value": np.zeros(shape)}, {"value": np.zeros((4, 4))}
    assert redact_line(first_difference(want, got, 1e-6).safe) == "the result has another shape, of rank 3"
    other = redact_line(first_difference({"value": [1, "x"]}, got, 1e-6).safe)
    assert other == "the result is a float array of rank 3"


def test_lengths_places_and_counts_are_bounded():
    long, short = {"value": [None] * 1234}, {"value": [None, 1]}
    assert redact_line(first_difference({"value": (1, "x", 2)}, long, 0.0).safe) == "the result is a list"
    assert redact_line(first_difference({"value": (1, "x", 2)}, short, 0.0).safe) == "the result is a list of 2"
    one = np.zeros((40, 40))
    two = one.copy()
    two[31, 7] = two[32, 9] = 0.5
    words = redact_line(first_difference({"value": one}, {"value": two}, 0.0).safe)
    assert words == "the result[...] is 0.5, which is not right (several values differ)"
    assert redact_line(first_difference({"value": one}, {"value": one + 1}, 0.0).safe).endswith("(all values differ)")


@pytest.mark.parametrize(
    ("number", "words"),
    [
        ("2.5", "2.5"), ("-0.25", "-0.25"), ("0", "0"), ("40", "40"), ("0.0317251", "about 0.032"), ("517", "about 520"),
        ("-123456", "about -120000"), ("3.25017e-100", "nearly 0"), ("-3.2e-05", "nearly 0"), ("3.25e+07", "a very large number"),
        ("0.00100123", "about 0.001"), ("999999", "a very large number"), ("nan", "nan"), ("inf", "inf"),
    ],
)  # fmt: skip
def test_a_number_that_a_function_returned_has_two_digits(number, words):
    line = "On 128 points of 17 features: the result[3] is {}, which is not right (several values differ)."
    assert redact_line(line.format(number)) == line.format(words)
    assert redact_line(f"the result is the float {number}.") == f"the result is the float {words}."


def test_few_classes_of_errors_are_told_of_cells_beside_the_exercises():
    names = ["NameError", "ModuleNotFoundError", "TabError", "Abc"]
    steps = [StepResult(f"cell {i}", "helper", "error", name) for i, name in enumerate(names)]
    _, details = _helper_notes(steps, None)
    other = "an error of another class"
    assert [note.partition(" with ")[2] for note in details] == ["NameError", "ModuleNotFoundError", other, other]
    assert helper_error_name("ValueError") == "ValueError"


def test_no_number_of_unreadable_bytes_is_told():
    assert (
        redact_error(ValueError("its file, which holds 81726354 bytes, 1.5 of 3"))
        == "its file, which holds ... bytes, ... of ..."
    )


def test_helper_notes_are_few_however_many_cells_fail():
    bad = [StepResult(f"cell {i}", "helper", "error", f"Odd{'x' * (i % 30)}") for i in range(1500)]
    told, notes = _helper_notes(bad, None)
    assert len(notes) == MAX_HELPER_NOTES + 1 and notes[-1] == "and more cells did not end well"
    assert {note.partition(" stopped ")[2] for note in notes[:-1]} == {"with an error of another class"}
    assert _helper_notes(bad[:5], None)[1] == notes[:5]


def test_a_student_is_told_how_many_cells_failed_but_not_which():
    """The position of a failing cell and the class of its error are the student's choice, and could hold an input."""
    first = [StepResult(f"cell {i}", "helper", "error", "ValueError") for i in range(1500)]
    other = [StepResult(f"cell {7 * i}", "helper", "error", "KeyError") for i in range(1500)]
    for count in (1, 5, 6, 1500):
        told = _helper_notes(first[:count], None)[0]
        assert told == _helper_notes(other[:count], None)[0] and len(told) == 1
    assert _helper_notes(first[:6], None)[0] == _helper_notes(first, None)[0]
    assert _helper_notes([], None) == ([], [])


@pytest.mark.parametrize("text", ["x" * 200_000, ";=" * 60_000, "=" + "x" * 40_000])
def test_no_cell_of_a_table_is_longer_than_a_spreadsheet_reads(text):
    assert len(as_text(text)) <= MAX_CELL < 32_767 and as_text(text).endswith("(and more)")
    assert as_text("x" * 9) == "x" * 9


def test_compare_uses_these_words():
    assert compare.error_name is error_name
