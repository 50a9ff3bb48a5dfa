"""What is typed wrongly in a process of its own: the same line as in any other, and at once, without torch."""

from pathlib import Path

import pytest
from console import RUN, imported_by

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


@pytest.mark.parametrize("words", MISTAKES)
def test_a_user_meets_the_same_in_a_process_of_its_own_and_at_once(words: str) -> None:
    Path("other").mkdir()
    Path("other/study.toml").write_text('title = "Other"\nmethods = ["scratch", "kf"]\ntasks = ["digits"]\n')
    done, imported = imported_by(*words.split())
    assert (done.code, done.out, done.err) == (2, "", f"error: {MISTAKES[words]}\n") and "torch" not in imported
