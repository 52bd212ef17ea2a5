"""Address space that belongs to the simulated chips alone.

Blocks are cut out of one large mapping which costs nothing until it is touched. So an address that was
device memory once never becomes memory of the program itself, and using freed memory is always told from
using one's own.
"""

import collections
import ctypes

_libc = ctypes.CDLL(None, use_errno=True)
_map = _libc.mmap
_map.restype = ctypes.c_void_p
_map.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_advise = _libc.madvise
_advise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]

_READ_WRITE = 3
_PRIVATE_ANONYMOUS_NORESERVE = 0x02 | 0x20 | 0x4000
_FAILED = ctypes.c_void_p(-1).value
_DONT_NEED = 4
_ALIGN = 512  # what the runtime aligns device addresses to
_PAGE = 1 << 16  # the largest page of the machines that this runs on
_RETURN_FROM = 4 << 20  # blocks of this size go back to the operating system when freed
_REST = 4  # so many freed blocks of one size lie idle before the first is used again


class Arena(object):
    """A range of addresses and what is free in it."""

    def __init__(self, size):
        self._size = size
        self._start = self._next = self._end = 0
        self._idle = {}  # size → addresses, oldest first

    def _open(self):
        size = self._size
        while size >= 1 << 24:
            address = _map(None, size, _READ_WRITE, _PRIVATE_ANONYMOUS_NORESERVE, -1, 0)
            if address not in (None, _FAILED):
                self._start = self._next = address
                self._end = address + size
                return
            size //= 2  # a limit on address space: then with less

    def gave(self, address):
        """Whether ``address`` lies in what was handed out once."""
        return self._start <= address < self._next

    def keeps(self, address, count):
        """Whether some of these bytes lie in what was never handed out."""
        return address < self._end and address + count > self._next

    def take(self, size):
        """Return the address of ``size`` bytes, or 0."""
        if not self._end:
            self._open()
        size = (size + _ALIGN - 1) // _ALIGN * _ALIGN
        idle = self._idle.get(size)
        if idle and len(idle) > _REST:
            return idle.popleft()
        if self._next + size <= self._end:
            address = self._next
            self._next += size
            return address
        return idle.popleft() if idle else self._join(size)

    def give(self, address, size):
        """Put a block back."""
        size = (size + _ALIGN - 1) // _ALIGN * _ALIGN
        if size >= _RETURN_FROM:
            start, end = (address + _PAGE - 1) // _PAGE * _PAGE, (address + size) // _PAGE * _PAGE
            _advise(start, end - start, _DONT_NEED)
        self._idle.setdefault(size, collections.deque()).append(address)

    def _join(self, size):
        """All addresses were used once: join neighbours that are free and look for a place."""
        pieces = []
        for address, length in sorted((a, n) for n, addresses in self._idle.items() for a in addresses):
            if pieces and pieces[-1][0] + pieces[-1][1] == address:
                pieces[-1][1] += length
            else:
                pieces.append([address, length])
        self._idle = {}
        found = 0
        for address, length in pieces:
            if not found and length >= size:
                found, address, length = address, address + size, length - size
            if length:
                self._idle.setdefault(length, collections.deque()).append(address)
        return found
