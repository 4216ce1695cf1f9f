"""What a student may be told of words and numbers that their own process chose.

A cell can read the hidden inputs of its exercise. Whatever it may put into the feedback freely, such as the name of a
class, the shape of an array or the length of a text, it could use to carry those inputs out. So names come from lists
of ours, shapes are told by their rank, and long numbers and texts are not told at all.
"""

from __future__ import annotations

import builtins
import re

MAX_DIGITS = 6  # in one go
MANY = 10  # lengths and indices from here on are not told
_SMALL, _LARGE = 1e-3, 1e6  # sizes of numbers that are told, to two significant digits
_NUMBER = re.compile(r"(?<![\w.\[])-?\d+(?:\.\d+)?(?:e[+-]?\d+)?(?![\w\]]|\.\d)")
# of a cell beside the exercises: each of several may fail, so few classes are told apart
_COMMON = frozenset(
    """AttributeError FileNotFoundError ImportError ModuleNotFoundError NameError SyntaxError TypeError
    ValueError ZeroDivisionError""".split()
)

# exceptions of Python's own library, of the libraries that labs use, and of the grader's stubs
_ERRORS = frozenset(
    """AxisError BadZipFile BrokenExecutor CalledProcessError CancelledError ContextualVersionConflict DataError
    DecompressionBombError DivisionByZero DuplicateError EinopsError Empty EmptyDataError Error
    FrozenInstanceError Full HTTPError IncompleteRead InconsistentVersionWarning IndexingError InputMismatch
    InvalidFileException InvalidOperation InvalidStateError JSONDecodeError LinAlgError LinAlgWarning MagicError
    NotFittedError NotHere OutOfMemoryError PILError ParserError PickleError PicklingError QhullError
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
_FIXED = (
    "an int of more than 64 bits",
    "a dict whose keys are not all strings",
    "a value nested more than 16 levels deep",
)


def is_builtin_exception(name: str) -> bool:
    """Is this the name of an exception of Python itself?"""
    found = getattr(builtins, name, None) if name.isidentifier() else None
    return isinstance(found, type) and issubclass(found, BaseException)


def error_name(name: str) -> str:
    """The class of an exception, where it is one of Python or of a library: others are the student's own words.

    Args:
        name: from the student's process.

    Returns:
        The name, or "an error of another class".

    >>> error_name("ZeroDivisionError"), error_name("Abcdefghij")
    ('ZeroDivisionError', 'an error of another class')
    """
    return name if name in _ERRORS or is_builtin_exception(name) else "an error of another class"


def helper_error_name(name: str) -> str:
    """The class of an exception in a cell beside the exercises, where it is one of the most common.

    Args:
        name: from the student's process.

    Returns:
        The name, or "an error of another class".
    """
    return name if name in _COMMON else "an error of another class"


def refused_words(text: str) -> str:
    """What a function returned and no outcome can hold, in words of ours.

    Args:
        text: of the probe, or of whoever wrote in its place.

    Returns:
        A noun with its article.

    >>> refused_words("a generator"), refused_words("an Input_of_mine"), refused_words("an array of dtype <U31")
    ('a generator', 'an object of another class', 'an array of another dtype')
    """
    if text in _FIXED:
        return text
    if match := re.fullmatch(r"an array of dtype (\S+)", text):
        return text if match[1] in _DTYPES else "an array of another dtype"
    if match := re.fullmatch(r"a tensor of dtype (\S+) and layout (\S+)", text):
        return text if {match[1], match[2]} <= _DTYPES else "a tensor of another kind"
    if match := re.fullmatch(r"(\w+)(, where a torch\.nn\.Module is expected| from forward, where a tensor .*)", text):
        where = match[2] if match[2].startswith(",") else " from forward, where a tensor is expected"
        return f"{match[1] if _is_class(match[1]) else 'an object of another class'}{where}"
    match = re.fullmatch(r"an? (\w+)", text)
    return text if match and _is_class(match[1]) else "an object of another class"


def _is_class(name: str) -> bool:
    return name in _CLASSES or isinstance(getattr(builtins, name, None), type)


def reason(error: Exception) -> str:
    """Why bytes could not be read, without the numbers that stand in them."""
    return re.sub(r"\d[\d.,]*", "...", str(error))


def told(line: str) -> str:
    """A sentence on what a function returned, without what could hold a case: texts, shapes, lengths, long numbers.

    Args:
        line: of the judge.

    Returns:
        The sentence; what the function returned has two significant digits in it, and no exponent.

    >>> told("On case 1 of core: the result has shape (17, 4).")
    'On case 1 of core: the result has another shape, of rank 2.'
    >>> told("On the edge: the result[3] is 2.5, which is not right (7 of 9 values differ).")
    'On the edge: the result[3] is 2.5, which is not right (several values differ).'
    >>> told("On the edge: the result is 17.1234, which is not right."), told("the result is 3.2e-100")
    ('On the edge: the result is about 17, which is not right.', 'the result is nearly 0')
    """
    line = re.sub(r"the str .*", "a text.", line, flags=re.DOTALL)
    line = re.sub(r": keys \[.*", ".", line, flags=re.DOTALL)
    line = re.sub(r"\bhas shape \(([\d, ]*)\)", lambda m: f"has another shape, of rank {_rank(m[1])}", line)
    line = re.sub(r"\bof shape \(([\d, ]*)\)", lambda m: f"of rank {_rank(m[1])}", line)
    line = re.sub(r"\b(\d+) of (\d+) values differ", lambda m: f"{_how_many(m[1], m[2])} values differ", line)
    line = re.sub(r"\b(list|tuple|dict) of (\d+)", lambda m: m[0] if int(m[2]) < MANY else m[1], line)
    line = re.sub(r"\[[\d, ]*\d{2,}[\d, ]*\]", "[...]", line)
    case = line[: line.find(": ") + 1]  # the name of a case is ours
    return re.sub(rf"\d{{{MAX_DIGITS + 1},}}", "...", case + _NUMBER.sub(_rounded, line[len(case) :]))


def _rounded(match: re.Match) -> str:
    """A number with two significant digits: each more could carry a digit of a hidden input."""
    value = float(match[0])
    short = float(f"{value:.2g}")
    if value and not _SMALL <= abs(short) < _LARGE:
        return "nearly 0" if abs(value) < 1 else "a very large number"
    return match[0] if short == value else f"about {short:g}" if abs(short) < 1e5 else f"about {short:.0f}"


def _rank(sides: str) -> int:
    return sum(bool(side.strip()) for side in sides.split(","))


def _how_many(wrong: str, count: str) -> str:
    return "all" if wrong == count else "several"
