"""README and committed reports say what the code does and what the records hold."""

import re
import shutil
from pathlib import Path

import pytest

from kfbench.cli import listing
from kfbench.conformance import checks
from kfbench.reporting import page as report

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
PAGES = {path.name: path.read_text() for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]}
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
    for file in ("study.toml", "plan.json", "tuned.json", "ranks.json"):
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
    for name in ("README.md", "results.md"):
        rows = [plain(line) for line in PAGES[name].splitlines() if "±" in line and line.startswith("|")]
        assert len(rows) > 5
        assert [row for row in rows if row not in reported] == []


def plain(line: str) -> str:
    return re.sub(r"\[\^[^]]*\]", "", line)


def test_every_command_and_option_shown_exists() -> None:
    from typer.main import get_command

    from kfbench.cli.main import app

    commands = get_command(app).commands  # type: ignore[attr-defined]
    every = [
        *commands.values(),
        *(sub for group in commands.values() for sub in getattr(group, "commands", {}).values()),
    ]
    known = {option for command in every for param in command.params for option in param.opts}
    for name, text in PAGES.items():
        lines = re.findall(r"^    (kfbench .*(?:\\\n.*)*)$", text, re.MULTILINE)
        for words in (line.split("    ")[0].split() for line in lines):
            assert words[1] in commands, f"{name}: kfbench {words[1]}"
            options = {word.partition("=")[0] for word in words if word.startswith("--")}
            assert options <= known, f"{name}: {options - known}"


def test_the_readme_is_short_and_its_links_lead_somewhere() -> None:
    assert len(README.splitlines()) <= 180
    for name, text in PAGES.items():
        folder = ROOT if name == "README.md" else ROOT / "docs"
        prose = re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.DOTALL)
        for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", prose):
            assert link.startswith("http") or (folder / link).exists(), f"{name}: {link}"
