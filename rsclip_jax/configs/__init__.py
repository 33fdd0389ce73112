"""The shipped configs: this package's modules are the files of the folder configs/.

In a clone that folder lies beside the package; a wheel has its files here.
"""

from pathlib import Path

_CLONE = Path(__file__).resolve().parents[2] / "configs"
if (_CLONE / "common.py").exists():
    __path__ = [str(_CLONE)]
