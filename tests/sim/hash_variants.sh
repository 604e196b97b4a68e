#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Builds gossip and the simulator with gcc and clang at -O0 and -O2 and compares the hashes of their
# traces: one seed has one trace on all four.
# Usage: hash_variants.sh SOURCE_FOLDER WORK_FOLDER [SEEDS [TICKS]]
set -eu
source=$1
work=$2
seeds=${3:-6}
ticks=${4:-1500}
clang=$(command -v clang-14 || command -v clang)

# One copy for all four, so that nobody's edit in between looks like a difference of compilers.
rm -rf "$work"
mkdir -p "$work/source/tests"
cp -r "$source/base" "$source/gossip" "$work/source/"
cp -r "$source/tests/sim" "$work/source/tests/"
source=$work/source
files=$(ls "$source"/base/*.c "$source"/gossip/*.c "$source"/tests/sim/*.c | grep -v '_test\.c$')
for compiler in gcc "$clang"; do
    for level in -O0 -O2; do
        name=$(basename "$compiler")$level
        (
            $compiler -std=c11 $level -D_GNU_SOURCE -fno-strict-aliasing -pthread -I"$source" \
                $files -lm -o "$work/sim-$name"
            "$work/sim-$name" hash --seed 100 --seeds "$seeds" --ticks "$ticks" \
                > "$work/hash-$name.txt"
        ) &
    done
    wait
done

result=0
reference="$work/hash-gcc-O0.txt"
[ -s "$reference" ] || result=1
for compiler in gcc "$clang"; do
    for level in -O0 -O2; do
        name=$(basename "$compiler")$level
        printf '%-14s %s\n' "$name" "$(tail -n 1 "$work/hash-$name.txt")"
        cmp -s "$reference" "$work/hash-$name.txt" || result=1
    done
done
[ $result -eq 0 ] && echo "all four are equal" || echo "FAILED: the traces differ"
exit $result
