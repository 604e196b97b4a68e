# SPDX-License-Identifier: Apache-2.0
"""What the membership protocol must reach, beside what others published or what was measured.

A figure is (text, value name, limit, anchor). `limit` is a pair (comparison, number) or None for a
value that is only shown. Anchors marked [P] are published, [M] were measured on a two-core machine
with the tools named in the design notes, before this implementation existed.
"""

AT_MOST = "<="
AT_LEAST = ">="


def _detection():
    rows = [
        (
            "Detection, alpha 5, N=128, first, median (s)",
            "detection.published.128.first.median",
            (AT_MOST, 13.02),
            "12.44 [P] Lifeguard table V; 12.36 [M] memberlist in memory",
        ),
        (
            "  the same, at least",
            "detection.published.128.first.median",
            (AT_LEAST, 11.78),
            "12.4 s within 5 percent",
        ),
        ("  first, p99 (s)", "detection.published.128.first.p99", (AT_MOST, 17.9), "17.90 [P]"),
        (
            "  full - first, median (s)",
            "detection.published.128.spread.median",
            (AT_MOST, 0.6),
            "0.46 [P] 12.91 - 12.45",
        ),
    ]
    limits = {
        128: (10.5, 14, "10.3 [P] table VII; 10.09 / 13.29 [M] model"),
        1000: (14.5, 19, "13.74 / 18.1 [M] model"),
        10000: (18.5, 21, "17.6 [M] model"),
    }
    for nodes, (median, p99, anchor) in limits.items():
        name = f"detection.{nodes}"
        rows += [
            (
                f"Detection, alpha 4, N={nodes}, first, median (s)",
                f"{name}.first.median",
                (AT_MOST, median),
                anchor,
            ),
            ("  first, p99 (s)", f"{name}.first.p99", (AT_MOST, p99), ""),
            ("  full, median (s)", f"{name}.full.median", (AT_MOST, median + 1), ""),
            ("  full, p99 (s)", f"{name}.full.p99", (AT_MOST, p99 + 1), ""),
        ]
    for nodes in (2, 4, 8, 16):
        rows.append(
            (
                f"Crash with the refused hint, N={nodes}, all know, max (s)",
                f"refused.{nodes}.full.max",
                (AT_MOST, 2),
                "none published; connection refused after 0.185 s [M]",
            )
        )
    return rows


def _false_deaths():
    rows = []
    for nodes in (10, 32, 128, 1000, 10000):
        rows.append(
            (
                f"Idle, N={nodes}, packets/s a node",
                f"idle.plain.{nodes}.packets",
                (AT_MOST, 2.06),
                "2.0 [P] SWIM paper; 2.00 [M] memberlist",
            )
        )
        rows.append(
            (
                "  B/s a node, no digests",
                f"idle.plain.{nodes}.bytes",
                (AT_MOST, 150),
                "109 [M] memberlist; 582 [P] scalecube",
            )
        )
        rows.append(
            (
                "  B/s a node, with digests",
                f"idle.digests.{nodes}.bytes",
                (AT_MOST, 600),
                "139-159 [M] memberlist with push/pull",
            )
        )
    rows.append(("  spread of B/s over N (%)", "idle.plain.spread", (AT_MOST, 5), "flat"))
    rows.append(("  spread with digests (%)", "idle.digests.spread", (AT_MOST, 5), "flat"))
    for nodes, percents in ((100, (1, 2, 5, 10, 20)), (1000, (1, 5))):
        for percent in percents:
            limit = (AT_MOST, 0) if percent <= 5 else None
            rows.append(
                (
                    f"False deaths, {percent} % loss, N={nodes}, 10 min",
                    f"loss.{nodes}.{percent}_percent.false_deaths",
                    limit,
                    "0 to 5 %, 2 at 10 %, a storm at 20 % [M] model, N=1000",
                )
            )
    for how in ("stalls", "slow"):
        for count in (1, 4, 16, 32):
            rows.append(
                (
                    f"False deaths, {count} of 100 overloaded by {how}",
                    f"overload.{how}.{count}_of_100.false_deaths",
                    (AT_MOST, 0) if count == 1 else None,
                    "none below 16 [P] Lifeguard figure 1",
                )
            )
            rows.append(
                (
                    "  at healthy nodes",
                    f"overload.{how}.{count}_of_100.at_healthy",
                    (AT_MOST, 0) if count <= 16 else None,
                    "none below 32 [P]",
                )
            )
            rows.append(
                (
                    "  plain SWIM, the same seeds",
                    f"overload.{how}.{count}_of_100.plain_swim",
                    None,
                    "from 1 node on [P]",
                )
            )
    rows.append(
        (
            "False deaths, 1 of 100 slow, the sum of 64 seeds",
            "overload.slow.64_seeds.false_deaths",
            (AT_MOST, 0),
            "",
        )
    )
    for percent, limit, anchor in (
        (0, 19, "14.5 [M] model"),
        (10, 25, "21-22 [M]"),
        (30, 30, "24-27 [M]"),
        (50, 40, "37 [M]"),
    ):
        name = f"mass_kill.1000.{percent}_percent"
        what = "1 node" if percent == 0 else f"{percent} %"
        rows.append((f"Killing {what} of 1,000, all removed (s)", name, (AT_MOST, limit), anchor))
        rows.append(("  false deaths", f"{name}.false_deaths", (AT_MOST, 0), "0 [M] model"))
    return rows


