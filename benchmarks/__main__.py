# SPDX-License-Identifier: Apache-2.0
"""Starts the suite. Spawned processes do not import a folder's main file once more, as they would
suite.py with all that it needs."""

import sys

import suite

if __name__ == "__main__":
    sys.exit(suite.main())
