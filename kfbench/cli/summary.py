"""What a person reads before and after a run."""

import shutil
import textwrap
from pathlib import Path
from typing import Any

from kfbench.running import records
from kfbench.running.records import RunRecord


def text(record: RunRecord, results: Path, *, whole: bool = False) -> str:
    """Return a run's scores, shares and cost in a few lines; with `whole` its settings and provenance too."""
    spec = record.spec
    lines = [f"{spec['method']} on {spec['task']}, seed {spec['seed']}: {record.status}  [{record.key}]"]
    if record.error:
        lines.append(f"  error       {record.error}")
    lines += [f"  {line}" for line in _scores(record)]
    lines += [f"  {line}" for line in _shares(record.curve)]
    if record.cost:
        cost = record.cost
        teachers = f" (and {cost['teacher_seconds']:.0f} s of teachers)" if cost.get("teacher_seconds") else ""
        lines.append(
            f"  kept        {cost['parameters']:,.0f} parameters, {cost['multiply_adds'] / 1e6:.1f} M multiply-adds"
        )
        lines.append(f"  time        {cost['seconds']:.0f} s{teachers}")
        asked = cost.get("teacher_rows_asked")
        if asked:
            share = 100 * cost["teacher_rows_remembered"] / asked
            lines.append(
                f"  memory      {share:.1f} % of the {asked:,.0f} rows asked of teachers took no pass of this run"
            )
    lines.append(f"  record      {records.path_of(results, record.key, record.spec)}")
    if whole:
        told = {
            "teachers": ", ".join(spec["teachers"]) or "none",
            "recipe": spec["recipe"],
            "settings": spec["settings"],
            **{name: value for name, value in record.provenance.items() if name != "teachers"},
        }
        lines += [_within(f"  {name:<11} ", _flat(value)) for name, value in told.items()]
    if whole and record.traceback:
        lines += ["", record.traceback]
    return "\n".join(lines)


def _within(name: str, value: str) -> str:
    """Return a name and its value, in as many lines as the terminal needs (80 columns if there is none)."""
    width = shutil.get_terminal_size().columns
    lines = textwrap.wrap(value, max(20, width - len(name)), break_long_words=False, break_on_hyphens=False)
    return name + f"\n{' ' * len(name)}".join(lines)


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}={item}" for name, item in value.items()) or "none"
    return str(value)


def _scores(record: RunRecord) -> list[str]:
    # without weights it was no plain network that was kept and scored: progressive's columns, a path of pathnet
    whose = "student alone" if "weights" in record.provenance else "student with all it keeps"
    last, best, val = (record.scores.get(name, {}) for name in ("last", "best", "val"))
    if "error" in last:
        parts = [f"test error  {last['error']:.2f} % ({whose}, after the last step)"]
        if "error" in best:
            parts.append(f"            {best['error']:.2f} % (the step that was best on validation)")
        if "error" in val:
            parts.append(f"validation  {val['error']:.2f} %")
        return parts
    if "return" in last:
        normal = f", human-normalised {last['human_normalised']:.3f}" if "human_normalised" in last else ""
        parts = [f"return      {last['return']:.1f} ({whose}, {last.get('episodes', 0):.0f} episodes{normal})"]
        cut = records.cut([record])
        return [*parts, f"            {cut}"] if cut else parts
    return [f"{name:<11} {value:.4g} ({whose}, after the last step)" for name, value in last.items()]


def _shares(curve: list[dict[str, float]]) -> list[str]:
    attached = [row for row in curve if "val_error_attached" in row]
    lines = []
    if attached:
        row = attached[-1]
        lines.append(
            f"before cut  {row['val_error_attached']:.2f} % on validation with teachers, {row['val_error']:.2f} % alone"
        )
    with_shares = [row for row in curve if "share/student" in row]
    if with_shares:
        first, last = with_shares[0], with_shares[-1]
        for name in first:
            if name.startswith("share/") and name.endswith("/student"):
                layer = name.removeprefix("share").removesuffix("/student").lstrip("/") or "mean of layers"
                lines.append(f"share       {layer}: {first[name]:.2f} -> {last[name]:.2f}")
    return lines
