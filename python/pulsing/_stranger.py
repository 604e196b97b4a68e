# SPDX-License-Identifier: Apache-2.0
"""The registry's other package of our import name, `pulsing`, and how we refuse to share a folder
with it.

Both install into `pulsing/`, each over the other's files, so that what would run is a mixture. The
other one always carries `_core.abi3.so`, a name that ours never has: one look at the file system
tells. `pulsing/__init__.py` looks first of all, and so does `_core` when it is loaded: where the
other one was installed last, `__init__.py` is theirs, but the `_core` that Python prefers is ours.
"""

import os
import sys

MARK = "_core.abi3.so"

REMEDY = """\
{folder} holds files of two distributions: pulsing-shm (this one) and the unrelated "pulsing".
Both use the import name "pulsing", so one environment can hold only one of them. To keep this one:
    python -m pip uninstall -y pulsing pulsing-shm
    python -m pip install pulsing-shm
To use both, give each a virtual environment of its own."""


def refuse() -> None:
    """Raise ImportError if a folder of the package `pulsing` holds the other one's files."""
    for folder in sys.modules["pulsing"].__path__:
        if os.path.lexists(os.path.join(folder, MARK)):
            raise ImportError(REMEDY.format(folder=folder), name="pulsing", path=folder)
