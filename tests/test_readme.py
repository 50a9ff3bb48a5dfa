"""README and committed reports say what the code does and what the records hold."""

import re
import shutil
from pathlib import Path

import pytest

from kfbench.cli import listing
from kfbench.conformance import checks
from kfbench.report import page as report

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
STUDIES = sorted(path.parent.name for path in (ROOT / "reports").glob("*/README.md"))


def baseline() -> str:
    found = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert found
    return found[1]


def test_the_example_of_a_baseline_is_short_listed_and_keeps_every_rule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(baseline().splitlines()) <= 30
    path = tmp_path / "logits.py"
    path.write_text(baseline())
    monkeypatch.setenv("KFBENCH_METHODS", str(tmp_path))
    assert "logits" in [row["name"] for row in listing.listing("methods", tmp_path)["methods"]]
    assert [(of, rule, broken) for of, rule, broken in checks.check_method(str(path)) if broken] == []


@pytest.mark.parametrize("name", STUDIES)
def test_a_committed_report_is_what_its_records_give(name: str, tmp_path: Path) -> None:
    kept = ROOT / "reports" / name
    folder = tmp_path / "reports" / name
    folder.mkdir(parents=True)
    for file in ("study.toml", "plan.json", "tuned.json"):
        if (kept / file).is_file():
            shutil.copy(kept / file, folder / file)
    page = report.make(folder, ROOT / "results")
    assert (kept / "plots" / "curves.png").is_file() == (page.done > 0)
    for file in ("README.md", "provenance.json"):
        assert (folder / file).read_text() == (kept / file).read_text(), f"stale: kfbench report reports/{name}"


def test_every_row_of_results_in_the_readme_is_a_row_of_a_report() -> None:
    reported = {
        plain(line) for name in STUDIES for line in (ROOT / "reports" / name / "README.md").read_text().splitlines()
    }
    rows = [plain(line) for line in README.splitlines() if "±" in line and line.startswith("|")]
    assert len(rows) > 5
    assert [row for row in rows if row not in reported] == []


def plain(line: str) -> str:
    return re.sub(r"\[\^[^]]*\]", "", line)


def test_every_command_and_option_shown_exists() -> None:
    from typer.main import get_command

    from kfbench.cli.main import app

    commands = get_command(app).commands  # type: ignore[attr-defined]
    shown = {line.split()[1] for line in re.findall(r"^    (kfbench .*)$", README, re.MULTILINE)}
    assert shown <= set(commands)
    known = {option for command in commands.values() for param in command.params for option in param.opts}
    assert set(re.findall(r"(?<=\s)--[a-z-]+(?=[ =])", README)) <= known
