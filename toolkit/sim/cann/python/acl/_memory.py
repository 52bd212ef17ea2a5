"""Device and host memory: real memory of this process, with a register of who has what.

Sizes are rounded up as the real ``aclrtMalloc`` does (hicann/runtime ``src/acl/aclrt_impl/memory.cpp``:
to multiples of 32 after adding 32 bytes of alignment and 32 of padding), and what a chip gives away is
limited to what it has.

RC mode: the program shares the chip's memory, pointers are plain addresses. EP mode: device memory is not the
host's; its pointers are shifted by ``EP_SHIFT``, so that a program that touches them without
``acl.rt.memcpy`` dies with a segmentation fault, as on hardware.
"""

import bisect
import ctypes
import mmap
import os
import signal
import weakref

from . import _errors as errors
from . import _problems
from ._arena import Arena
from ._state import BOARD, LOCK, PROBLEMS

ALIGN = 32
PADDING = 32
EP_SHIFT = 0 if BOARD.is_rc else 0x400000000000
HOST = "host"
DEVICE = "device"
_SIZE_LIMIT = 1 << 64

# Twice what the chips have: room for pieces that do not fit.
_arenas = {DEVICE: Arena(2 * BOARD.memory_bytes * BOARD.chips + (64 << 20)), HOST: Arena(16 << 30)}
move = ctypes.memmove
fill = ctypes.memset
read = ctypes.string_at
_PAGE = mmap.PAGESIZE
_MS_ASYNC = 1
_msync = ctypes.CDLL(None).msync
_msync.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_insort, _left, _right = bisect.insort, bisect.bisect_left, bisect.bisect_right
_kill, _getpid, _signal, _write = os.kill, os.getpid, signal.signal, os.write


class Allocation(object):
    """One block: ``base`` is what the program sees, ``address`` where it really is."""

    __slots__ = ("address", "base", "device", "place", "size", "space", "charged")

    def __init__(self, space, device, address, base, size, charged):
        self.space, self.device = space, device
        self.address, self.base, self.size, self.charged = address, base, size, charged
        self.place = _problems.where()


_bases = []  # sorted
_blocks = {}
_freed = {}  # base → (size, where it had been allocated)


def rounded(size, padding):
    """Return the bytes that the runtime takes for ``size``, or None where the sum overflows size_t."""
    extra = ALIGN + (PADDING if padding else 0)
    if size + extra >= _SIZE_LIMIT:
        return None
    return (size + extra - 1) // ALIGN * ALIGN


def allocate(space, device, size, charged):
    """Return a block of ``size`` bytes, or None where there is not enough memory."""
    with LOCK:
        if device is not None and device.used + charged > device.total:
            return None
        address = _arenas[space].take(charged)
        if not address:
            return None
        base = address + (EP_SHIFT if space == DEVICE else 0)
        block = Allocation(space, device, address, base, size, charged)
        if device is not None:
            device.used += charged
        _blocks[base] = block
        _insort(_bases, base)
        _freed.pop(base, None)
        return block


def release(block):
    """Give the block back."""
    with LOCK:
        forget(block)
        if len(_freed) >= 4096:
            _freed.clear()
        _freed[block.base] = (block.size, block.place)
        _arenas[block.space].give(block.address, block.charged)


def forget(block):
    """Take the block out of the books; its bytes stay (a view of the program may still look at them)."""
    with LOCK:
        if _blocks.pop(block.base, None) is None:
            return
        del _bases[_left(_bases, block.base)]
        if block.device is not None:
            block.device.used -= block.charged


def exact(base):
    """Return the block that begins at ``base``, or None."""
    return _blocks.get(base)


def was_freed(base):
    """Return ``(size, place)`` of a block that began at ``base`` and was freed, or None."""
    return _freed.get(base)


def find(pointer):
    """Return the block that ``pointer`` points into, or None: memory of the program's own."""
    with LOCK:
        index = _right(_bases, pointer) - 1
        if index < 0:
            return None
        block = _blocks[_bases[index]]
        return block if pointer < block.base + block.charged else None


def all_blocks():
    """Return the blocks that are still there."""
    return list(_blocks.values())


class Span(object):
    """``count`` bytes at ``pointer`` as the program names them, resolved.

    ``address``: where they are. ``block``: the block they are in, or None. ``safe``: how many can be touched
    without leaving that block. ``code``: what the runtime answers when there is no such memory, else 0;
    ``touched`` says how many of the bytes have to be there, if not all.
    """

    __slots__ = ("address", "block", "code", "safe")

    def __init__(self, pointer, count, what, touched=None):
        self.block = block = find(pointer)
        self.address = pointer
        self.safe = count
        self.code = 0
        if block is not None:
            self.address = pointer - block.base + block.address
            room = block.base + block.size - pointer
            if count > room:
                PROBLEMS.add(
                    "{} goes {} bytes past the end of the {} bytes allocated at {}".format(
                        what, count - room, block.size, block.place or "?"
                    )
                )
                self.safe = max(room, 0)
            return
        if count == 0:
            return
        gone = _freed.get(pointer)
        if gone is not None:
            PROBLEMS.add(
                "{} uses memory that was freed ({} bytes, from {})".format(what, gone[0], gone[1] or "?")
            )
            self.safe = 0
            return
        if _was_given(pointer):
            PROBLEMS.add("{} uses memory that is not allocated any more (0x{:x})".format(what, pointer))
            self.safe = 0
            return
        self.safe = _check_bytes(pointer, count, what)
        if not mapped(pointer, self.safe if touched is None else min(touched, self.safe)):
            self.safe = 0
            self.code = errors.fail(
                errors.RT_DRV_INTERNAL_ERROR,
                "EE9999",
                "Inner Error! [drv api] {} failed: no memory of {} bytes at 0x{:x}.".format(what, count, pointer),
            )

    @property
    def on_device(self):
        """Whether it is device memory."""
        return self.block is not None and self.block.space == DEVICE


