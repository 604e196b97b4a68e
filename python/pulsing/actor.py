# SPDX-License-Identifier: Apache-2.0
"""The names of the guide: `from pulsing.actor import ...`; the same as in `pulsing`."""

from pulsing import *  # noqa: F403
from pulsing import __all__  # noqa: F401
