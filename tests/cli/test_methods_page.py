"""The page of methods is what the files say."""

from pathlib import Path

from kfbench import registry
from kfbench.cli import methods_page

PLACE = Path(__file__).parents[2] / "docs" / "methods.md"


def test_the_page_of_methods_is_current() -> None:
    assert PLACE.read_text() == methods_page.page(), "run python -m kfbench.cli.methods_page"


def test_the_page_has_every_method_with_its_source_settings_and_variants() -> None:
    text = methods_page.page()
    for name in registry.files("methods"):
        section = text.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        assert "**Source:**" in section and "**Differs:**" in section, name
        row = registry.describe("methods", name)
        for setting in row["settings"]:
            assert f"| `{setting}` |" in section
        for variant in row["attributes"].get("variants", {}):
            assert f"`{name}/{variant}`" in section


def test_a_setting_is_shown_with_its_default_comment_and_search_space() -> None:
    line = next(line for line in methods_page.page().splitlines() if line.startswith("| `negatives`"))
    assert line == "| `negatives` | `16384` | K, an image |  |"
    line = next(line for line in methods_page.page().splitlines() if line.startswith("| `tau` | `0.07`"))
    assert line.endswith("| 0.02 to 0.5, log |")
