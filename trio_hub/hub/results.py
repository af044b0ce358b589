"""Results of finished requests, in the form in which stock clients read the reply to a ``result_request``.

A stock client goes through the msg_ids that it has asked for, in the order of the texts, and takes exactly one value
out of the buffers for each successful ``apply_request``. If a reply had more or fewer buffers than that, each later
value would go to the wrong msg_id.
"""

from __future__ import annotations

import struct
from typing import Any

from ..records.record import TaskRecord
from ..schedulers.tasks import NOT_BEGUN
from ..wire.frames import Buffer, to_bytes
from ..wire.messages import error_content

__all__ = ["NO_VALUE", "as_one_value", "buffers_for", "error_as_value", "result_of", "value_buffers"]

# Opcodes of the pickle format, protocol 3.
NO_VALUE = b"\x80\x03N."
"""None, in the form in which a stock client reads a value."""
_BEGIN = b"\x80\x03]"
_END = b"."
# operator.getitem(ipyparallel.serialize.deserialize_object([...]), 0), appended to the list
_DESERIALIZE = b"coperator\ngetitem\n(cipyparallel.serialize.serialize\ndeserialize_object\n("
_DESERIALIZED = b"]("
_DESERIALIZED_END = b"etRK\x00tRa"
_ERROR = b"\x80\x03cipyparallel.error\nRemoteError\n("
_ERROR_END = b"tR."
_BYTES = struct.Struct("<cI")
_LONG_BYTES = struct.Struct("<cQ")


def result_of(record: TaskRecord) -> dict[str, Any]:
    """Return the entry of a finished request in the reply. Its buffers are not in it: see `buffers_for`."""
    result = record.as_dict(("header", "metadata", "result_metadata", "result_header", "result_content", "received"))
    # a stock client reads these as dicts
    for key in ("result_header", "result_metadata"):
        result[key] = result[key] or {}
    content = result["result_content"]
    if not isinstance(content, dict) or not isinstance(content.get("status"), str):
        result["result_content"] = error_content("HubError", f"the recorded result of {record.msg_id} is damaged")
    elif content["status"] != "ok" and "ename" not in content:
        # An aborted request has no error, but a stock client reads one from each result that is not ok.
        error = (
            error_content("TaskAborted", NOT_BEGUN)
            if content["status"] == "aborted"
            else error_content("HubError", f"the request ended with status {content['status']!r}")
        )
        result["result_content"] = error | content
    result["io"] = record.as_dict(("execute_input", "execute_result", "error", "stdout", "stderr"))
    return result


def buffers_for(record: TaskRecord, result: dict[str, Any], *, is_stock: bool, is_alone: bool) -> list[Buffer]:
    """Return the buffers of a finished request that belong into the reply to a client. May change its entry.

    Args:
        record: the record of the request.
        result: its entry, as `result_of` returns it.
        is_stock: whether the client is a stock client.
        is_alone: whether the client asks for no other request.
    """
    if is_stock and not is_alone and result["result_content"]["status"] != "ok":
        return error_as_value(result)
    return value_buffers(record, result, as_recorded=not is_stock)


def value_buffers(record: TaskRecord, result: dict[str, Any], *, as_recorded: bool) -> list[Buffer]:
    """Return the buffers of a finished request that belong into the reply.

    Args:
        record: the record of the request.
        result: its entry, as `result_of` returns it.
        as_recorded: whether the buffers of a gathered broadcast stay as the engines sent them, one value after the
            other. If not, they become one value: the list of the engines' values.
    """
    if result["result_content"]["status"] != "ok":
        return []
    buffers = list(record.result_buffers or ())
    if as_recorded:
        return buffers
    if result["result_header"].get("msg_type") != "apply_reply":
        return []
    counts = result["result_metadata"].get("buffer_counts")
    if result["result_metadata"].get("is_coalescing") and _fits(counts, buffers):
        return [as_one_value(counts, buffers)]
    return buffers or [NO_VALUE]


def error_as_value(result: dict[str, Any]) -> list[Buffer]:
    """Turn the entry of a failed request into a success whose value is the error. Return the buffers of the value.

    A stock client that asks for several results raises an exception if the reply has any failure, and then its user
    gets none of the results. It treats a value that is a ``RemoteError`` as the error of that request alone.
    """
    content = result["result_content"]
    result["io"] = result["io"] | {"status": content["status"]}  # the client's metadata of the request
    result["result_header"] = result["result_header"] | {"msg_type": "apply_reply"}
    result["result_content"] = {"status": "ok"}
    traceback = content.get("traceback")
    lines = map(str, traceback) if isinstance(traceback, list) else ()
    parts = [_text(str(content.get("ename"))), _text(str(content.get("evalue"))), _text("\n".join(lines))]
    info = content.get("engine_info")
    parts.append(b"}(")
    for key, value in info.items() if isinstance(info, dict) else ():
        is_number = type(value) is int and -(1 << 31) <= value < 1 << 31
        parts += (_text(str(key)), b"J" + value.to_bytes(4, "little", signed=True) if is_number else _text(str(value)))
    return [_ERROR + b"".join(parts) + b"u" + _ERROR_END]


def _text(text: str) -> bytes:
    data = text.encode("utf-8", "surrogatepass")
    return b"X" + len(data).to_bytes(4, "little") + data


def _fits(counts: Any, buffers: list[Buffer]) -> bool:
    return (
        isinstance(counts, list)
        and all(type(count) is int and count >= 0 for count in counts)
        and sum(counts) == len(buffers)
    )


def as_one_value(counts: list[int], buffers: list[Buffer]) -> bytes:
    """Return a pickle of the list of values that a stock client reads from these buffers.

    The hub unpickles nothing. The pickle has the buffers as they are, and calls the function with which a stock client
    reads values (``ipyparallel.serialize.serialize.deserialize_object``) once for each value.

    Args:
        counts: the number of buffers of each value; a value without buffers is left out.
        buffers: the buffers of all values, in order.
    """
    parts: list[Buffer] = [_BEGIN]
    rest = iter(buffers)
    for count in filter(None, counts):
        parts.append(_DESERIALIZE + _DESERIALIZED)
        for _ in range(count):
            data = to_bytes(next(rest))
            # BINBYTES, or BINBYTES8 (protocol 4) from 4 GiB on
            head = _BYTES.pack(b"B", len(data)) if len(data) < 1 << 32 else _LONG_BYTES.pack(b"\x8e", len(data))
            parts += (head, data)
        parts.append(_DESERIALIZED_END)
    parts.append(_END)
    return b"".join(parts)
