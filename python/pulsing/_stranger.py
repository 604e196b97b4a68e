# SPDX-License-Identifier: Apache-2.0
"""The registry's other package of our import name, `pulsing`, and how we refuse to share a folder with it.

Both install into `pulsing/`, each over the other's files, so that what would run is a mixture. The
other one always carries `_core.abi3.so`, a name that ours never has: one look at the file system
tells, at every import, whichever of the two was installed last.
"""

import os

MARK = "_core.abi3.so"

REMEDY = """\
{folder} holds files of two distributions: pulsing-shm (this one) and the unrelated "pulsing".
Both use the import name "pulsing", so one environment can hold only one of them. To keep this one:
    python -m pip uninstall -y pulsing pulsing-shm
    python -m pip install pulsing-shm
To use both, give each a virtual environment of its own."""


def refuse(folders: list[str]) -> None:
    """Raise ImportError if one of the package's folders holds the other distribution's files."""
    for folder in folders:
        if os.path.lexists(os.path.join(folder, MARK)):
            raise ImportError(REMEDY.format(folder=folder), name="pulsing", path=folder)
