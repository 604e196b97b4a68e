# SPDX-License-Identifier: Apache-2.0
"""Stands in for the real package, so that the node's tests need neither extension nor runtime."""
