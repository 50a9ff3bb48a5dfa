"""What is typed wrongly: each in one line with exit code 2."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from console import RUN

from kfbench.cli import main

BAD = {
    "method": ("run --method kff --task digits", "no method 'kff'; did you mean 'kf'?"),
    "variant": (f"{RUN} --method kf/alnoe", "method 'kf' has no variant 'alnoe'; did you mean 'alone'?"),
    "task": ("run --method kf --task cifar10O", "no task 'cifar10O'; did you mean 'cifar10'?"),
    "task's variant": ("run --method kf --task digits/lwo", "no variant 'lwo' of task 'digits'; did you mean 'low'?"),
    "classes": ("run --method kf --task digits/5-10", "task 'digits' has no classes '5-10'; it has 0-9"),
    "network": (f"{RUN} --method scratch --network resnet9", "resnet9"),
    "network's name": (f"{RUN} --method scratch --network resnit8", "did you mean 'resnet8'?"),
    "budget": ("run --method kf --task digits --budget smoek", "no budget 'smoek'; did you mean 'smoke'?"),
    "teacher": (f"{RUN} --method kf --teachers digts/low", "no task 'digts'; did you mean 'digits'?"),
    "teacher's network": (f"{RUN} --method kf --teachers random:digits/cnn-0", "cnn-0"),
    "teacher's budget": (f"{RUN} --method kf --teachers digits/low@smal", "no budget 'smal'; did you mean 'small'?"),
    "teacher's recipe": (f"{RUN} --method kf --teachers digits/low@smoke:epoch=2", "did you mean 'epochs'?"),
    "teacher's library": (
        f"{RUN} --method kf --teachers torchvision:resnett18",
        "did you mean 'torchvision:resnet18'?",
    ),
    "teacher's run": (f"{RUN} --method kf --teachers run:0123", "begins with '0123'"),
    "teacher's file": (f"{RUN} --method kf --teachers file:nowhere.safetensors", "no weights 'nowhere.safetensors'"),
    "teacher of none": (
        f"{RUN} --method kf --teachers nowhere",
        "teacher 'nowhere': no task 'nowhere'; there is: .*; kfbench list teachers shows those that are made",
    ),
    "seed": (f"{RUN} --method scratch --seed 9223372036854775808", "9223372036854775808 is not below 2**63"),
    "no teachers": (f"{RUN} --method kf --teachers ,", "method 'kf' needs a teacher for task 'digits'; give"),
    "too many teachers": (f"{RUN} --method scratch --teachers digits", "method 'scratch' takes no teachers"),
    "setting": (f"{RUN} --method kd --set temprature=2", "has no setting 'temprature'; did you mean 'temperature'?"),
    "setting's type": (
        f"{RUN} --method kd --set temperature=hot",
        "setting 'temperature' of method 'kd' cannot be 'hot'",
    ),
    "setting's range": (f"{RUN} --method kd --set alpha=2", "less than or equal to 1"),
    "setting's choice": (f"{RUN} --method kf --set share=lerned", "'learned' or 'scheduled'"),
    "setting without value": (f"{RUN} --method kd --set temperature", "write --set temperature=VALUE"),
    "recipe": (f"{RUN} --method scratch --set-recipe lrr=1", "has no field 'lrr'; did you mean 'lr'?"),
    "recipe's range": (f"{RUN} --method scratch --epochs -1", "field 'epochs' .* greater than 0"),
    "recipe's infinity": (f"{RUN} --method scratch --epochs inf", "field 'epochs' .* cannot be inf: it should be a f"),
    "setting's infinity": (
        f"{RUN} --method kf --set hint=1e400",
        "setting 'hint' .* cannot be '1e400': it should be a",
    ),
    "recipe twice": (f"{RUN} --method scratch --set-recipe lr=1 --set-recipe lr=2", "gives 'lr' twice, 1 and 2; leave"),
    "recipe in two ways": (f"{RUN} --method scratch --epochs 2 --set-recipe epochs=1", "is given by --epochs and by"),
    "checkpoints": (f"{RUN} --method scratch --checkpoint-seconds nan", "--checkpoint-seconds"),
    "teacher's name": (f"{RUN} --method kf --teachers imported:", "teacher 'imported:' names none; write imported:…"),
    "teacher's mistyped network": (
        f"{RUN} --method kf --teachers digits/resnt56",
        "'resnt56' is no network; did you mean 'resn",
    ),
    "precision": (f"{RUN} --method scratch --precision fp8", "field 'precision'"),
    "a word for a size": (f"{RUN} --method scratch --train-size some", "give a whole number above 0, or all"),
    "frames": (
        "run --method scratch --task atari/pong --budget smoke --set-recipe frames=10",
        "10 frames are less than a rollout, 128 steps of 4 frames; give more",
    ),
    "train size": (f"{RUN} --method scratch --train-size 99999", "give --train-size 1295 or less"),
    "links": (f"{RUN} --method kf --teachers random:digits/low --set links=nowhere=0:x", "nowhere"),
    "other outputs": (
        f"{RUN} --method kd --teachers digits/low",
        "copies outputs, but teacher 'digits/low/.*' has other classes; use --teachers digits,",
    ),
    "other network": (
        f"{RUN} --method finetune --teachers digits/low/cnn-4",
        "copies weights, but teacher .* not the student's '",
    ),
    "kind": ("run --method kd --task atari/pong", "method 'kd' is for images, task 'atari/pong' is of games"),
    "game": ("run --method kf --task atari/pongg", "did you mean 'pong'?"),
    "missing data": (
        "run --method scratch --task svhn",
        "type: kfbench data download svhn, or with a copy: kfbench data",
    ),
    "imagefolder": ("run --method scratch --task imagefolder/ants", "kfbench data import ants PATH"),
    "device": (f"{RUN} --method scratch --device cuda:7", "no GPU 'cuda:7'"),
    "device's name": (f"{RUN} --method scratch --device gpu", "no device 'gpu'"),
    "results": (f"{RUN} --method scratch --results /proc/kfbench", "cannot write to '/proc/kfbench'"),
    "game's teacher": (
        "run --method kickstarting --task atari/pong --teachers digits",
        "copies outputs, but teacher 'digits/cnn-32@small' is of images; use --teachers atari/pong",
    ),
    "game's weights": (
        "run --method finetune --task atari/pong --teachers digits",
        "copies weights, but teacher 'digits/cnn-32@small' is of images, not of games; use a teacher of games, as "
        "atari/pong/a3c",
    ),
    "game's teachers": (
        "run --method kf --task atari/pong --teachers ,",
        "as atari/pong, or run:KEY, imported:NAME, file:PATH",
    ),
    "a file as teacher": (f"{RUN} --method kf --teachers plain.pth", "as a file of weights it is 'file:plain.pth'"),
    "mistyped pretrained": (
        f"{RUN} --method kf --teachers torchvision:resnet18:pretraind",
        "no network 'torchvision:resnet18:pretraind'; did you mean 'torchvision:resnet18:pretrained'?",
    ),
    "choice of teachers": (f"{RUN} --method kf --teachers best", "write best:K or best:K:SCORE"),
    "milestones": (f"{RUN} --method scratch --set-recipe milestones=1,2", "field 'milestones.0' .* less than 1"),
    "bench's precision": ("bench --task atari/pong --precision fp8", "field 'precision'"),
    "bench's network": ("bench --task atari/pong --network resnet8", "games are timed with the a3c network"),
    "bench's kind": ("bench --task atari/pong --method kd", "method 'kd' is for images, task 'atari/pong' is of games"),
    "key": ("show 0123456789ab", "no run in 'results'"),
    "key like a path": ("show /etc/passwd", "no run in 'results' with a key that begins with '/etc/passwd'"),
    "key like a pattern": ("play [ --out game.gif", "no run in 'results' with a key that begins with '['"),
    "export's key": ("export 0123456789ab student.pt2", "no run in 'results'"),
    "export's path": ("export 0123456789ab student.pth", "must end in .safetensors .* or .pt2"),
    "compare": ("compare kf/guided scratch", "'kf/guided' is a method; say with --task on which task to compare it"),
    "list": ("list method", "nothing to list as 'method'; did you mean 'methods'?"),
    "check": ("check kff", "no method, task or network 'kff'; did you mean 'kf'?"),
    "check's file": ("check nowhere.py", "no file 'nowhere.py'"),
    "bench": ("bench --method kff", "no method 'kff'; did you mean 'kf'?"),
    "bench of none": ("bench --task digits --method ,", "--method ',' names no method; leave it out for all of them"),
    "bench of nothing": ("bench --method=", "--method '' names no method; leave it out for all of them"),
    "template's name": ("new method Two-Words", "cannot be a method's name"),
    "template's place": ("new method kf", "the name 'kf' is taken among the methods"),
    "trained teacher": ("teacher train timm:resnet18", "is not trained; give TASK"),
    "data": ("data download cifar11", "did you mean 'cifar1"),
    "data to delete": ("data delete digts", "no data set 'digts' in '.*'; did you mean 'digits'?"),
    "teacher to delete": ("teacher delete imported:mine", "no teacher 'imported:mine' in 'results/teachers'; there is"),
    "archive": ("data import bugs nowhere.zip", "no file or folder 'nowhere.zip'"),
    "size": ("data import bugs . --size big", "big"),
}


@pytest.mark.parametrize(("words", "said"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_line_and_exit_code_2(words: str, said: str, type_in: Any, tmp_path: Path) -> None:

    done = type_in(*words.split())
    assert done.code == 2, done
    assert len(done.lines) == 1 and done.lines[0].startswith("error: ") and not done.out, done
    assert re.search(said if ".*" in said else re.escape(said), done.err), done.err
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]  # nothing half done


def test_studies_in_reports_are_named(type_in: Any) -> None:
    missing = "error: missing argument 'folder'; see kfbench study --help\n"
    assert type_in("study").err.lower() == missing  # an older typer shouts the argument
    for name in ("quick", "slow"):
        Path("reports", name).mkdir(parents=True)
        Path("reports", name, "study.toml").write_text("")
    assert (
        type_in("study").err == "error: which study? there is: reports/quick, reports/slow; see kfbench study --help\n"
    )
    for words in ("study", "report"):
        done = type_in(words, "quik")
        assert (done.code, done.out) == (2, "")
        assert done.err == "error: no study 'quik' (no file 'quik/study.toml'); did you mean 'reports/quick'?\n"
    done = type_in("report", "reports/none")
    assert done.err.endswith("(no file 'reports/none/study.toml'); there is: quick, slow\n")


def test_an_empty_name_is_not_all(type_in: Any) -> None:
    done = type_in("check", "")
    assert (done.code, done.err) == (2, "error: '' names no method, task or network; leave it out for all of them\n")


def test_the_debug_option_shows_where(type_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["kfbench", "--debug", "run", "--method", "kff", "--task", "digits"])
    with pytest.raises(main.KfbenchError, match="no method 'kff'"):
        main.main()
    assert type_in("show", "0123").code == 2  # and the next command does without


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (f"{RUN} --method kf --seed 1 --seed=-2", "--seed"),
        (f"{RUN} --method kff --method kdd", "--method"),
        ("data import pets no.zip --size 32x32 --size 64x64", "--size"),
        ("study nowhere --jobs 1 --at-once 2", "--jobs"),
    ],
)
def test_of_an_option_given_twice_the_last_counts_and_that_is_told(type_in: Any, words: str, option: str) -> None:
    """So a script can add one to those it has; and who did not mean it sees it."""
    done = type_in(*words.split())
    assert done.code == 2 and f"note: '{option}' is given twice: the last counts" in done.lines
    last = words.replace("--seed 1 ", "").replace("--method kff ", "").replace("--size 32x32 ", "")
    once = type_in(*last.replace("--jobs 1 ", "").split())
    assert [line for line in done.lines if not line.startswith("note: ")] == once.lines and once.lines


@pytest.mark.parametrize(
    "words",
    [
        "show 01", "list runs", "list teachers", "compare kd --task digits", "status", "delete 01", "verify 01",
        "export 01 a.pt2", "push 01 a/b", "play 01", "teacher list", "teacher show x", "teacher verify x",
    ],
)  # fmt: skip
def test_a_misspelt_results_folder_is_told_where_it_is_only_read(type_in: Any, words: str) -> None:
    said = "error: no folder 'reslts'; name the one with the records with --results\n"
    done = type_in(*words.split(), "--results", "reslts")
    assert (done.code, done.err) == (2, said)


def test_a_study_is_found_by_its_file_and_an_option_of_sbatch_needs_a_value(type_in: Any) -> None:
    Path("reports/a").mkdir(parents=True)
    file = Path("reports/a/study.toml")
    file.write_text('title = "A"\nbudget = "smoke"\nmethods = ["scratch"]\ntasks = ["cars"]\n')
    by_file, by_folder = (type_in("report", path, "--results", ".") for path in (file, file.parent))
    assert by_file == by_folder and "plan" in by_file.err
    done = type_in("study", file, "--dry-run", "--on", "slurm", "--slurm", "partition")
    assert (done.code, done.err) == (2, "error: --slurm 'partition' has no value; write --slurm partition=VALUE\n")
