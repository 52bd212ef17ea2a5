"""acl.rt: memory (hicann/runtime ``python/pyACL/rt/rt_memory.cpp``, rules of
``src/acl/aclrt_impl/memory.cpp``)."""

from . import _errors as errors
from . import _memory as memory
from ._args import Registry
from ._rt_stream import stream_of
from ._state import BOARD, PROBLEMS, need_context

api = Registry("acl.rt")

H2H, H2D, D2H, D2D, DEFAULT, BUFFERED = 0, 1, 2, 3, 4, 5
_SIDES = {
    H2H: (False, False),
    H2D: (True, False),
    D2H: (False, True),
    D2D: (True, True),
    BUFFERED: (True, False),
}
_NAMES = [
    "HOST_TO_HOST",
    "HOST_TO_DEVICE",
    "DEVICE_TO_HOST",
    "DEVICE_TO_DEVICE",
    "DEFAULT",
    "HOST_TO_BUF_TO_DEVICE",
]


def _malloc(size, policy, padding):
    context, code = need_context()
    if code:
        return 0, code
    if size == 0:
        return 0, errors.value(0, "size", "size must be greater than zero")
    if policy in (6, 7):
        padding = False  # 1-GB pages are not padded
    charged = memory.rounded(size, padding)
    if charged is None:
        return 0, errors.inner(errors.INVALID_PARAM, "size={} exceeds the maximum.".format(size))
    block = memory.allocate(memory.DEVICE, context.device, size, charged)
    if block is None:
        return 0, memory.out_of_memory(charged, context.device)
    return block.base, 0


@api("malloc", "ki")
def malloc(size, policy):
    """(pointer, ret): ``size`` bytes of device memory."""
    return _malloc(size, policy, True)


@api("malloc_cached", "ki")
def malloc_cached(size, policy):
    """(pointer, ret): the same, cached."""
    return _malloc(size, policy, True)


@api("malloc_align32", "ki", since="7.0")
def malloc_align32(size, policy):
    """(pointer, ret): the same, without the 32 bytes of padding."""
    return _malloc(size, policy, False)


@api("malloc_host", "k")
def malloc_host(size):
    """(pointer, ret): ``size`` bytes of host memory (in RC mode the chip's own)."""
    context, code = need_context()
    if code:
        return 0, code
    if size == 0:
        return 0, errors.value(0, "size", "size must be greater than zero")
    device = context.device if BOARD.is_rc else None
    block = memory.allocate(memory.HOST, device, size, size)
    if block is None:
        return 0, memory.out_of_memory(size, device)
    return block.base, 0


def _free(pointer, space, name):
    if pointer == 0:
        return errors.null("devPtr" if space == memory.DEVICE else "hostPtr")
    code = need_context()[1]
    if code:
        return code
    block = memory.exact(pointer)
    if block is not None and block.space == space:
        memory.release(block)
        return 0
    gone = memory.was_freed(pointer)
    if gone is not None:
        PROBLEMS.add(
            "{} of memory that was freed already ({} bytes, from {})".format(name, gone[0], gone[1] or "?")
        )
        reason = "it was freed already"
    else:
        PROBLEMS.add(
            "{} of 0x{:x}, which {} memory".format(
                name,
                pointer,
                "is no {}".format(space) if block is None else "is {}, not {}".format(block.space, space),
            )
        )
        reason = "it is not an address that was allocated"
    return errors.runtime(
        errors.RT_PARAM_INVALID, "Address 0x{:x} cannot be freed: {}.".format(pointer, reason)
    )


@api("free", "k")
def free(pointer):
    """Free device memory."""
    return _free(pointer, memory.DEVICE, "acl.rt.free")


@api("free_host", "k")
def free_host(pointer):
    """Free host memory of malloc_host."""
    return _free(pointer, memory.HOST, "acl.rt.free_host")


def _sides(kind, target, source, count, name):
    """Check that ``kind`` fits the addresses; on a board in RC mode all of them do."""
    if BOARD.is_rc or kind == DEFAULT:
        return 0
    wanted = _SIDES[kind]
    for side, span, needs in (("dst", target, wanted[0]), ("src", source, wanted[1])):
        if span.on_device != needs:
            return errors.runtime(
                errors.RT_PARAM_INVALID,
                "{}: {} of kind {} must be {} memory, it is {} memory.".format(
                    name,
                    side,
                    _NAMES[kind],
                    "device" if needs else "host",
                    "device" if span.on_device else "host",
                ),
            )
    return 0


def _check_copy(target, most, source, count, kind, name):
    code = need_context()[1]
    if code:
        return code
    if target == 0 or source == 0:
        return errors.null("dst" if target == 0 else "src")
    if not 0 <= kind <= BUFFERED:
        # INNER/INTER_DEVICE_TO_DEVICE (6, 7) are for the asynchronous forms of newer versions only.
        return errors.value(kind, "kind", "it is not a kind of memory copy")
    if count > most:
        return errors.runtime(
            errors.RT_PARAM_INVALID, "{}: count {} is greater than destMax {}.".format(name, count, most)
        )
    if count == 0 and not BOARD.cann_at_least("9.0"):
        return errors.runtime(errors.RT_PARAM_INVALID, "{}: count must be greater than 0.".format(name))
    return 0


