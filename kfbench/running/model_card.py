"""The page of a student on the hub, made from its record: scores, teachers, settings, cost, and how to load it."""

from importlib import import_module
from typing import Any

from kfbench import registry
from kfbench.networks.network import Network
from kfbench.running.records import RunRecord
from kfbench.version import __version__

TEXT = """---
{header}
---

# {title}

A `{network}` trained with the method `{method}` on `{task}`: the student alone, without its teachers, as run `{key}` of
kfbench {version} kept it.

| score | on | |
|---|---|---:|
{scores}

{parameters:,.0f} parameters, {multiply_adds:,.1f} million multiply-adds an input of {shape}. Trained in
{seconds:,.0f} s, its teachers in {teacher_seconds:,.0f} s. The test split was read once, after the last step.

## Use

As a teacher:

    pip install 'kfbench[hub]'
    kfbench run --method kf --task {task} --teachers hf:{repository}

In a program, where `images` are [B, C, H, W] in 0..1 (their normalisation is part of the network):

```python
import kfbench

network = kfbench.load("hf:{repository}")
logits = network(images).logits
```

`model.safetensors` holds the weights and says what they are of; `config.json` has the classes, the scores and the run.

## How it was trained

{tables}
"""
# of a kind: the hub's name of such a task, and of what it measures, higher being better
HUB = {"images": ("image-classification", "accuracy"), "games": ("reinforcement-learning", "mean_reward")}
WHEN = {
    "last": "test, after the last step",
    "best": "test, of the step that was best on validation",
    "val": "validation, after the last step",
}


def text(record: RunRecord, network: Network, repository: str, *, licence: str = "") -> str:
    """Return the card as Markdown with the hub's header; every number in it is the record's."""
    spec, cost = record.spec, record.cost
    provenance = record.provenance
    teachers = {each["name"]: f"{each['network']}, weights {each['digest'][:12]}" for each in provenance["teachers"]}
    versions = ", ".join(f"{name} {value}" for name, value in provenance.get("versions", {}).items())
    made = {name: provenance[name] for name in ("commit", "device", "threads", "data") if provenance.get(name)}
    tables = (
        _table("teachers", teachers or {"none": ""}),
        _table("settings of the method", spec["settings"]),
        _table("recipe", {"budget": spec["budget"], "seed": spec["seed"], **spec["recipe"]}),
        _table("made with", {**made, "versions": versions}),
    )
    return TEXT.format(
        header=_header(record, repository, licence),
        title=repository.rpartition("/")[2],
        network=network.name,
        method=spec["method"],
        task=spec["task"],
        key=record.key,
        version=__version__,
        scores="\n".join(_scores(record)),
        parameters=cost["parameters"],
        multiply_adds=cost["multiply_adds"] / 1e6,
        shape="×".join(map(str, network.shape)),
        seconds=cost["seconds"],
        teacher_seconds=cost["teacher_seconds"],
        repository=repository,
        tables="\n\n".join(tables),
    )


def _header(record: RunRecord, repository: str, licence: str) -> str:
    """Return what the hub reads of the card, as YAML: library, tags, scores."""
    library = import_module("huggingface_hub")
    kind = registry.kind_of(record.spec["task"])
    called, metric = HUB.get(kind.name, ("other", kind.metric))
    good = kind.goodness(record.scores["last"])
    assert good is not None, "a finished run has its kind's score"
    task, title = record.spec["task"], repository.rpartition("/")[2]
    result = library.EvalResult(
        task_type=called,
        dataset_type=task,
        dataset_name=task,
        dataset_split="test",
        metric_type=metric,
        metric_value=round(good, 4),
    )
    tags = ["kfbench", "knowledge-transfer", record.spec["method"].partition("/")[0]]
    card = library.ModelCardData(
        library_name="kfbench", license=licence or None, tags=tags, model_name=title, eval_results=[result]
    )
    return str(card.to_yaml()).strip()


def _scores(record: RunRecord) -> list[str]:
    kind = registry.kind_of(record.spec["task"])
    return [
        f"| {kind.scored} | {when} | {record.scores[which][kind.metric]:.2f} |"
        for which, when in WHEN.items()
        if kind.metric in record.scores.get(which, {})
    ]


def _table(title: str, values: dict[str, Any]) -> str:
    """Return a table of two columns in Markdown."""
    rows = [f"| {name} | {str(value).replace('|', '/')} |" for name, value in values.items()]
    return "\n".join([f"| {title} | |", "|---|---|", *rows])
