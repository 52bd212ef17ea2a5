"""The simulated pyACL: ``acl`` as on an Ascend board, running models with ONNX Runtime.

Which functions there are depends on the CANN version of the board (``ASCEND_SIM_BOARD``). As in the real
module (one ``acl.so``, hicann/runtime ``python/pyACL/py_init_acl.cpp``), the sub-modules are attributes and
entries of ``sys.modules``, ``dir()`` shows the functions and nothing else, and there are no constants.
"""


def _build():
    import atexit
    import sys
    import types

    package = sys.modules[__name__]

    from . import (
        _mdl_aipp,
        _mdl_desc,
        _mdl_load,
        _mdl_run,
        _problems,
        _rt_callback,
        _rt_device,
        _rt_event,
        _rt_memory,
        _rt_stream,
    )
    from . import _state, _tensor, _top, _unsimulated, _util

    board = _state.BOARD
    _top.api.install(package, board)
    _tensor.api.install(package, board)
    parts = {
        "rt": [module.api for module in (_rt_device, _rt_memory, _rt_stream, _rt_event, _rt_callback)]
        + [_unsimulated.runtime],
        "mdl": [module.api for module in (_mdl_load, _mdl_desc, _mdl_run, _mdl_aipp)]
        + [module.short for module in (_mdl_load, _mdl_desc, _mdl_run, _mdl_aipp)] + [_unsimulated.model],
        "util": [_util.api],
    }  # fmt: skip
    for name, since in _unsimulated.PARTS:
        if not since or board.cann_at_least(since):
            parts[name] = []
    for name, registries in parts.items():
        module = types.ModuleType("acl." + name)
        if registries:
            for registry in registries:
                registry.install(module, board)
        else:
            module.__getattr__ = _unsimulated.attribute("acl." + name)
        sys.modules["acl." + name] = module
        setattr(package, name, module)

    problems = _state.PROBLEMS
    problems.leaks = _top.leaks
    atexit.register(_rt_stream.stop_all)
    sys._acl_sim_end = _problems.AtTheVeryEnd(problems.finish)

    # The interpreter empties every module that is in sys.modules when it ends, before the last destructors
    # of the program run. What those call has to work, so the insides must not be there. (dir() gets clean
    # as well.)
    for name in list(sys.modules):
        if name.startswith("acl._"):
            del sys.modules[name]
            package.__dict__.pop(name[4:], None)


_build()
del _build
