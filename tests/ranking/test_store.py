"""Which teachers of a store are candidates where nobody named any."""

from pathlib import Path

import pytest
from pictures import SPLITS, folder, picture

from kfbench import networks
from kfbench.data.importing import import_images
from kfbench.data.named import whole_of
from kfbench.networks import weights
from kfbench.ranking import store
from kfbench.running import identity, imported, records, teacher_names
from kfbench.running.records import RunRecord
from kfbench.spec import digest


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KFBENCH_DATA", str(tmp_path / "data"))
    return tmp_path / "results"


def put(name: str, results: Path) -> None:
    """Record a teacher as `teacher train` does, without the training."""
    spec = teacher_names.read(name, budget="smoke").spec()
    known = identity.of(spec, [])
    record = RunRecord(key=digest(known), spec=spec.to_json(), identity=known, status="done")
    records.write(results / "teachers", record).with_suffix(".safetensors").write_bytes(b"")


def test_teachers_of_older_data_are_left_out_and_told(tmp_path: Path, results: Path) -> None:
    where = folder(tmp_path / "pets", *SPLITS, count=2)
    import_images("pets", [where])
    put("imagefolder/pets/cnn-4@smoke", results)
    put("imagefolder/pets/cnn-8@smoke", results)
    said: list[str] = []
    assert len(store.names(results, said.append)) == 2 and not said
    picture(where / "train" / "a" / "new.png")
    import_images("pets", [where])
    put("imagefolder/pets/cnn-8@smoke", results)
    assert list(store.names(results, said.append)) == ["imagefolder/pets/cnn-8@smoke"]
    assert said == ["left out, of older data or code, or of data that are not here: imagefolder/pets/cnn-4@smoke"]


def test_other_images_are_not_the_same_in_another_pack(tmp_path: Path, results: Path) -> None:
    where = folder(tmp_path / "pets", *SPLITS, count=2)
    for name in ("pets", "again", "others"):
        picture(where / "train" / "a" / "0.png") if name == "others" else None
        import_images(name, [where])
        put(f"imagefolder/{name}/cnn-4@smoke", results)
    assert store.others("imagefolder/pets", results) == ["imagefolder/others/cnn-4@smoke"]
    network = networks.make("cnn-4", shape=(1, 8, 8), outputs=2)
    for name in ("mnist", "mnist+5k", "flowers102", "flowers102+64"):
        weights.save(network, imported.path_of(results, name), {"task": name.replace("+", "/")})
    flowers, digits = ["imported:flowers102", "imported:flowers102+64"], ["imported:mnist", "imported:mnist+5k"]
    for task, of_it in {"mnist": digits, "mnist/5k": digits, "flowers102": flowers, "flowers102/64": flowers}.items():
        there = store.others(task, results)
        assert not {*of_it} & {*there} and len(there) == 5, task


@pytest.mark.parametrize(
    ("name", "whole"), [("mnist-5k", "mnist"), ("cars-64", "cars"), ("eurosat", "eurosat"), ("my-64", "my-64")]
)
def test_a_part_or_a_smaller_form_is_of_the_whole(name: str, whole: str) -> None:
    assert whole_of(name) == whole
