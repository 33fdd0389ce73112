"""The commit of each repository whose weights have a name here, and files' digests.

A commit fixes every byte of a repository, so that a name gives the same weights always.
Repositories without a row have no commit in a public source: their newest one is taken,
and recorded, as for hf: names.
"""

# By the code of torchgeo 0.8.1, and by open code that pins these CLIPs.
PINS = {
    "openai/clip-vit-base-patch32": "3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268",
    "openai/clip-vit-base-patch16": "57c216476eefef5ab752ec549e440a49ae4ae5f3",
    "openai/clip-vit-large-patch14": "32bd64288804d66eefd0ccbe215aa642df71cc41",
    "openai/clip-vit-large-patch14-336": "ce19dc912ca5cd21c8a653c79e251e808ccabcd1",
    "laion/CLIP-ViT-B-32-laion2B-s34B-b79K": "1a25a446712ba5ee05982a381eed697ef9b435cf",
    "laion/CLIP-ViT-L-14-laion2B-s32B-b82K": "1627032197142fbe2a7cfec626f4ced3ae60d07a",
    "laion/CLIP-ViT-H-14-laion2B-s32B-b79K": "1c2b8495b28150b8a4922ee1c8edee224c284c0c",
    "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k": (
        "743c27bd53dfe508a0ade0f50698f99b39d03bec"
    ),
    "Zilun/GeoRSCLIP": "4920188e6eba4e711ef9848cfd7cb77e874ee33f",
    "chendelong/RemoteCLIP": "bf1d8a3ccf2ddbf7c875705e46373bfe542bce38",
    "torchgeo/vit_small_patch16_224_sentinel2_all_moco": (
        "1cb683f6c14739634cdfaaceb076529adf898c74"
    ),
    "torchgeo/vit_small_patch16_224_sentinel2_all_dino": (
        "5b41dd418a79de47ac9f5be3e035405a83818a62"
    ),
    "torchgeo/resnet50_sentinel2_all_moco": "da4f3c9dbe09272eb902f3b37f46635fa4726879",
    "torchgeo/resnet50_sentinel2_all_dino": "d7f14bf5530d70ac69d763e58e77e44dbecfec7c",
    "torchgeo/resnet50_sentinel1_all_moco": "e79862c667853c10a709bdd77ea8ffbad0e0f1cf",
    "torchgeo/dofa": "b8db318b64a90b9e085ec04ba8851233c5893666",
}

# Repository -> file -> sha256, of the files for which a public source states it. Names
# compare it also for files that were placed by hand.
DIGESTS = {
    "chendelong/RemoteCLIP": {
        "RemoteCLIP-ViT-B-32.pt": (
            "60014e395d930a3f2963d1d89c8522bf4ad56775571e4356e866864789af85c4"
        ),
    },
    "laion/CLIP-ViT-B-32-laion2B-s34B-b79K": {
        "open_clip_model.safetensors": (
            "ac4f8c4b88af6d963118cbf40ad93176d092abbedfcb752601ae1866352656e6"
        ),
    },
    "laion/CLIP-ViT-L-14-laion2B-s32B-b82K": {
        "open_clip_pytorch_model.bin": (
            "7d129ed747e0ed53e82dfcc140382b51be66b56e6a9bdc3258afd2846e3bb019"
        ),
    },
    "laion/CLIP-ViT-H-14-laion2B-s32B-b79K": {
        "open_clip_pytorch_model.bin": (
            "9a78ef8e8c73fd0df621682e7a8e8eb36c6916cb3c16b291a082ecd52ab79cc4"
        ),
    },
}
