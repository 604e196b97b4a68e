#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A failing seed shrinks to a small plan that fails again when it is replayed, and that passes
# without the mistake: the mutant in which nobody gives up a unique name.
# Usage: shrink_trace.sh PULSING_SIM PULSING_SIM_MUTANTS WORK_FOLDER
set -eu
simulator=$1
mutants=$2
work=$3
mutant=15
faults_max=6
rm -rf "$work"
mkdir -p "$work"
"$mutants" campaign --mutant $mutant --seed 1 --seeds 8 --ticks 2000 --traces "$work" \
    > "$work/campaign.txt" && { echo "FAILED: the mutant passed"; exit 1; }
plan=$(ls "$work"/seed-*.plan | head -n 1)
cat "$plan"
[ "$(grep -c '^at ' "$plan")" -le $faults_max ] || { echo "FAILED: too long"; exit 1; }
"$mutants" replay "$plan" --mutant $mutant && { echo "FAILED: it passes"; exit 1; }
"$simulator" replay "$plan" || { echo "FAILED: it fails without the mistake"; exit 1; }
