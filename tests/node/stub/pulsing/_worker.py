# SPDX-License-Identifier: Apache-2.0
"""A worker for the node's tests: becomes the C program named in PULSING_STUB_WORKER."""

import os

if os.environ.get("PULSING_STUB") == "import-fails":
    raise ImportError("the stub's import fails, as it was told to")


def main(control, info):
    mode = os.environ.get("PULSING_STUB", "")
    if mode == "main-raises":
        raise RuntimeError("the stub worker raises, as it was told to")
    if mode == "main-exits":
        return 7
    if mode == "hangs":
        import time

        time.sleep(3600)
    if mode == "prints":
        print("from python")
    os.set_inheritable(control, True)
    index = "-" if info["index"] is None else str(info["index"])
    helper = os.environ["PULSING_STUB_WORKER"]
    os.execv(helper, [helper, str(control), index, info["name"], info["setup"].decode()])
