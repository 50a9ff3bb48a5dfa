"""What is typed wrongly: each in one line with exit code 2."""

import pickle
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from console import imported_by

from kfbench import networks
from kfbench.cli import main
from kfbench.networks import weights

RUN = "run --task digits --budget smoke"
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


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (open, ("executed", "w"))


def test_teacher_files_that_are_not_whole_safetensors_are_refused(type_in: Any, recorded: Path, tmp_path: Path) -> None:
    [good] = recorded.glob("digits/scratch/*.safetensors")
    Path("cut.safetensors").write_bytes(good.read_bytes()[:-100])
    Path("pickle.safetensors").write_bytes(pickle.dumps(Evil()))
    torch.save({"weight": torch.zeros(2)}, "torch.pt")
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(2)}, "foreign.safetensors")
    save_file({"weight": torch.zeros(2)}, "other.safetensors")
    Path("other.safetensors.json").write_text('{"network": "cnn-4", "shape": [1, 8, 8], "outputs": 10}')
    for name, said in {
        "cut.safetensors": "not a whole safetensors file",
        "pickle.safetensors": "are refused: save",
        "torch.pt": "does not say what it is",
        "foreign.safetensors": "does not say what it is",
        "other.safetensors": "are not those of 'cnn-4'",
    }.items():
        done = type_in(*RUN.split(), "--method", "kf", "--teachers", f"file:{name}")
        assert done.code == 2 and len(done.lines) == 1 and said in done.err and name in done.err, done
    assert not Path("executed").exists()


def test_a_teacher_file_of_other_outputs_or_network_is_refused(type_in: Any) -> None:
    network = networks.make("cnn-4", shape=(1, 8, 8), outputs=5)
    weights.save(network, Path("five.safetensors"), {"classes": list("abcde")})
    done = type_in(*RUN.split(), "--method", "kd", "--teachers", "file:five.safetensors")
    assert done.code == 2 and "has 5 others" in done.err and len(done.lines) == 1
    done = type_in(*RUN.split(), "--method", "finetune", "--teachers", "file:five.safetensors", "--network", "cnn-8")
    assert done.code == 2 and "is a 'cnn-4'" in done.err and len(done.lines) == 1


