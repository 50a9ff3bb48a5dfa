"""Families of networks by their files: one's own folder, packages, declarations that are wrong."""

import os
import re
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch

from kfbench import networks, registry
from kfbench.cli import new
from kfbench.conformance.networks import check_network
from kfbench.errors import KfbenchError
from kfbench.folders import PACKAGE
from kfbench.networks import family
from kfbench.running import teacher_names


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a network `mine` in a folder of one's own, as `kfbench new network mine` writes it."""
    monkeypatch.setenv("KFBENCH_NETWORKS", str(tmp_path))
    monkeypatch.setattr("kfbench.networks.__path__", networks.__path__)
    path = new.write("networks", "mine", None)
    assert path.parent == tmp_path
    monkeypatch.delitem(sys.modules, "kfbench.networks.mine", raising=False)
    return path


@pytest.mark.parametrize("file", [each.file for each in family.families()])
def test_every_family_keeps_the_rules(file: str) -> None:
    if file == "zoo":
        pytest.importorskip("timm")
    assert not [row for row in check_network(file) if row[2] is not None]


def test_a_file_in_ones_own_folder_is_a_network(mine: Path) -> None:
    assert "mine" in networks.names() and networks.is_name("mine") and not networks.is_name("mine-16")
    network = networks.make("mine", shape=(3, 16, 16), outputs=5)
    assert network(torch.rand(2, 3, 16, 16)).logits.shape == (2, 5)
    assert not [row for row in check_network("mine") if row[2] is not None]
    with pytest.raises(KfbenchError, match="no network 'mne'; did you mean 'mine'"):
        networks.make("mne", shape=(3, 16, 16), outputs=5)


def test_the_commented_pattern_of_the_template_works(mine: Path) -> None:
    [line] = [line for line in mine.read_text().splitlines() if line.startswith("#     pattern=")]
    text = mine.read_text().replace('says of it")', f'says of it", {line[6:]})')
    mine.write_text(text.replace("shape[0], 16,", 'shape[0], int(parts["width"]),'))
    assert networks.make("mine-8", shape=(3, 16, 16), outputs=5).get_parameter("body.head.weight").shape == (5, 32)
    assert not networks.is_name("mine") and not [row for row in check_network("mine-64") if row[2] is not None]


def test_an_outline_is_made_once_and_anew_after_its_file_has_changed(mine: Path) -> None:
    task = registry.load_task("digits")
    first = teacher_names.outline(task, "mine")
    assert first is teacher_names.outline(task, "mine") and first is not None
    mine.write_text(mine.read_text().replace("shape[0], 16,", "shape[0], 8,"))
    os.utime(mine, ns=(1, 1))
    second = teacher_names.outline(task, "mine")
    widths = [each.get_parameter("body.head.weight").shape[1] for each in (first, second) if each]
    assert widths == [64, 32]


def test_a_network_of_ones_own_trains_and_teaches(
    mine: Path, type_in: Any, packed_digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KFBENCH_DATA", str(packed_digits))
    monkeypatch.chdir(mine.parent)
    run = ("run", "--method", "kd", "--task", "digits", "--budget", "smoke", "--epochs", "1", "--batch-size", "256")
    done = type_in(*run, "--network", "mine", "--teachers", "digits/mine", "--threads", "1")
    assert done.code == 0, done
    done = type_in("list", "networks")
    assert done.code == 0 and "what kfbench list networks says of it" in done.out
    assert type_in("check", "mine").code == 0


def test_names_that_are_no_good_or_taken(mine: Path, type_in: Any, tmp_path: Path) -> None:
    for name, said in {
        "Mine": "cannot be a network's name; use small letters",
        "mine": "the name 'mine' is taken",
        "parts": "the name 'parts' is taken",
        "resnet8": "the name 'resnet8' is taken",
    }.items():
        done = type_in("new", "network", name)
        assert done.code == 2 and said in done.err and len(done.lines) == 1
    done = type_in("new", "network", "other", "--folder", tmp_path / "there")
    assert done.code == 0 and (tmp_path / "there" / "other.py").is_file() and "kfbench check other" in done.out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("FAMILY = Family(", "cannot be read: .*was never closed"),
        ("FAMILY = 3", "cannot be read: FAMILY must be a literal Family"),
        ("FAMILY = Family(about=1 + x)", "cannot be read: malformed"),
        ("FAMILY = Family(abuot='a')", "cannot be read: .*abuot"),
        ('FAMILY = Family("a", pattern="(")', "cannot be read: .*unterminated"),
    ],
)
def test_a_declaration_that_is_wrong_costs_only_its_own_line(mine: Path, text: str, said: str) -> None:
    mine.write_text(text + "\n")
    [row] = [each for each in family.families() if each.file == "mine"]
    assert re.search(said, row.about)
    assert networks.make("cnn-8", shape=(3, 8, 8), outputs=2)
    with pytest.raises(KfbenchError, match=r"no network 'mine': '.*mine.py' cannot be read: "):
        networks.make("mine", shape=(3, 8, 8), outputs=2)