def _grids():
    rows = []
    published = [
        ("ours_4_6", "4, 6 with the idle rule", "83.1 / 96.8 / 3.18 / 4.83 [P] VII"),
        ("lifeguard_4_6", "4, 6", "83.1 / 96.8 / 3.18 / 4.83 [P] VII"),
        ("lifeguard_5_6", "5, 6", "100.1 / 105.5 / 1.53 / 1.89 [P] VII"),
        ("lha_probe", "LHA-Probe alone", "FP 67.72, FP- 32.88 [P] IV"),
        ("lha_suspicion", "LHA-Suspicion alone", "FP 3.00, FP- 6.71 [P] IV"),
        ("buddy", "Buddy alone", "FP 94.08, FP- 44.57 [P] IV"),
        ("lifeguard_2_2", "2, 2", "53.1 / 69.8 / 98.4 / 31.2 [P] VII"),
        ("lifeguard_2_4", "2, 4", "54.1 / 72.9 / 43.6 / 22.5 [P] VII"),
        ("lifeguard_2_6", "2, 6", "54.3 / 75.5 / 24.2 / 13.7 [P] VII"),
        ("lifeguard_4_2", "4, 2", "83.0 / 94.3 / 37.7 / 20.3 [P] VII"),
        ("lifeguard_4_4", "4, 4", "83.0 / 96.2 / 8.0 / 9.5 [P] VII"),
        ("lifeguard_5_2", "5, 2", "99.8 / 105.0 / 26.6 / 15.4 [P] VII"),
        ("lifeguard_5_4", "5, 4", "99.5 / 102.7 / 5.4 / 5.1 [P] VII"),
    ]
    for name, text, anchor in published:
        bound = name.endswith("_4_6")
        rows.append(
            (
                f"Lifeguard grid, {text}: FP, % of plain SWIM",
                f"grid.{name}.fp_share",
                (AT_MOST, 3.18) if bound else None,
                anchor,
            )
        )
        rows.append(
            (
                "  FP-, % of plain SWIM",
                f"grid.{name}.fp_healthy_share",
                (AT_MOST, 4.83) if bound else None,
                "",
            )
        )
        rows.append(
            ("  first detection, median, % of plain", f"grid.{name}.first_median_share", None, "")
        )
        rows.append(
            ("  first detection, p99, % of plain", f"grid.{name}.first_p99_share", None, "")
        )
    for name, text in (("network_4_6", "4, 6"), ("network_5_6", "5, 6")):
        bound = name.endswith("_4_6")
        rows.append(
            (
                f"The grid with stalled networks, {text}: FP, % of plain SWIM",
                f"grid.{name}.fp_share",
                (AT_MOST, 3.18) if bound else None,
                "3.18 / 4.83 [P] VII",
            )
        )
        rows.append(
            (
                "  FP-, % of plain SWIM",
                f"grid.{name}.fp_healthy_share",
                (AT_MOST, 4.83) if bound else None,
                "",
            )
        )
    rows.append(("  FP of plain SWIM there", "grid.network_swim.fp", None, ""))
    rows.append(("  FP- of plain SWIM there", "grid.network_swim.fp_healthy", None, ""))
    rows.append(("Plain SWIM on the grid: FP", "grid.swim.fp", None, "339,002 in 10 runs [P] IV"))
    rows.append(("  FP-", "grid.swim.fp_healthy", None, "1,326 in 10 runs [P] IV"))
    return rows


