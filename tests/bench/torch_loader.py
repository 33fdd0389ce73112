"""A torch DataLoader over the files of archives.py; imports nothing of this project.

python tests/bench/torch_loader.py FOLDER {jpeg,tif} BATCH WORKERS

Reads the files the usual way: Pillow, bicubic to 224 pixels, a flip; or tifffile, a
file a band, coarse bands enlarged bilinearly. Prints "ready" or "missing: ..."; then,
for each line of standard input, a number of batches, the seconds these took after one.
"""

import itertools
import pathlib
import random
import sys
import time

import numpy as np

try:
    import tifffile
    import torch
    from PIL import Image
except ImportError as problem:
    print(f"missing: {problem}", flush=True)
    sys.exit()


class Photos(torch.utils.data.Dataset):
    """JPEGs in class folders as [3, 224, 224] float32 in 0 to 1."""

    def __init__(self, folder: pathlib.Path):
        self.files = sorted(folder.rglob("*.jpg"))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> torch.Tensor:
        image = Image.open(self.files[i]).convert("RGB")
        image = image.resize((224, 224), Image.Resampling.BICUBIC)
        if random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        array = torch.from_numpy(np.array(image))
        return array.permute(2, 0, 1).float().div(255)


class Patches(torch.utils.data.Dataset):
    """Folders of a tif a band as [bands, 120, 120] float32."""

    def __init__(self, folder: pathlib.Path):
        self.folders = sorted(p for p in folder.iterdir() if p.is_dir())

    def __len__(self) -> int:
        return len(self.folders)

    def __getitem__(self, i: int) -> torch.Tensor:
        bands = []
        for path in sorted(self.folders[i].glob("*.tif")):
            band = torch.from_numpy(tifffile.imread(path).astype(np.float32))
            bands.append(
                torch.nn.functional.interpolate(
                    band[None, None], (120, 120), mode="bilinear"
                )[0, 0]
            )
        return torch.stack(bands)


def main() -> None:
    folder, kind = pathlib.Path(sys.argv[1]), sys.argv[2]
    batch, workers = map(int, sys.argv[3:])
    torch.set_num_threads(1)
    loader = torch.utils.data.DataLoader(
        (Photos if kind == "jpeg" else Patches)(folder),
        batch,
        shuffle=True,
        num_workers=workers,
        drop_last=True,
    )
    print("ready", flush=True)
    for line in sys.stdin:
        endless = itertools.chain.from_iterable(itertools.repeat(loader))
        next(endless)
        start = time.perf_counter()
        for _ in itertools.islice(endless, int(line)):
            pass
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main()
