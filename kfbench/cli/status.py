"""What `kfbench status` shows: what runs now, where, how far, how long still; what failed and why."""

import dataclasses
import time
from pathlib import Path
from typing import Any

from kfbench.cli import listing
from kfbench.running.status import read, spoken
from kfbench.spec import RunSpec, digest

SPEC = tuple(field.name for field in dataclasses.fields(RunSpec))


def status(results: Path) -> dict[str, list[dict[str, Any]]]:
    """Return {"running", "studies", "stopped", "stopped_studies", "failed": rows}.

    They are from status files, and from records of failed runs.
    """
    told = read(results)
    runs, studies = ([row for row in told if kind in row] for kind in ("run", "study"))
    failed = [row for row in runs if row["state"] == "failed"]
    named = {row["run"] for row in failed}
    recorded = [row for row in listing.records(results) if row["status"] in ("done", "failed")]
    failed += [
        {"run": row["name"], "label": f"{row['method']} on {row['task']}, seed {row['seed']}", "why": row["error"]}
        for row in recorded
        if row["status"] == "failed" and row["name"] not in named
    ]
    known = {digest({name: row[name] for name in SPEC}) for row in recorded}  # made good meanwhile, or told above
    failed += [{**row, "study": s["study"]} for s in studies for row in s["failed"] if row.get("name") not in known]
    return {
        "running": [row for row in runs if row["state"] == "running"],
        "studies": [row for row in studies if not row["over"]],
        "stopped": [row for row in runs if row["state"] in ("stopped", "lost")],
        "stopped_studies": [row for row in studies if row["over"] and row["ended"] < row["total"]],
        "failed": failed,
    }


def text(found: dict[str, list[dict[str, Any]]], results: Path) -> str:
    """Return it as lines."""
    lines = []
    for row in found["running"]:
        lines.append(f"{row['label']}  [{row['run']}]")
        lines.append(f"  {_how_far(row)}")
    for study in found["studies"]:
        lines += _study(study)
    if not lines:
        lines.append(f"nothing runs now with its results in '{results}'")
    if found["stopped"]:
        lines += ["", "stopped; the same command goes on from the checkpoint:"]
        for row in found["stopped"]:
            anew = "" if row["checkpoint"] else "; there was no checkpoint yet, so it begins anew"
            lines.append(f"  {row['label']}  [{row['run']}]: {row['why']}{anew}")
    if found["stopped_studies"]:
        lines += ["", "stopped; the same command goes on:"]
        lines += [
            f"  study {row['study']}: {row['ended']} of {row['total']} runs ended" for row in found["stopped_studies"]
        ]
    if found["failed"]:
        lines += ["", "failed:"]
        for row in found["failed"]:
            more = f"  (kfbench show {row['run']})" if "log" not in row and "pid" not in row else ""
            more = f"  (log: {row['log']})" if "log" in row else more
            lines.append(f"  {row['label']}: {row['why']}{more}")
    return "\n".join(lines)


def _how_far(row: dict[str, Any]) -> str:
    words = [f"{100 * row.get('progress', 0):.0f} %"]
    if row.get("step"):
        words.append(f"step {row['step']:,}" + (f" of {row['total']:,}" if row.get("total") else ""))
    if row.get("rate"):
        words.append(f"{row['rate']:,.0f}/s")
    if row.get("score") is not None:
        words.append(f"val {row['score']:.1f} {row.get('unit', '')}".rstrip())
    if row.get("left") is not None:
        words.append(f"about {spoken(row['left'])} left")
    if row.get("pid"):
        words.append(f"process {row['pid']} on {row['node']}, {row['device']}")
    return " · ".join(words) if row.get("step") else " · ".join(["starting", *words[1:]])


def _study(study: dict[str, Any]) -> list[str]:
    parts = sum(row.get("progress", 0) for row in study["running"].values())
    done, total = study["ended"] + parts, study["total"]
    words = [f"{study['ended']} of {total} runs ended"]
    if study["failed"]:
        words.append(f"{len(study['failed'])} failed")
    if study["lost"]:
        words.append("its driver is gone: start it again, it goes on")
    elif done > 0:
        left = (time.time() - study["started"]) * (total - done) / done
        words.append(f"about {spoken(left)} left")
    driver = study["driver"]
    lines = [f"study {study['study']}: {' · '.join(words)} · driver {driver['pid']} on {driver['node']}"]
    for row in [] if study["lost"] else study["running"].values():
        waits = study.get("on", "local") != "local" and "node" not in row  # no node has begun with it
        if row.get("others"):
            lines.append(f"  {row['label']}: another study makes it")
            continue
        lines.append(f"  {row['label']}: {'waits for room' if waits else _how_far(row)}")
        lines.append(f"    log: {row['log']}")
    return lines
