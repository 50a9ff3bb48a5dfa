"""The report's page and the index: complete, self-contained, sound HTML, seen in a real browser."""

import html
import html.parser
import re
import shutil
import subprocess

import pytest

from kfbench.cli import study
from kfbench.reporting import grid, overview, run_list
from kfbench.reporting import page as report
from kfbench.running import records
from kfbench.spec import digest
from kfbench.studies import definition

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Reader(html.parser.HTMLParser):
    """Collects ids, links, and tags that stay open."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.ids += [values["id"]] if "id" in values else []
        self.links += [values[name] for name in ("href", "src", "xlink:href") if values.get(name)]
        if tag not in ("meta", "link", "br", "img", "hr", "input"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page(reported):
    reader = Reader()
    text = (reported[0] / "index.html").read_text()
    reader.feed(text)
    return text, reader


def keep_one(results):
    """Leave one record: where plots are not looked at, few are drawn."""
    for path in sorted(results.rglob("*.json"))[1:]:
        path.unlink()


def test_the_page_is_sound_html(page):
    _, reader = page
    assert reader.open == []
    assert len(set(reader.ids)) == len(reader.ids)


def test_what_scrolls_can_be_reached_by_keys_and_signs_have_names(page):
    text, _ = page
    scrolls = re.findall(r'<div class="scroll[^>]*>', text)
    assert len(scrolls) > 8 and all('tabindex="0" role="' in tag and 'aria-label="' in tag for tag in scrolls)
    assert re.findall(r">([▲▼])<", text) and not re.findall(r'(?<!than scratch)">[▲▼]<', text)


def test_the_page_needs_no_network_and_its_links_lead_somewhere(page, reported):
    text, reader = page
    assert "<script" not in text and "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    folder, _ = reported
    for link in reader.links:
        if link.startswith("data:image/png;base64,"):  # the scale of the heat map
            continue
        assert not link.startswith(("http", "//", "data:")), link
        target = link.partition("#")
        assert target[2] in reader.ids if not target[0] else (folder / target[0]).exists(), link


def test_claims_come_first_then_tables_plots_runs(page):
    text, _ = page
    places = [text.index(f'<section id="{name}">') for name in ("claims", "tables", "plots", "runs", "rerun")]
    assert places == sorted(places)
    assert text.count('class="chip">reproduced') == 3 and text.count('class="chip">undecided') == 1


def test_every_run_is_on_the_page_with_its_curve(page, reported):
    text, _ = page
    keys = [record.key for record in records.records(reported[1])]
    assert len(keys) == 53 and all(f"<code>{key}</code>" in text for key in keys)
    assert text.count("<polyline") == 53
    assert "Diverged: loss is nan at step 40" in text


def test_text_of_people_is_escaped_everywhere(small):
    """Title, about, labels, claims, sources and errors of runs, on the page, in Markdown and in LaTeX."""
    folder, results = small
    nasty = "<script>alert(1)</script> & *co* |"
    path = folder / "study.toml"
    text = path.read_text().replace("A small study", nasty).replace("Made for tests.", f"About {nasty}")
    for old in ("kf beats scratch on images", "somebody 2020, table 1"):
        text = text.replace(old, f"{old} {nasty}")
    path.write_text(text)
    for file in results.rglob("*.json"):
        if '"Diverged' in file.read_text():
            file.write_text(file.read_text().replace("loss is nan", "loss is <i>nan</i>"))
    report.make(folder, results)
    for name in ("index.html", "README.md", "tables/scores.md", "tables/scores.tex"):
        written = (folder / name).read_text()
        assert "script" in written and not re.search(r"<script|<i>", written), name
        assert not name.endswith(".md") or not re.search(r"[^\\]\*co", written), name
    assert report.index(folder.parent, results, {}, str).read_text().count("<script") == 0


def test_the_page_begins_with_who_won(page):
    text, _ = page
    top = text[: text.index('<section id="claims">')]
    assert "Best on average: kf, +" in top and ">3 reproduced<" in top and top.count('class="track"') == 3


def test_a_run_that_two_rows_share_counts_once_on_the_page_and_in_the_index(small):
    folder, results = small
    study = definition.load(folder)
    cells = grid.load(folder, study, results)
    twin = study.model_copy(update={"methods": [*study.methods, study.methods[0].model_copy(update={"label": "twin"})]})
    shared = {("twin", column): cell for (row, column), cell in cells.cells.items() if row == "scratch"}
    both = grid.Grid(twin, cells.cells | shared)
    of = report._of(both, overview.of(both, []))
    assert (of.done, of.planned) == (52, 60) and report._facts(both)[0] == ("52 of 60", "runs")


def test_hardware_is_a_line_a_kind_whatever_the_commits(reported):
    done = [record for record in records.records(reported[1]) if record.status == "done"][:6]
    told = [{"processor": "P", "device": "cpu", "threads": 1, "versions": {"torch": "2.14"}}] * 5 + [{"device": "cuda"}]
    told = [each | {"commit": f"{n % 4}" * 40, "code_changed": n == 0} for n, each in enumerate(told)]
    runs = [record.model_copy(update={"provenance": each}) for record, each in zip(done, told, strict=True)]
    assert run_list.places(runs) == [
        "5 runs: P, cpu, 1 thread; torch 2.14; 4 commits, which the records name; 1 run with changes not committed.",
        "1 run: cuda; commit 111111111111.",
    ]
    assert run_list.places(runs[:2])[0].startswith("2 runs: P, cpu, 1 thread; torch 2.14; commit 000000000000, 1111")


def test_a_run_is_called_failed_with_its_reason_where_it_failed_alone(reported):
    """One that has no such score, as of the best weights, is finished all the same."""
    folder, results = reported
    cells = grid.load(folder, definition.load(folder).model_copy(update={"score": "best"}), results)
    cell = next(cell for cell in cells.cells.values() if cell.failed)
    told = [(run["score"], run["time"]) for run in run_list.cell(cells, cell, folder, results)["runs"]]
    assert ("failed", "Diverged: loss is nan at step 40") in told
    assert [score for score, _ in told].count("failed") == len(cell.failed) < len(told)
    bare = grid.Cell(cell.planned, (cell.done[0].model_copy(update={"scores": {}}),))
    assert run_list.cell(cells, bare, folder, results)["runs"][0]["score"] == "no score"


def test_one_is_singular(small):
    folder, results = small
    study = definition.load(folder).model_copy(update={"seeds": [0]})
    one = study.model_copy(update={"methods": study.methods[:1], "tasks": study.tasks[:1]})
    cells = grid.load(folder, study, results).cells
    lone = grid.Grid(one, {("scratch", "cifar10, 250 images"): cells["scratch", "cifar10, 250 images"]})
    assert report._facts(lone)[:4] == [("1 of 1", "run"), (1, "method"), (1, "task"), (1, "seed")]
    assert report._of(lone, overview.of(lone, [])).told == "1 of 1 run"


def test_the_index_names_the_study(reported):
    text = (reported[0].parent / "index.html").read_text()
    assert 'href="small/index.html"' in text and "52 of 60 runs" in text


def test_a_neighbour_that_cannot_be_read_is_left_out_of_the_index(small, capsys):
    folder, results = small
    broken = folder.parent / "broken"
    shutil.copytree(folder, broken)
    (broken / "study.toml").write_text("title = ")
    keep_one(results)
    study.report([folder], results)
    told = capsys.readouterr()
    assert told.out.startswith(f"{folder / 'index.html'}: 1 of 60 runs") and "left out of" in told.err
    text = (folder.parent / "index.html").read_text()
    assert 'href="small/index.html"' in text and "broken" not in text


def test_a_study_without_any_record_has_a_page(small):
    folder, results = small
    shutil.rmtree(results)
    made = report.make(folder, results)
    assert made.done == 0 and made.planned == 60
    text = (folder / "index.html").read_text()
    assert "0 of 60" in text and "no finished runs to compare yet" in text and "<figure" not in text
    assert "kfbench report reports/small" in text


def test_commands_name_the_folder_of_a_study_that_lies_elsewhere(small):
    folder, results = small
    elsewhere = folder.rename(results.parent / "pets and cars")
    keep_one(results)
    report.make(elsewhere, results)
    text = html.unescape((elsewhere / "index.html").read_text())
    assert "reports/small" not in text
    assert f"kfbench study '{elsewhere}'\nkfbench report '{elsewhere}'" in text
    assert f"kfbench study '{elsewhere}' --row" in text
    other = results.rename(results.with_name("my runs"))
    report.make(elsewhere, other)
    text = html.unescape((elsewhere / "index.html").read_text())
    for line in (f"study '{elsewhere}' --results '{other}'\n", f"study '{elsewhere}' --results '{other}' --row"):
        assert f"kfbench {line}" in text
    assert re.search(f"kfbench verify [0-9a-f]{{12}} --results '{other}'\n?</pre>", text)


def test_runs_that_do_not_belong_together_are_told_of_in_bold_below_the_headline(small):
    folder, results = small
    old, other = [
        record
        for record in records.records(results)
        if (record.spec["method"], record.spec["task"]) == ("scratch", "cifar100") and record.spec["seed"] < 2
    ]
    shutil.rmtree(results)
    identity = old.identity | {"data": "1" * 64}
    records.write(results, old.model_copy(update={"identity": identity, "key": digest(identity)}))
    records.write(results, other)
    report.make(folder, results)
    told = "The runs of cifar100 were made with 2 different versions of its data."
    told += " {} makes those anew that are not of today."
    readme_text, text = ((folder / name).read_text() for name in ("README.md", "index.html"))
    assert f"\n\n**{told.format('`kfbench study`')}**\n\n## Claims" in readme_text
    assert f'<p><strong>{told.format("<code>kfbench study</code>")}</strong></p>\n<p class="tally">' in text
    assert readme_text.count("The runs of") == text.count("The runs of") == 1


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
@pytest.mark.parametrize(("name", "width"), [("desk", 1200), ("phone", 600)])
def test_a_browser_shows_it(reported, tmp_path, name, width):
    """The page renders: ink on paper over the whole width, nothing scrolls sideways but tables and plots."""
    from PIL import Image

    picture = tmp_path / f"{name}.png"
    options = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--user-data-dir={tmp_path}/user",
    ]
    where = (reported[0] / "index.html").as_uri()
    command = [BROWSER, *options, f"--window-size={width},1600", f"--screenshot={picture}", where]
    subprocess.run(command, check=True, capture_output=True, timeout=180)
    with Image.open(picture) as image:
        grey = image.convert("L")
        assert grey.size == (width, 1600)
        assert len(grey.resize((60, 80)).getcolors()) > 20
        assert grey.getpixel((2, 1500)) > 240  # the margin is paper
