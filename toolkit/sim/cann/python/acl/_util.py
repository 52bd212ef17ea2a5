"""acl.util: addresses of Python objects, threads (hicann/runtime ``python/pyACL/util``)."""

import ctypes
import threading
import traceback
import warnings

from . import _memory as memory
from ._args import Registry
from ._state import BOARD

api = Registry("acl.util")

_BYTES_OFFSET = bytes.__basicsize__ - 1  # a bytes object's characters follow its header


@api("bytes_to_ptr", "O", since="5.0.3")
def bytes_to_ptr(value):
    """The address of a bytes object's buffer; the caller keeps the object alive."""
    if not isinstance(value, bytes):
        raise ValueError("needs an byte as argument")
    address = id(value) + _BYTES_OFFSET
    memory.saw_bytes(address, len(value))
    return address


@api("ptr_to_bytes", "kk", since="5.0.3")
def ptr_to_bytes(pointer, size):
    """A copy of ``size`` bytes of memory as a bytes object."""
    if size == 0:
        return b""
    if size >> 63:
        raise ValueError("convert c pointer to bytes failed")
    if pointer == 0:
        # PyBytes_FromStringAndSize(NULL, n): a bytes object with whatever was there.
        return bytes(size)
    address = memory.host_address(pointer, size, "acl.util.ptr_to_bytes")
    if address is None:
        raise ValueError("convert c pointer to bytes failed")
    return memory.read(address, size)


def _warn(old, new):
    if not BOARD.cann_at_least("5.0.3"):
        return  # there is nothing else to use yet
    # Level 4: the line of the program, behind the parser and this function.
    warnings.warn(
        "acl.util.{} will be deprecated. Please use acl.util.{} instead.".format(old, new), Warning, 4
    )


def _array(value):
    import numpy

    if not isinstance(value, numpy.ndarray):
        raise ValueError("needs an ndarray as argument")
    return numpy


@api("numpy_to_ptr", "O")
def numpy_to_ptr(array):
    """The address of an array's first element."""
    _warn("numpy_to_ptr", "bytes_to_ptr")
    _array(array)
    if not array.flags.c_contiguous:
        warnings.warn(
            "The input ndarray is discontiguous. Please use acl.util.bytes_to_ptr instead.", Warning, 3
        )
    memory.saw_array(array.ctypes.data, array)
    return array.ctypes.data


@api("numpy_contiguous_to_ptr", "O")
def numpy_contiguous_to_ptr(array):
    """(address, the array it belongs to): a copy if the array is not contiguous."""
    _warn("numpy_contiguous_to_ptr", "bytes_to_ptr")
    numpy = _array(array)
    contiguous = numpy.ascontiguousarray(array).reshape(array.shape)
    memory.saw_array(contiguous.ctypes.data, contiguous)
    return contiguous.ctypes.data, contiguous


# NPY_TYPES
_NUMPY = {
    0: "bool", 1: "int8", 2: "uint8", 3: "int16", 4: "uint16", 5: "int32", 6: "uint32", 7: "int64", 8:
    "uint64", 9: "int64", 10: "uint64", 11: "float32", 12: "float64", 14: "complex64",
    15: "complex128", 23: "float16",
}  # fmt: skip


@api("ptr_to_numpy", "kOi")
def ptr_to_numpy(pointer, shape, numpy_type):
    """An array that is a view of memory: no copy, writeable."""
    _warn("ptr_to_numpy", "ptr_to_bytes")
    import numpy

    if not isinstance(shape, tuple):
        raise ValueError("shape is empty")
    if not all(isinstance(dim, int) for dim in shape):
        raise TypeError("the second argument is not list of int")
    if numpy_type not in _NUMPY:
        raise ValueError("Invalid data-type for array")
    data_type = numpy.dtype(_NUMPY[numpy_type])
    count = 1
    for dim in shape:
        count *= dim
    if count <= 0:
        return numpy.empty(shape, data_type)
    size = count * data_type.itemsize
    if pointer == 0:
        return numpy.empty(shape, data_type)  # NumPy allocates when the address is null
    address = memory.host_address(pointer, size, "acl.util.ptr_to_numpy")
    if address is None:
        raise ValueError("there is no memory of {} bytes at 0x{:x}".format(size, pointer))
    return numpy.frombuffer((ctypes.c_char * size).from_address(address), data_type).reshape(shape)


_threads = {}  # type: dict
_failures = {}  # type: dict


@api("start_thread", "OO")
def start_thread(function, arguments):
    """(thread id, ret): ``function(arguments)`` in a new thread; without argument if that is None."""
    if not callable(function):
        raise TypeError("parameter must be callable")

    def run():
        try:
            if arguments is None:
                function()
            else:
                function(arguments)
        except BaseException as error:
            traceback.print_exc()
            _failures[threading.get_ident()] = "exception={},msg=thread call failed;".format(
                type(error).__name__
            )

    thread = threading.Thread(target=run, name="acl-thread")
    thread.daemon = True  # a pthread does not keep the process alive
    thread.start()
    _threads[thread.ident] = thread
    return thread.ident, 0


@api("stop_thread", "K")
def stop_thread(thread_id):
    """Wait for a thread's end; RuntimeError if it raised something."""
    thread = _threads.pop(thread_id, None)
    if thread is None:
        return 3  # ESRCH
    thread.join()
    failure = _failures.pop(thread_id, None)
    if failure is not None:
        raise RuntimeError(failure)
    return 0