def test_a_file_without_make_is_told(mine: Path) -> None:
    mine.write_text("from kfbench.networks.family import Family\n\nFAMILY = Family(about='nothing')\n")
    with pytest.raises(KfbenchError, match=r"mine.py' has no function make"):
        networks.make("mine", shape=(3, 8, 8), outputs=2)


def test_a_file_that_fails_when_it_is_imported_is_told(mine: Path) -> None:
    mine.write_text(mine.read_text() + "\n\nraise OSError('no')\n")
    line = mine.read_text().count("\n")
    with pytest.raises(KfbenchError, match=rf"network file 'mine' cannot be imported: OSError: no \(mine.py:{line}\)$"):
        networks.make("mine", shape=(3, 8, 8), outputs=2)


def test_a_file_that_makes_a_plain_module_is_told(mine: Path) -> None:
    text = mine.read_text()
    mine.write_text(text[: text.index("    return Network(")] + "    return body\n")
    with pytest.raises(
        KfbenchError, match=r"'make' of the network file 'mine' returned Mine, no Network; put .*layers=\("
    ):
        networks.make("mine", shape=(3, 8, 8), outputs=2)


def test_rules_that_a_network_breaks_are_told(mine: Path) -> None:
    text = mine.read_text().replace("Source:", "From:").replace("nn.ReLU()", "nn.ReLU(inplace=True)")
    text = text.replace('"body.stages.0.2", "body.stages.1.2"', '"body.stages.1.2", "body.stages.0.2"')
    head = "        self.head = nn.Linear(4 * width, outputs)\n"
    text = text.replace(head, "").replace("        self.stages = nn", head + "        self.stages = nn")
    mine.write_text(text.replace("x)).flatten(1))", "x)).flatten(1).detach())"))
    told = {rule: broken or "" for _, rule, broken in check_network("mine")}
    assert told["describes_itself"] == "the docstring of 'mine' has no line 'Source:'"
    assert "changes its input in place" in told["names_its_parts"]
    assert told["calls_layers_once_in_order"].startswith("layers are called as ['body.stages.0.2'")
    assert told["other_outputs_move_heads_only"].startswith("'body.stages.0.0.weight' changes")
    assert told["learns_everywhere"] == "'body.stages.0.0.weight' has no gradient" and not told["repeats_itself"]


def test_packages_offer_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        EntryPoint("theirs", "kfbench.networks.cnn", "kfbench.networks"),
        EntryPoint("broken", "no_such_package.thing", "kfbench.networks"),
    ]
    monkeypatch.setattr(family, "entry_points", lambda group: [p for p in points if p.group == group])
    found = {each.file: each for each in family.families()}
    assert found["theirs"].examples == found["cnn"].examples and found["theirs"].module == "kfbench.networks.cnn"
    assert found["broken"].about.startswith("'no_such_package.thing' cannot be read: ModuleNotFoundError")
    with pytest.raises(KfbenchError, match="no network 'broken': 'no_such_package.thing' cannot be read: ModuleNot"):
        networks.make("broken", shape=(3, 8, 8), outputs=2)


def test_listing_networks_needs_no_torch(mine: Path) -> None:
    code = (
        "import sys; from kfbench import networks; from kfbench.cli import listing; from pathlib import Path; "
        "rows = listing.listing('networks', Path())['networks']; assert 'mine' in [row['name'] for row in rows]; "
        "assert networks.is_name('mine'); print('torch' in sys.modules)"
    )
    environment = {"PYTHONPATH": str(PACKAGE.parent), "KFBENCH_NETWORKS": str(mine.parent)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_names_need_no_torch() -> None:
    code = "import sys; from kfbench import networks; assert networks.names(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
