"""How the real module parses arguments, redone in Python.

The C++ wrappers (hicann/runtime ``python/pyACL``) are METH_VARARGS functions which call
``PyArg_ParseTuple`` and, when that fails, replace the message by ``<api name> args parse failed`` and raise
TypeError. So a keyword is always refused, a NumPy integer is refused where the format is ``k`` (an exact
conversion of Python ints) and taken where it is ``i`` (anything with ``__index__``), a negative pointer or
size wraps around, and functions that never look at their arguments take any number of them.
"""

from operator import index
from sys import version_info

_MASK = {"k": (1 << 64) - 1, "K": (1 << 64) - 1, "I": (1 << 32) - 1, "H": (1 << 16) - 1, "B": (1 << 8) - 1}
_RANGE = {"i": (-(1 << 31), (1 << 31) - 1), "h": (-(1 << 15), (1 << 15) - 1), "b": (0, 255)}


class ParseError(Exception):
    """One argument does not fit its format."""


def _pointer(value):
    # PyLong_Check, then PyLong_AsUnsignedLongMask: only int and its subclasses, no overflow check.
    if not isinstance(value, int):
        raise ParseError
    return value if 0 <= value < 18446744073709551616 else int(value) & 18446744073709551615


def _masked(mask):
    def convert(value):
        if isinstance(value, float):
            raise ParseError
        return index(value) & mask

    return convert


def _ranged(low, high):
    def convert(value):
        if isinstance(value, float):
            raise ParseError
        value = index(value)
        if not low <= value <= high:
            raise ParseError
        return value

    return convert


def _text(value):
    if not isinstance(value, str) or "\0" in value:
        raise ParseError
    value.encode("utf-8")  # lone surrogates are refused
    return value


def _number(value):
    if isinstance(value, (str, bytes, bytearray)):
        raise ParseError
    return float(value)


_CONVERT = {"k": _pointer, "s": _text, "f": _number, "O": lambda value: value}
_CONVERT.update((code, _masked(_MASK[code])) for code in "KIHB")
_CONVERT.update((code, _ranged(*_RANGE[code])) for code in "ihb")


def wrap(module, name, formats, implementation, message):
    """Return the function that programs see as ``<module>.<name>``.

    ``formats`` is the string given to PyArg_ParseTuple, or None for a function that ignores its arguments.
    ``message`` is the TypeError's text.
    """
    # CPython puts the module in front of the name where it knows it; the sub-modules' functions have none.
    shown = name if module != "acl" or version_info < (3, 9) else "acl." + name

    if formats is None:

        def function(*args, **keywords):
            if keywords:
                raise TypeError("{}() takes no keyword arguments".format(shown))
            return implementation()

    else:
        required = formats.split("|")[0]
        converters = tuple(_CONVERT[code] for code in formats.replace("|", ""))
        least, most = len(required), len(converters)

        def function(*args, **keywords):
            if keywords:
                raise TypeError("{}() takes no keyword arguments".format(shown))
            if not least <= len(args) <= most:
                raise TypeError(message)
            try:
                values = [convert(value) for convert, value in zip(converters, args)]
            except (ParseError, TypeError, ValueError, OverflowError):
                raise TypeError(message) from None
            return implementation(*values)

    function.__name__ = function.__qualname__ = name
    function.__module__ = module
    function.__doc__ = implementation.__doc__
    return function


class Registry(object):
    """The functions of one sub-module, each with the CANN versions that have it."""

    def __init__(self, module, suffix=""):
        self.module = module
        self._suffix = suffix
        self._entries = []

    def __call__(self, name, formats=None, since="", until="", message=""):
        """Decorator: publish a function as ``<module>.<name>``."""

        def publish(implementation):
            text = message or "{}.{} args parse failed{}".format(self.module, name, self._suffix)
            self._entries.append((name, since, until, wrap(self.module, name, formats, implementation, text)))
            return implementation

        return publish

    def not_simulated(self, names, since=""):
        """Publish ``names`` as functions that say that they are not simulated."""
        for name in names:
            self._entries.append((name, since, "", stub(self.module, name)))

    def install(self, module, board):
        """Put into ``module`` what ``board``'s CANN has."""
        for name, since, until, function in self._entries:
            if (not since or board.cann_at_least(since)) and not (until and board.cann_at_least(until)):
                setattr(module, name, function)


def stub(module, name):
    """Return a function that raises NotImplementedError naming itself."""

    def function(*args, **keywords):
        raise NotImplementedError(
            "{}.{} is not simulated: it exists on hardware only. The simulator runs acl, acl.rt, acl.mdl and "
            "acl.util".format(module, name)
        )

    function.__name__ = function.__qualname__ = name
    function.__module__ = module
    return function