def test_bad_archives_are_one_line(type_in: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KFBENCH_DATA", str(tmp_path / "data"))
    Path("bad.zip").write_bytes(b"PK\x03\x04 and no more")
    with zipfile.ZipFile("image.zip", "w") as archive:
        for split in ("train", "test"):
            archive.writestr(f"{split}/ant/0.png", b"no image")
            archive.writestr(f"{split}/bee/0.png", b"no image")
    with zipfile.ZipFile("classes.zip", "w") as archive:
        archive.writestr("train/ant/0.png", b"")
        archive.writestr("test/bee/0.png", b"")
    Path("empty").mkdir()
    for name, said in {
        "bad.zip": "is no sound zip archive",
        "image.zip": "ant/0.png",
        "classes.zip": "class 'ant' is in train/ and not in test/",
        "empty": "holds no images",
    }.items():
        done = type_in("data", "import", "bugs", name)
        assert done.code == 2 and len(done.lines) == 1 and said in done.err and name in done.err, done
    assert not list((tmp_path / "data").glob("*"))


MISTAKES = {
    "run --method kff --task digits": "no method 'kff'; did you mean 'kf'?",
    "run --method knowledge_flow --task digits": "no method 'knowledge_flow'; did you mean 'kf'?",
    "run --method kf,kd --task digits": (
        "one name is taken here, not 'kf,kd'; several are a study: kfbench new study NAME"
    ),
    "run --method kf --task digits --weight-decay=0": (
        "no option --weight-decay; it is a field of the recipe: --set-recipe weight_decay=VALUE; see kfbench run --help"
    ),
    "run --method kd --task digits --temperature 3": (
        "no option --temperature; as a setting of the method it is --set temperature=VALUE; see kfbench run --help"
    ),
    "run --method kf/guidde --task digits": "method 'kf' has no variant 'guidde'; did you mean 'guided'?",
    "run --method kf --task digitss": "no task 'digitss'; did you mean 'digits'?",
    "run --method kf --task digits --budget smal": "no budget 'smal'; did you mean 'small'?",
    "search --method no.py --task digits": "no file 'no.py'; give a method's name or the path of its file",
    "run --method kf --task digits --network resnt20": "no network 'resnt20'; did you mean 'resnet20'?",
    "bench --teacher resnt20": "no network 'resnt20'; did you mean 'resnet20'?",
    "teacher import a.pth --network resnt20 --task cifar10": "no network 'resnt20'; did you mean 'resnet20'?",
    "teacher import a.pth --network resnet20 --task cifar11": "no task 'cifar11'; did you mean 'cifar10'?",
    "check kff": "no method, task or network 'kff'; did you mean 'kf'?",
    "check kf/guidde": "method 'kf' has no variant 'guidde'; did you mean 'guided'?",
    "check no.py": "no file 'no.py'; give a method's name or the path of its file",
    "study no": "no study 'no' (no file 'no/study.toml'); there is: other",
    "study other --row kff": "study 'other' has no row 'kff'; did you mean 'kf'?",
    "study other --column digitss": "study 'other' has no column 'digitss'; did you mean 'digits'?",
    "study other --on slrum": "no engine 'slrum'; did you mean 'slurm'?",
    "study other --device cudda": "no device 'cudda'; use cpu, cuda, cuda:N, mps or auto",
    "study other --slurm partition=gpu": "--slurm is for --on slurm, and this is --on local",
    "study other --memory 4": "--memory is for --on ray and --on slurm, and this is --on local",
    "study other --on slurm --checkpoint-mb 9": "--checkpoint-mb is for --on ray, and this is --on slurm",
    f"{RUN} --method kd --set temprature=2": "method 'kd' has no setting 'temprature'; did you mean 'temperature'?",
    f"{RUN} --method kd --set-recipe lrr=1": "the recipe of task 'digits' has no field 'lrr'; did you mean 'lr'?",
    f"{RUN} --method kf --teachers random:digts/low,digits": (
        "teacher 'random:digts/low': no task 'digts'; did you mean 'digits'?"
    ),
    f"{RUN} --method kf --teachers digits --teachers digts": (
        "teacher 'digts': no task 'digts'; did you mean 'digits'?"
    ),
    f"{RUN} --method kf --teachers digits@smal": "no budget 'smal'; did you mean 'small'?",
    f"{RUN} --method kd --log tensorbord": "no log 'tensorbord'; did you mean 'tensorboard'?",
    f"{RUN} --method kd --device gpu": "no device 'gpu'; use cpu, cuda, cuda:N, mps or auto",
    "search --method kd --task digits --teachers digts": "teacher 'digts': no task 'digts'; did you mean 'digits'?",
    "rank --task digits --by logmee": "no score 'logmee'; did you mean 'logme'?",
    "report .": "'.' holds studies and is none; name one: other",
    "report no": "no study 'no' (no file 'no/study.toml'); there is: other",
    "bench --method kd,kff": "no method 'kff'; did you mean 'kf'?",
    "bench --task digitss": "no task 'digitss'; did you mean 'digits'?",
    "export no a.pt2": "no run in 'results' with a key that begins with 'no'; kfbench list runs shows all",
    "export no a.onnx": "'a.onnx' must end in .safetensors (weights) or .pt2 (a program)",
    "push no me/it": "no run in 'results' with a key that begins with 'no'; kfbench list runs shows all",
    "play no": "no run in 'results' with a key that begins with 'no'; kfbench list runs shows all",
    "data download cifra10": "no download for data set 'cifra10'; did you mean 'cifar10'?",
    "data import Pets other": "'Pets' cannot name a data set; use small letters, digits, '-', '_' and '.'",
    "data import dtd-64 other": "'dtd-64' is a data set that others published; import your images under another name",
    "data import pets no.zip": "no file or folder 'no.zip'",
    "data import cub200 no.tgz": "no file or folder 'no.tgz'; give CUB_200_2011.tgz",
    "data import pets other --size 32": "size '32' is not HxW in pixels, as 32x32",
    "teacher import no.pth --network cnn-4 --task digits": (
        "no weights 'no.pth'; give a .safetensors file, as kfbench export writes, or a .pth file"
    ),
    "teacher train digitss": "teacher 'digitss': no task 'digitss'; did you mean 'digits'?",
    "verify no": "no run in 'results' with a key that begins with 'no'; kfbench list runs shows all",
}


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


@pytest.mark.parametrize("words", MISTAKES)
def test_a_user_meets_the_same_in_a_process_of_its_own_and_at_once(words: str) -> None:
    Path("other").mkdir()
    Path("other/study.toml").write_text('title = "Other"\nmethods = ["scratch", "kf"]\ntasks = ["digits"]\n')
    done, imported = imported_by(*words.split())
    assert (done.code, done.out, done.err) == (2, "", f"error: {MISTAKES[words]}\n") and "torch" not in imported


RAISES = """
from dataclasses import dataclass

from kfbench.methods import Method


@dataclass(frozen=True)
class Mine(Method):
    def losses(self, student, teachers, batch, task, progress):
        return super().losses(student, teachers, batch, task, 1 / 0)
"""


def test_a_fault_of_ones_own_method_is_shown_from_its_file_on(type_in: Any) -> None:
    Path("mine.py").write_text(RAISES)
    done = type_in("run", "--method", "mine.py", *RUN.split()[1:])
    assert done.code == 1 and done.err.endswith("ZeroDivisionError: division by zero\n")
    files = re.findall(r'^  File "(.*)", line', done.err, re.MULTILINE)
    assert [Path(file).name for file in files] == ["mine.py"]


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
