"""Redact what feedback says about names and values that the student's own process chose.

A cell can read the hidden inputs of its exercise. Anything that it may put into the feedback freely, such as a class
name, an array shape or the length of a text, could carry those inputs out of the sandbox. Class names therefore come
from fixed lists, shapes are reported as ranks, and long numbers and texts are not reported at all.
"""

from __future__ import annotations

import builtins
import re

MAX_DIGITS = 6  # in a row
MIN_HIDDEN_LENGTH = 10  # lengths and indices from here on are not reported
_SMALLEST_SHOWN, _LARGEST_SHOWN = 1e-3, 1e6  # range of magnitudes that are reported, with two significant digits
_NUMBER = re.compile(r"(?<![\w.\[])-?\d+(?:\.\d+)?(?:e[+-]?\d+)?(?![\w\]]|\.\d)")
# errors of a student's own cells: several such cells may fail, so only few classes are distinguished
_COMMON_ERRORS = frozenset(
    """AttributeError FileNotFoundError ImportError ModuleNotFoundError NameError SyntaxError TypeError
    ValueError ZeroDivisionError""".split()
)

# exceptions of the standard library, of the libraries that labs use, and of the grader's stubs
_LIBRARY_ERRORS = frozenset(
    """AxisError BadZipFile BrokenExecutor CalledProcessError CancelledError ContextualVersionConflict DataError
    DecompressionBombError DivisionByZero DuplicateError EinopsError Empty EmptyDataError Error
    FrozenInstanceError Full HTTPError IncompleteRead InconsistentVersionWarning IndexingError InputMismatch
    InvalidFileException InvalidOperation InvalidStateError JSONDecodeError LinAlgError LinAlgWarning MagicError
    NotAvailableError NotFittedError OutOfMemoryError PILError ParserError PickleError PicklingError QhullError
    SameFileError StatisticsError StdinNotImplementedError TclError TimeoutExpired TokenError TraitError
    TypingError URLError UnidentifiedImageError UnpicklingError UnsupportedOperation UsageError
    VisibleDeprecationWarning error gaierror timeout""".split()
)
# classes that functions return by mistake
_CLASSES = frozenset(
    """Array Axes AxesImage BatchNorm2d BCELoss Conv2d Counter CrossEntropyLoss DataFrame DataLoader Decimal Ellipsis
    Figure Fraction Generator Image Linear MSELoss MaskedArray Module ModuleList NoneType NotImplementedType OrderedDict
    Parameter ParameterList Path PathCollection PosixPath ReLU RandomState Sequential Series Size Softmax Subset Tensor
    Variable builtin_function_or_method chain cycle coroutine csr_array csr_matrix datetime date defaultdict deque
    device dict_items dict_keys dict_values dtype finfo function generator iinfo list_iterator map matrix method module
    namedtuple ndarray partial product ufunc zip""".split()
)
_DTYPES = frozenset(
    """object complex64 complex128 complex256 datetime64 timedelta64 torch.complex32 torch.complex64 torch.complex128
    torch.qint8 torch.quint8 torch.qint32 torch.float16 torch.bfloat16 torch.float32 torch.float64 torch.int64
    torch.bool torch.strided torch.sparse_coo torch.sparse_csr""".split()
)
_FIXED_REFUSALS = (
    "an int of more than 64 bits",
    "a dict whose keys are not all strings",
    "a value nested more than 16 levels deep",
)


def is_builtin_exception(name: str) -> bool:
    """Whether this is the name of a built-in exception."""
    value = getattr(builtins, name, None) if name.isidentifier() else None
    return isinstance(value, type) and issubclass(value, BaseException)


def error_name(name: str) -> str:
    """Return the class name of an exception of Python or a known library; other names are free text of the student.

    >>> error_name("ZeroDivisionError"), error_name("Abcdefghij")
    ('ZeroDivisionError', 'an error of another class')
    """
    return name if name in _LIBRARY_ERRORS or is_builtin_exception(name) else "an error of another class"


def helper_error_name(name: str) -> str:
    """Return the class name of an exception in a student's own cell, if it is one of the most common ones."""
    return name if name in _COMMON_ERRORS else "an error of another class"


