"""A tar as webdataset and torch write them: wds_torch.tar, wds_torch_out.npz.

python tests/golden/make_wds.py, with torch and webdataset 1.0.2 (which reads no tensor
here, so that its own needs are few).
"""

from pathlib import Path

import numpy as np
import torch
import webdataset

FOLDER = Path(__file__).parent


def main() -> None:
    """A sample for each dtype that a patch is saved in, and its two label sets."""
    rng, out = np.random.default_rng(0), {}
    with webdataset.TarWriter(str(FOLDER / "wds_torch.tar")) as sink:
        for i, dtype in enumerate(("int16", "int32", "float32", "uint16")):
            patch = rng.integers(1, 32000, (12, 4, 4)).astype(dtype)
            hot = rng.integers(0, 2, 19).astype(("float32", "int64")[i % 2])
            sink.write(
                {
                    "__key__": f"s{i:07d}",
                    "s2_patch.pth": torch.from_numpy(patch),
                    "labels_19.pth": torch.from_numpy(hot),
                    "labels_5.pth": torch.from_numpy(hot[:5].copy()).bool(),
                    "cls": i,
                }
            )
            out |= {f"patch_{i}": patch, f"labels_{i}": hot}
    np.savez_compressed(FOLDER / "wds_torch_out.npz", **out)


if __name__ == "__main__":
    main()
