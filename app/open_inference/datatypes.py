"""The protocol's datatypes, and what holds their elements.

Source: Open Inference Protocol, "Tensor Data Types". BF16 is none of them.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

BYTES = "BYTES"

# Little-endian, as they stand in binary data.
DTYPES: Mapping[str, np.dtype[np.generic]] = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
DATATYPES = (*DTYPES, BYTES)

# By the names that a manifest uses.
DATATYPE_BY_DTYPE: Mapping[str, str] = {"uint8": "UINT8", "int64": "INT64", "float32": "FP32"}

# Elements of BYTES are of any length, so no array holds them.
Elements = NDArray[np.generic] | list[bytes]
