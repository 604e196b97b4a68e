#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Proves at link level that gossip is a pure state machine: its objects need nothing but the C
# library's memory functions, base and each other, and hold no data that can change.
# usage: purity.sh LIBRARY
set -eu
library=$1

allowed='^(malloc|calloc|realloc|free|memcpy|memmove|memset|memcmp|bcmp|strlen|pls_[a-z0-9_]+)$'
# What sanitizers, coverage, fortified and position-independent builds add by themselves.
added='^(__asan_|__ubsan_|__tsan_|__msan_|__sanitizer_|__sancov|_GLOBAL_OFFSET_TABLE_|__stack_chk_fail'
added="$added|__memcpy_chk|__memset_chk|__memmove_chk|__start___sancov|__stop___sancov)"

needed=$(nm -u "$library" | awk '$1 == "U" { print $2 }' | sort -u | grep -Ev "$allowed" |
    grep -Ev "$added" || true)
if [ -n "$needed" ]; then
    echo "gossip needs what a pure state machine must not need:"
    echo "$needed"
    exit 1
fi

# b, d: variables. Read-only tables are r, functions t; sanitizers' own are left out.
variables=$(nm "$library" | awk '$2 ~ /^[bBdDcC]$/ { print $3 }' |
    grep -Ev '^(\.|__|asan\.|_?_?sanc|\.?L)' | sort -u || true)
if [ -n "$variables" ]; then
    echo "gossip has variables that outlive a call:"
    echo "$variables"
    exit 1
fi
echo "gossip is pure"