def redact_refusal(text: str) -> str:
    """Describe a returned object that no outcome can hold, using known class and dtype names only.

    Args:
        text: the probe's description, or whatever the student's process wrote in its place.

    >>> redact_refusal("a generator"), redact_refusal("an Input_of_mine"), redact_refusal("an array of dtype <U31")
    ('a generator', 'an object of another class', 'an array of another dtype')
    """
    if text in _FIXED_REFUSALS:
        return text
    if match := re.fullmatch(r"an array of dtype (\S+)", text):
        return text if match[1] in _DTYPES else "an array of another dtype"
    if match := re.fullmatch(r"a tensor of dtype (\S+) and layout (\S+)", text):
        return text if {match[1], match[2]} <= _DTYPES else "a tensor of another kind"
    if match := re.fullmatch(r"(\w+)(, where a torch\.nn\.Module is expected| from forward, where a tensor .*)", text):
        context = match[2] if match[2].startswith(",") else " from forward, where a tensor is expected"
        return f"{match[1] if _is_class(match[1]) else 'an object of another class'}{context}"
    match = re.fullmatch(r"an? (\w+)", text)
    return text if match and _is_class(match[1]) else "an object of another class"


def _is_class(name: str) -> bool:
    return name in _CLASSES or isinstance(getattr(builtins, name, None), type)


def redact_error(error: Exception) -> str:
    """Say why bytes could not be read, without the numbers in the message."""
    return re.sub(r"\d[\d.,]*", "...", str(error))


def redact_line(line: str) -> str:
    """Remove from a judge's sentence what could carry a hidden case: texts, shapes, lengths and long numbers.

    Returned values keep two significant digits and no exponent.

    >>> redact_line("On case 1 of core: the result has shape (17, 4).")
    'On case 1 of core: the result has another shape, of rank 2.'
    >>> redact_line("On the edge: the result[3] is 2.5, which is not right (7 of 9 values differ).")
    'On the edge: the result[3] is 2.5, which is not right (several values differ).'
    >>> redact_line("On the edge: the result is 17.1234, which is not right."), redact_line("the result is 3.2e-100")
    ('On the edge: the result is about 17, which is not right.', 'the result is nearly 0')
    """
    line = re.sub(r"the str .*", "a text.", line, flags=re.DOTALL)
    line = re.sub(r": keys \[.*", ".", line, flags=re.DOTALL)
    line = re.sub(r"\bhas shape \(([\d, ]*)\)", lambda m: f"has another shape, of rank {_rank(m[1])}", line)
    line = re.sub(r"\bof shape \(([\d, ]*)\)", lambda m: f"of rank {_rank(m[1])}", line)
    line = re.sub(r"\b(\d+) of (\d+) values differ", lambda m: f"{_how_many(m[1], m[2])} values differ", line)
    line = re.sub(r"\b(list|tuple|dict) of (\d+)", lambda m: m[0] if int(m[2]) < MIN_HIDDEN_LENGTH else m[1], line)
    line = re.sub(r"\[[\d, ]*\d{2,}[\d, ]*\]", "[...]", line)
    prefix = line[: line.find(": ") + 1]  # the name of a case comes from the exercise, not from the student
    return re.sub(rf"\d{{{MAX_DIGITS + 1},}}", "...", prefix + _NUMBER.sub(_rounded, line[len(prefix) :]))


def _rounded(match: re.Match) -> str:
    """Round a number to two significant digits: every further digit could carry a digit of a hidden input."""
    value = float(match[0])
    rounded = float(f"{value:.2g}")
    if value and not _SMALLEST_SHOWN <= abs(rounded) < _LARGEST_SHOWN:
        return "nearly 0" if abs(value) < 1 else "a very large number"
    return match[0] if rounded == value else f"about {rounded:g}" if abs(rounded) < 1e5 else f"about {rounded:.0f}"


def _rank(sizes: str) -> int:
    return sum(bool(size.strip()) for size in sizes.split(","))


def _how_many(wrong: str, count: str) -> str:
    return "all" if wrong == count else "several"