def _was_given(pointer):
    """Whether ``pointer`` lies where blocks were, though none is there now."""
    return _arenas[DEVICE].gave(pointer - EP_SHIFT) or _arenas[HOST].gave(pointer)


def mapped(address, count):
    """Whether this process has memory at all of these addresses: touching others would be the end of it."""
    if address + count >= 1 << 63 or any(arena.keeps(address, count) for arena in _arenas.values()):
        return False
    start = address // _PAGE * _PAGE
    # Without a flag to write anything back it only tells whether the pages are there.
    return _msync(start, address + count - start, _MS_ASYNC) == 0


# bytes objects whose address the program asked for lately: {address: length}
_bytes_seen = {}
_BYTES_OFFSET = bytes.__basicsize__ - 1
_BYTES_TYPE = id(bytes)
_field = ctypes.c_ssize_t.from_address


def saw_bytes(address, length):
    """``acl.util.bytes_to_ptr`` gave out the address of a bytes object's buffer."""
    if len(_bytes_seen) >= 32:
        _bytes_seen.pop(next(iter(_bytes_seen)))
    _bytes_seen.pop(address, None)
    _bytes_seen[address] = length


# NumPy arrays whose address the program asked for lately: {address: (weak reference to the owner of the memory,
# bytes from there to its end)}
_arrays_seen = {}


def saw_array(address, array):
    """``acl.util`` gave out the address of a NumPy array."""
    _bytes_seen.pop(address, None)  # another kind of object lives there now
    owner = array
    while isinstance(owner.base, type(owner)):
        owner = owner.base
    if owner.base is None and owner.flags.c_contiguous:
        if len(_arrays_seen) >= 32:
            _arrays_seen.pop(next(iter(_arrays_seen)))
        _arrays_seen.pop(address, None)
        _arrays_seen[address] = weakref.ref(owner), owner.ctypes.data + owner.nbytes - address


def _check_array(pointer, count, what):
    """The same for the NumPy array at ``pointer``, if there is one: an array that is gone is nothing to say
    about, other memory of the program may be there."""
    owner, room = _arrays_seen[pointer]
    if owner() is None:
        del _arrays_seen[pointer]
        return count
    if count > room:
        PROBLEMS.add("{} goes {} bytes past the end of a NumPy array".format(what, count - room))
        return room
    return count


def _check_bytes(pointer, count, what):
    """Return how many of ``count`` bytes lie inside the bytes object at ``pointer`` (all, if it is none).

    The most frequent slip with pyACL: ``bytes_to_ptr(array.tobytes())`` without keeping the object.
    """
    if pointer in _arrays_seen:
        return _check_array(pointer, count, what)
    offset, length = 0, _bytes_seen.get(pointer)
    if length is None:
        for begin, size in _bytes_seen.items():
            if begin < pointer < begin + size:
                offset, length = pointer - begin, size
                break
        else:
            return count
    pointer -= offset
    start = pointer - _BYTES_OFFSET
    # A freed object's first word is no count any more: the allocator keeps its list of free blocks there.
    alive = (
        mapped(start, 24)  # the memory of a large one goes back to the operating system
        and 0 < _field(start).value <= 0xFFFFFFFF
        and _field(start + 8).value == _BYTES_TYPE
        and _field(start + 16).value == length
    )
    if not alive:
        del _bytes_seen[pointer]
        if offset:
            return count  # anything may be there now
        PROBLEMS.add(
            "{} uses the address of a bytes object that is gone; keep the object with its pointer".format(
                what
            )
        )
        return count
    if count > length - offset:
        PROBLEMS.add(
            "{} goes {} bytes past the end of a bytes object of {}".format(what, count + offset - length, length)
        )
        return length - offset
    return count


def crash(reason):
    """Die as the real module does when it touches memory that is not there: SIGSEGV, with the reason on
    stderr."""
    PROBLEMS.add(reason)
    _write(2, ("simulated segmentation fault: " + reason + "\n").encode("utf-8", "replace"))
    _signal(signal.SIGSEGV, signal.SIG_DFL)
    _kill(_getpid(), signal.SIGSEGV)


def host_address(pointer, count, what):
    """Return where the host may read or write ``count`` bytes, None where there is no such memory.

    Dies if that is device memory of an EP board.
    """
    span = Span(pointer, count, what)
    if EP_SHIFT and span.on_device:
        crash("{} touches device memory from the host; copy it with acl.rt.memcpy".format(what))
    if span.code or not mapped(span.address, count):
        PROBLEMS.add("{}: no memory of {} bytes at 0x{:x}; hardware would crash".format(what, count, pointer))
        return None
    return span.address


def out_of_memory(size, device):
    """Store the message about ``size`` bytes that are not to be had."""
    free = device.total - device.used if device is not None else 0
    return errors.fail(
        errors.RT_MEMORY_ALLOCATION,
        "EL0004",
        "Failed to allocate memory. Possible Cause: Available memory is insufficient: "
        "{} bytes asked, {} free.".format(
            size, free
        ),
    )