def _together():
    rows = []
    for nodes, limit, anchor in (
        (128, 3, "119-183 [M] memberlist; 2.3 [M] model"),
        (1000, 5, "4.2 [M] model"),
    ):
        rows.append(
            (
                f"Mass join through one seed, N={nodes}, all see all (s)",
                f"join.{nodes}.all_see_all",
                (AT_MOST, limit),
                anchor,
            )
        )
        rows.append(
            (
                "  sent by a node (kB)",
                f"join.{nodes}.sent_per_node",
                (AT_MOST, 100),
                "56-63 [M] memberlist, 97 [M] model at 1,000",
            )
        )
    cuts = [
        ("128.64_64.10_s", 5),
        ("128.64_64.60_s", 5),
        ("128.12_116.60_s", 5),
        ("128.64_64.3600_s", 5),
        ("128.64_64.86400_s", 5),
        ("1000.500_500.10_s", 6),
        ("1000.500_500.60_s", 6),
        ("1000.100_900.60_s", 6),
        ("1000.1_999.60_s", 6),
        ("1000.500_500.3600_s", 6),
        ("1000.500_500.86400_s", 6),
        ("8.4_4.60_s", 3),
        ("8.1_7.90000_s", 3),
    ]
    for cut, limit in cuts:
        nodes, sides, seconds = cut.split(".")
        text = f"Heal, N={nodes}, {sides.replace('_', '/')}, cut of {seconds[:-2]} s, max (s)"
        rows.append(
            (
                text,
                f"split.{cut}.max",
                (AT_MOST, limit),
                "2.1 (128), 3.5 (1,000) [M] model; within 30 s only [P] memberlist",
            )
        )
    for after in ("0.1", "5.0", "60.0"):
        rows.append(
            (
                f"Restart after {after} s, known everywhere (s)",
                f"restart.after_{after}_s",
                (AT_MOST, 2),
                "30 s and more (cortex #2130)",
            )
        )
        rows.append(
            ("  at another address (s)", f"restart_moved.after_{after}_s", (AT_MOST, 2), "")
        )
    for name, what, limit in (("leaves", "leave", 5), ("crashes", "leave or crash", 20)):
        rows.append(
            (
                f"1 % of 500 {what} each second, 10 min: all agree after it (s)",
                f"churn.{name}.500.agreed",
                (AT_MOST, limit),
                "" if limit == 5 else "a detection at N=500",
            )
        )
        rows.append(
            (
                "  all that run hold each other alive (s)",
                f"churn.{name}.500.acquainted",
                (AT_MOST, 5),
                "",
            )
        )
    for nodes in (128, 1000):
        rows.append(
            (
                f"All {nodes} restart at once (s)",
                f"restart_all.{nodes}",
                (AT_MOST, 10),
                "never (memberlist #311)",
            )
        )
    return rows


def _names_and_speed():
    return [
        (
            "A million names: bytes each beyond the name",
            "names_million.1000000.14_bytes.bytes_each",
            (AT_MOST, 100),
            "100,000 names recommended at most [P] Akka",
        ),
        (
            "  a lookup, random, best of 20 batches (ns)",
            "names_million.1000000.14_bytes.lookup_best",
            (AT_MOST, 200),
            "",
        ),
        (
            "  the same, each after the answer of the one before",
            "names_million.1000000.14_bytes.lookup_chained",
            None,
            "",
        ),
        (
            "  one dependent read of that much memory here (ns)",
            "names_million.1000000.14_bytes.memory_read",
            None,
            "the floor: a lookup has one such read",
        ),
        ("  a lookup in such reads", "names_million.1000000.14_bytes.lookup_in_reads", None, ""),
        (
            "  names of 30 bytes: a lookup, random, best of 20 batches (ns)",
            "names_million.1000000.30_bytes.lookup_best",
            (AT_MOST, 200),
            "",
        ),
        (
            "  bytes each beyond the name",
            "names_million.1000000.30_bytes.bytes_each",
            (AT_MOST, 100),
            "",
        ),
        (
            "  names of 64 bytes: a lookup, random, best of 20 batches (ns)",
            "names_million.1000000.64_bytes.lookup_best",
            (AT_MOST, 200),
            "",
        ),
        (
            "  bytes each beyond the name",
            "names_million.1000000.64_bytes.bytes_each",
            (AT_MOST, 100),
            "",
        ),
        (
            "  the event that hides a dead owner's names (us)",
            "names_million.1000000.14_bytes.death",
            None,
            "O(1): compare with the next line",
        ),
        ("  the same with 50,000 names (us)", "names_million.50000.14_bytes.death", None, ""),
        (
            "A change of a name reaches 1,000 nodes, p99 (s)",
            "names_reach.1000.p99",
            (AT_MOST, 2),
            "1 to 2 rounds of 1 s [P] chitchat",
        ),
        ("  max (s)", "names_reach.1000.max", None, ""),
        (
            "Names under loss and partition: wrong answers",
            "names.100000.wrong_answers",
            (AT_MOST, 0),
            "",
        ),
        (
            "Speed, N=1,000 (x real time)",
            "speed.1000.times_real_time",
            (AT_LEAST, 100),
            "300-715 [M] model",
        ),
        (
            "Speed, N=10,000 (x real time)",
            "speed.10000.times_real_time",
            (AT_LEAST, 5),
            "15 [M] model",
        ),
        ("  memory (MiB)", "speed.10000.memory", (AT_MOST, 1024), "593 [M] model"),
        ("Campaign: seeds", "campaign.seeds", (AT_LEAST, 4096), "4096 x 5000 [P] al8n, 8 nodes"),
        ("  ticks a seed", "campaign.ticks", (AT_LEAST, 5000), ""),
        ("  violations", "campaign.violations", (AT_MOST, 0), ""),
        ("  things never exercised", "campaign.uncovered", (AT_MOST, 0), ""),
        ("  longest time to agree (s)", "campaign.settle_max", None, ""),
    ]


FIGURES = _detection() + _false_deaths() + _grids() + _together() + _names_and_speed()
