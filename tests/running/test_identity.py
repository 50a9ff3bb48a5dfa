"""Committed records stay valid: their keys fit, and today's code gives their specs the same keys."""

from pathlib import Path

import pytest

from kfbench import registry
from kfbench.data import packs
from kfbench.data.packs import PINNED
from kfbench.errors import KfbenchError
from kfbench.methods import Method
from kfbench.running import identity, records, resolve, teacher_names
from kfbench.running.files import record_files
from kfbench.running.records import RunRecord
from kfbench.spec import RunSpec, digest
from kfbench.tasks import ImageTask

RESULTS = Path(__file__).resolve().parents[2] / "results"
PATHS = [path for folder in (RESULTS, RESULTS / "teachers") for path in record_files(folder)]

pytestmark = pytest.mark.skipif(not PATHS, reason="the records are in the checkout only")


@pytest.fixture(scope="module")
def committed() -> list[RunRecord]:
    """All of them; reading one checks that its key is the digest of its identity."""
    return [records.read(path) for path in PATHS]


def of_today(committed: list[RunRecord]) -> list[tuple[RunRecord, RunSpec, Method]]:
    """Return the records of the present revisions of their methods: others no longer count as those runs."""
    present = []
    for record in committed:
        try:
            method = registry.recorded_method(record.spec["method"], record.spec["settings"])
        except KfbenchError:  # of a setting that an earlier revision had
            assert record.identity["method_revision"] < registry.method_class(record.spec["method"]).revision
            continue
        if record.identity["method_revision"] == method.revision:
            present.append((record, record.run_spec(), method))
    assert len(present) > 0.9 * len(committed)
    return present


def test_a_records_place_and_spec_are_what_its_key_is_of(committed: list[RunRecord]) -> None:
    assert len(committed) > 100
    for path, record in zip(PATHS, committed, strict=True):
        spec = record.run_spec()
        assert digest(record.identity) == record.key == path.stem
        assert spec.to_json() == record.spec == record.identity["spec"]
        assert path.as_posix().endswith(records.path_of(Path("results"), record.key, spec).as_posix()[len("results") :])


def test_their_specs_have_the_same_identity_today(committed: list[RunRecord]) -> None:
    for record, spec, method in of_today(committed):
        task = registry.load_task(spec.task)
        if isinstance(task, ImageTask):
            assert record.identity["data"] == PINNED.get(task.dataset, record.identity["data"])
            needed = [task, *identity.stage_tasks(method, spec).values()]
            if not {each.dataset for each in needed if isinstance(each, ImageTask)} <= {*packs.packed()}:
                continue  # the data are not on this machine
        assert identity.of(spec, record.identity["teachers"]) == record.identity, record.key


def test_what_was_typed_gives_the_same_spec_today(committed: list[RunRecord]) -> None:
    for record, spec, method in of_today(committed):
        if registry.split(spec.method)[1] in method.instead_of_teachers:
            continue  # its recipe is already longer
        again = resolve.resolve(
            spec.method,
            spec.task,
            budget=spec.budget,
            teachers=spec.teachers,
            seed=spec.seed,
            recipe=record.spec["recipe"],
            settings=vars(method),
        )
        assert again.to_json() == record.spec, record.key


def test_a_teachers_name_is_the_spec_that_trained_it(committed: list[RunRecord]) -> None:
    trained = {digest(record.spec): record for record in committed}
    asked = {(name, record.spec["budget"]) for record in committed for name in record.spec["teachers"]}
    found = 0
    for text, budget in asked:
        name = teacher_names.read(text, budget=budget)
        if name.kind == "trained":
            by_resolving = resolve.resolve(
                "scratch", name.task, budget=name.budget, recipe={"network": name.network, **dict(name.recipe)}
            )
            assert name.spec() == by_resolving and str(name) == text
            found += digest(name.spec().to_json()) in trained
    assert found > 5
