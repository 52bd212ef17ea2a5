"""Error codes, and the messages that ``acl.get_recent_err_msg`` gives.

Codes are those of ``acl/error_codes/rt_error_codes.h``, ``ge_error_codes.h`` and ``acl_base.h``; the texts
follow the templates of the error-code reference (hicann/runtime ``docs/en/error_code_ref``, hicann/ge
``error_registry.cc``).
"""

import threading

SUCCESS = 0
INVALID_PARAM = 100000
UNINITIALIZE = 100001
REPEAT_INITIALIZE = 100002
INVALID_FILE = 100003
PARSE_FILE = 100006
INVALID_DUMP_CONFIG = 100009
INVALID_PROFILING_CONFIG = 100010
DESERIALIZE_MODEL = 100012
READ_MODEL_FAILURE = 100014
MODEL_NOT_DYNAMIC = 100019
REPEAT_FINALIZE = 100037
COMPILING_STUB_MODE = 100039
RT_PARAM_INVALID = 107000
RT_INVALID_DEVICEID = 107001
RT_CONTEXT_NULL = 107002
RT_STREAM_CONTEXT = 107003
RT_MODEL_CONTEXT = 107004
RT_EVENT_TIMESTAMP_INVALID = 107006
RT_STREAM_SUBSCRIBE = 107011
RT_THREAD_SUBSCRIBE = 107012
RT_STREAM_NO_CB_REG = 107015
GE_PARAM_INVALID = 145000
GE_EXEC_NOT_INIT = 145001
GE_MODEL_PATH_INVALID = 145002
GE_MODEL_ID_INVALID = 145003
GE_MODEL_DATA_SIZE_INVALID = 145006
GE_DYNAMIC_INPUT_ADDR_INVALID = 145011
GE_DYNAMIC_INPUT_LENGTH_INVALID = 145012
GE_DYNAMIC_BATCH_SIZE_INVALID = 145013
GE_AIPP_NOT_EXIST = 145015
API_NOT_SUPPORT = 200001
RT_MEMORY_ALLOCATION = 207001
RT_NO_PERMISSION = 207006
RT_NO_STREAM_RESOURCE = 207008
GE_DEVICE_MEMORY_ALLOCATION = 245002
GE_FAILURE = 500002
RT_LOST_HEARTBEAT = 507010
RT_MODEL_EXECUTE = 507011
RT_REPORT_TIMEOUT = 507012
RT_STREAM_SYNC_TIMEOUT = 507046
RT_DRV_INTERNAL_ERROR = 507899
GE_LOAD_MODEL = 545001
GE_LOAD_PARTITION = 545002

# What programs can be told to fail with (board description, faults.execute_error), in the runtime's words.
MEANING = {
    507000: "runtime internal error",
    507010: "ts lost heartbeat",
    507011: "model execute failed",
    507014: "aicore timeout",
    507015: "aicore exception",
    507017: "aicpu timeout",
    507018: "aicpu exception",
    507033: "device start-up failed",
    507899: "driver error: internal error",
    507901: "hdc disconnect",
}


class Messages(object):
    """Messages of failed calls, newest on top; reading takes them away.

    One store per thread unless acl.json says ``"err_msg_mode": "1"`` (per process).
    """

    def __init__(self):
        self.per_process = False
        self._shared = []
        self._local = threading.local()

    def _store(self):
        if self.per_process:
            return self._shared
        try:
            return self._local.messages
        except AttributeError:
            self._local.messages = []
            return self._local.messages

    def add(self, text):
        """Remember ``text``; only the last few are kept."""
        store = self._store()
        store.insert(0, text)
        del store[16:]

    def take(self):
        """Return all messages as one text, or None, and forget them."""
        store = self._store()
        if not store:
            return None
        text = store[0]
        if len(store) > 1:
            text += "\n        TraceBack (most recent call last):"
            text += "".join("\n        " + line for line in store[1:])
        del store[:]
        return text


MESSAGES = Messages()


class _LastError(threading.local):
    code = 0


LAST = _LastError()


def fail(code, identifier, text):
    """Remember the message ``<identifier>: <text>`` for this thread and return ``code``."""
    LAST.code = code
    MESSAGES.add("{}: {}".format(identifier, text))
    return code


def null(name):
    """A pointer argument is null (EH0002)."""
    return fail(INVALID_PARAM, "EH0002", "Argument {} must not be null.".format(name))


def value(value, name, reason, code=INVALID_PARAM):
    """An argument has a value out of its range (EH0001)."""
    return fail(code, "EH0001", "Value {} for {} is invalid. Reason: {}.".format(value, name, reason))


def runtime(code, reason):
    """The runtime refuses an argument (EE1001)."""
    return fail(code, "EE1001", "The argument is invalid. Reason: {}".format(reason))


def inner(code, reason):
    """GE fails inside (E19999)."""
    return fail(code, "E19999", "Inner Error! {}".format(reason))
