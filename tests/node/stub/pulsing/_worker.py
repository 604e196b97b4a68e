# SPDX-License-Identifier: Apache-2.0
"""A worker for the node's tests: becomes the C program named in PULSING_STUB_WORKER."""

import os
import random  # noqa: F401  (so that its state is copied into every worker)

if os.environ.get("PULSING_STUB") == "import-fails":
    raise ImportError("the stub's import fails, as it was told to")


def settings_of(packed):
    nothing = {"exec": False, "preload": None, "env": None, "every": None, "cpus": None}
    return {**nothing, "threads": [], "blob": packed}


def preload(settings):
    """The stub loads nothing."""


def main(control, settings, info):
    mode = os.environ.get("PULSING_STUB", "")
    if mode == "main-raises":
        raise RuntimeError("the stub worker raises, as it was told to")
    if mode == "main-exits":
        return 7
    if mode == "hangs":
        import time

        time.sleep(3600)
    if mode == "prints":
        import builtins
        import gc
        import random
        import sys

        print(
            f"from python random={random.random()} exit={hasattr(builtins, 'exit')} "
            f"gc={gc.isenabled()} path0={sys.path[0]} argv={sys.argv}"
        )
    os.set_inheritable(control, True)
    index = "-" if info["index"] is None else str(info["index"])
    helper = os.environ["PULSING_STUB_WORKER"]
    os.execv(helper, [helper, str(control), index, info["name"], settings["blob"].decode()])