def _copy(target, source, count, kind, name):
    to, of = memory.Span(target, count, name + " (dst)"), memory.Span(source, count, name + " (src)")
    code = to.code or of.code or _sides(kind, to, of, count, name)
    if code == 0:
        memory.move(to.address, of.address, min(count, to.safe, of.safe))
    return code


@api("memcpy", "kkkki")
def memcpy(target, most, source, count, kind):
    """Copy ``count`` bytes."""
    return _check_copy(target, most, source, count, kind, "memcpy") or _copy(
        target, source, count, kind, "memcpy"
    )


@api("memcpy_async", "kkkkik")
def memcpy_async(target, most, source, count, kind, stream_handle):
    """The same, by a stream."""
    stream, code = stream_of(stream_handle)
    if code:
        return code
    kind = {6: D2D, 7: D2D}.get(kind, kind) if BOARD.cann_at_least("8.0") else kind
    code = _check_copy(target, most, source, count, kind, "memcpy_async")
    if code:
        return code
    stream.submit(lambda: _copy(target, source, count, kind, "memcpy_async"))
    return 0


def _check_rows(target, dpitch, source, spitch, width, height, kind, kinds):
    code = need_context()[1]
    if code:
        return code
    if kind not in kinds:
        return errors.value(kind, "kind", "it is not a kind of two-dimensional memory copy")
    if target == 0 or source == 0:
        return errors.null("dst" if target == 0 else "src")
    if width > spitch or width > dpitch:
        return errors.value(width, "width", "must be less than spitch and dpitch")
    return 0


def _copy_rows(target, dpitch, source, spitch, width, height, kind, name):
    for row in range(height):
        code = _copy(target + row * dpitch, source + row * spitch, width, kind, name)
        if code:
            return code
    return 0


@api("memcpy2d", "kkkkkki")
def memcpy2d(target, dpitch, source, spitch, width, height, kind):
    """Copy ``height`` rows of ``width`` bytes."""
    code = _check_rows(target, dpitch, source, spitch, width, height, kind, (H2D, D2H, DEFAULT))
    return code or _copy_rows(target, dpitch, source, spitch, width, height, kind, "memcpy2d")


@api("memcpy2d_async", "kkkkkkik")
def memcpy2d_async(target, dpitch, source, spitch, width, height, kind, stream_handle):
    """The same, by a stream."""
    stream, code = stream_of(stream_handle)
    code = code or _check_rows(target, dpitch, source, spitch, width, height, kind, (H2D, D2H, D2D, DEFAULT))
    if code:
        return code
    stream.submit(lambda: _copy_rows(target, dpitch, source, spitch, width, height, kind, "memcpy2d_async"))
    return 0


def _check_fill(pointer, most, count):
    code = need_context()[1]
    if code:
        return code
    if pointer == 0:
        return errors.null("devPtr")
    if count > most:
        return errors.runtime(
            errors.RT_PARAM_INVALID, "memset: count {} is greater than maxCount {}.".format(count, most)
        )
    return 0


def _fill(pointer, value, count):
    span = memory.Span(pointer, count, "memset")
    if span.code:
        return span.code
    memory.fill(span.address, value & 0xFF, min(count, span.safe))
    return 0


@api("memset", "kkik")
def memset(pointer, most, value, count):
    """Set ``count`` bytes to ``value``."""
    return _check_fill(pointer, most, count) or _fill(pointer, value, count)


@api("memset_async", "kkikk")
def memset_async(pointer, most, value, count, stream_handle):
    """The same, by a stream."""
    stream, code = stream_of(stream_handle)
    code = code or _check_fill(pointer, most, count)
    if code:
        return code
    stream.submit(lambda: _fill(pointer, value, count))
    return 0


def _cache(pointer, size):
    """Flush or invalidate caches: nothing to do on coherent memory."""
    code = need_context()[1]
    if code:
        return code
    if pointer == 0:
        return errors.null("devPtr")
    return 0 if size else errors.value(0, "size", "size must be greater than zero")


api("mem_flush", "kk")(_cache)
api("mem_invalidate", "kk")(_cache)


@api("get_mem_info", "i")
def get_mem_info(attribute):
    """(free, total, ret) in bytes. Chips of the 310 family have DDR only, the 910 family HBM for programs."""
    context, code = need_context()
    if code:
        return 0, 0, code
    if not 0 <= attribute <= 11:
        return (
            0,
            0,
            errors.runtime(errors.RT_PARAM_INVALID, "Memory attribute {} is not known.".format(attribute)),
        )
    hbm = attribute in (1, 4, 5, 8, 9)
    if hbm != BOARD.soc_version.startswith("Ascend910"):
        return 0, 0, 0
    device = context.device
    return device.total - device.used, device.total, 0


@api("device_can_access_peer", "ii")
def device_can_access_peer(number, peer):
    """(0 | 1, ret)."""
    count = BOARD.chips
    if not (0 <= number < count and 0 <= peer < count):
        return 0, errors.runtime(errors.RT_INVALID_DEVICEID, "Invalid device ID.")
    return int(number != peer), 0


@api("device_enable_peer_access", "iI")
def device_enable_peer_access(peer, _flags):
    """Let the current device see another one's memory: always so here."""
    context, code = need_context()
    if code:
        return code
    if not 0 <= peer < BOARD.chips or peer == context.device.number:
        return errors.runtime(errors.RT_INVALID_DEVICEID, "Invalid peer device ID {}.".format(peer))
    return 0


api("device_disable_peer_access", "i")(lambda peer: device_enable_peer_access(peer, 0))
