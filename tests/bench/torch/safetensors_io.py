"""The safetensors format in forty lines: u64 little-endian header length, JSON header, raw row-major data."""

import json
import struct

import numpy as np

_NUMPY = {"F64": "<f8", "F32": "<f4", "I64": "<i8", "I32": "<i4", "U8": "|u1", "BOOL": "|b1"}
_NAMES = {np.dtype(v): k for k, v in _NUMPY.items()}


def write(path, tensors, metadata=None):
    """Writes {name: array or CPU torch tensor}. The header is padded with spaces so that the data starts 8-aligned."""
    header, blobs, offset = {}, [], 0
    if metadata:
        header["__metadata__"] = {str(k): str(v) for k, v in metadata.items()}
    for name, tensor in tensors.items():
        if hasattr(tensor, "detach"):
            tensor = tensor.detach().numpy()
        array = np.asarray(tensor, order="C")
        header[name] = {
            "dtype": _NAMES[array.dtype.newbyteorder("<")],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        blobs.append(array.tobytes())
        offset += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def read(path):
    """Returns {name: numpy array}; bf16 and f16 are widened to f32."""
    with open(path, "rb") as file:
        data = file.read()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        raw = data[8 + length + begin : 8 + length + end]
        if entry["dtype"] == "BF16":
            array = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
        elif entry["dtype"] == "F16":
            array = np.frombuffer(raw, "<f2").astype(np.float32)
        else:
            array = np.frombuffer(raw, _NUMPY[entry["dtype"]])
        tensors[name] = array.reshape(entry["shape"])
    return tensors
