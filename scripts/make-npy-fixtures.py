"""Writes tests/fixtures/npy/: one file per dtype and more as NumPy saves them.

Run with a Python that has numpy and ml_dtypes.  Floats hold 0, 1, ..., -1.5 at the end; see tests in src/data.
"""

import pathlib

import ml_dtypes
import numpy as np

folder = pathlib.Path(__file__).parent.parent / "tests/fixtures/npy"
folder.mkdir(parents=True, exist_ok=True)
names = {"pred": np.bool_, "bf16": ml_dtypes.bfloat16, "f16": np.float16, "f32": np.float32, "f64": np.float64}
names |= {f"s{bits}": f"i{bits // 8}" for bits in (8, 16, 32, 64)}
names |= {f"u{bits}": f"u{bits // 8}" for bits in (8, 16, 32, 64)}
for name, dtype in names.items():
    values = np.array([[0, 1, 2], [3, 4, -1.5 if "f" in name else 100]])
    np.save(folder / f"{name}.npy", (values % 2 if name == "pred" else values).astype(dtype))
np.save(folder / "scalar.npy", np.float32(2.5))
np.save(folder / "vector.npy", np.arange(3, dtype=np.int32))
np.save(folder / "empty.npy", np.zeros((0, 3), np.float32))
for version in (2, 3):
    with open(folder / f"version{version}.npy", "wb") as file:
        np.lib.format.write_array(file, np.arange(3, dtype=np.int32), (version, 0))

# What is refused.
np.save(folder / "fortran-order.npy", np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)))
np.save(folder / "refused-big-endian.npy", np.arange(3, dtype=">f4"))
np.save(folder / "refused-void.npy", np.zeros(3, "V2"))
np.save(folder / "refused-complex.npy", np.zeros(3, np.complex64))
np.save(folder / "refused-text.npy", np.array(["a", "bc"]))
np.save(folder / "refused-records.npy", np.zeros(2, [("a", "<i4"), ("b", "<f4")]))
np.save(folder / "refused-objects.npy", np.array([None, {}]), allow_pickle=True)
np.save(folder / "refused-float8.npy", np.zeros(3, ml_dtypes.float8_e4m3fn))
