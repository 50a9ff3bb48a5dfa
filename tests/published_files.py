"""Published photographs, small: archives with the true names and formats, as a user has them."""

import io
import json
import tarfile
import zipfile
from collections.abc import Callable

import numpy as np
from PIL import Image
from scipy.io import savemat

Files = dict[str, bytes]


def colour(label: int, number: int) -> tuple[int, int, int]:
    """What the middle of an image has: the class in red, the number in green."""
    return 5 + 10 * label, 10 * number + 5, 200


def picture(label: int, number: int, *, size: tuple[int, int] = (40, 60), foot: int = 0) -> bytes:
    """A JPEG whose middle square is of one colour and whose sides are white; `foot` rows are added below."""
    height, width = size
    made = Image.new("RGB", (width, height + foot), "white")
    side = min(size)
    corner = ((width - side) // 2, (height - side) // 2)
    made.paste(colour(label, number), (*corner, corner[0] + side, corner[1] + side))
    buffer = io.BytesIO()
    made.save(buffer, "jpeg", quality=100, subsampling=0)
    return buffer.getvalue()


def matlab(**values: object) -> bytes:
    buffer = io.BytesIO()
    savemat(buffer, values)
    return buffer.getvalue()


def tarred(files: Files) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def zipped(files: Files) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def lines(*rows: str) -> bytes:
    return ("\n".join(rows) + "\n").encode()


def flowers() -> Files:
    """Images 1.. in 102 classes, MATLAB lists; in train, val and test each class once."""
    count = 3 * 102
    labels = [(number - 1) % 102 + 1 for number in range(1, count + 1)]
    jpegs = {f"jpg/image_{n:05}.jpg": picture(labels[n - 1] % 20, (n - 1) // 102) for n in range(1, count + 1)}
    thirds = np.arange(1, count + 1).reshape(3, 102)
    return {
        "102flowers.tgz": tarred(jpegs),
        "imagelabels.mat": matlab(labels=np.array([labels], np.uint8)),
        "setid.mat": matlab(trnid=thirds[:1], valid=thirds[1:2], tstid=thirds[2:]),
    }


def pets() -> Files:
    """Names hold the breed and a number; cats begin with a capital. The lists count classes from 1."""
    breeds = ("Abyssinian", "american_bulldog")
    jpegs, lists = {}, {"trainval": ["# Image CLASS-ID SPECIES BREED ID"][:0], "test": []}
    for split, numbers in (("trainval", (0, 1, 2)), ("test", (3,))):
        for label, breed in enumerate(breeds):
            for number in numbers:
                jpegs[f"images/{breed}_{number + 1}.jpg"] = picture(label, number)
                lists[split].append(f"{breed}_{number + 1} {label + 1} {1 if breed[0].isupper() else 2} 1")
    annotations = {f"annotations/{split}.txt": lines(*rows) for split, rows in lists.items()}
    return {"images.tar.gz": tarred(jpegs), "annotations.tar.gz": tarred(annotations)}


def textures() -> Files:
    content: Files = {}
    for number, split in enumerate(("train", "val", "test")):
        names = [f"{label}/{label}_{number:04}.jpg" for label in ("banded", "zigzagged")]
        content[f"dtd/labels/{split}1.txt"] = lines(*names)
        content |= {f"dtd/images/{name}": picture(label, number) for label, name in enumerate(names)}
    return {"dtd-r1.0.1.tar.gz": tarred(content)}


def satellites() -> Files:
    names = [(label, kind, number) for label, kind in enumerate(("AnnualCrop", "SeaLake")) for number in range(5)]
    content = {f"2750/{kind}/{kind}_{n + 1}.jpg": picture(label, n, size=(64, 64)) for label, kind, n in names}
    return {"EuroSAT.zip": zipped(content)}


def aeroplanes() -> Files:
    """Names of variants have spaces and slashes; a banner of 20 rows is at the foot."""
    variants = ("707-320", "F/A-18", "Cessna 172")
    content: Files = {"data/variants.txt": lines(*variants)}
    for place, (split, numbers) in enumerate((("trainval", (0, 1, 2)), ("test", (3,)))):
        rows = []
        for label, variant in enumerate(variants):
            for number in numbers:
                name = f"{place}{label}{number:05}"
                content[f"data/images/{name}.jpg"] = picture(label, number, foot=20)
                rows.append(f"{name} {variant}")
        content[f"data/images_variant_{split}.txt"] = lines(*rows)
    return {"fgvc-aircraft-2013b.tar.gz": tarred({f"fgvc-aircraft-2013b/{n}": c for n, c in content.items()})}


def cars() -> Files:
    names = np.array(["AM General Hummer SUV 2000", "Ram C/V Cargo Van Minivan 2012"], object)
    files: Files = {}
    annotations = {}
    kind = [(part, object) for part in ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")]
    for split, numbers in (("train", (0, 1, 2)), ("test", (3, 4))):
        rows, jpegs = [], {}
        for label in (0, 1):
            for number in numbers:
                name = f"{len(rows) + 1:05}.jpg"
                rows.append((1, 1, 9, 9, label + 1, name))
                jpegs[f"cars_{split}/{name}"] = picture(label, number)
        annotations[split] = matlab(annotations=np.array([rows and tuple(row) for row in rows], kind)[None])
        files[f"cars_{split}.tgz"] = tarred(jpegs)
    devkit = {"devkit/cars_train_annos.mat": annotations["train"], "devkit/cars_meta.mat": matlab(class_names=names)}
    return files | {"car_devkit.tgz": tarred(devkit), "cars_test_annos_withlabels.mat": annotations["test"]}


def birds() -> Files:
    kinds = ("001.Black_footed_Albatross", "002.Laysan_Albatross")
    content: Files = {}
    rows: dict[str, list[str]] = {"images": [], "image_class_labels": [], "train_test_split": []}
    key = 0
    for label, kind in enumerate(kinds):
        for number in range(4):
            key += 1
            name = f"{kind}/{kind[4:]}_{number:04}_{key}.jpg"
            content[f"CUB_200_2011/images/{name}"] = picture(label, number)
            rows["images"].append(f"{key} {name}")
            rows["image_class_labels"].append(f"{key} {label + 1}")
            rows["train_test_split"].append(f"{key} {int(number != 3)}")
    content |= {f"CUB_200_2011/{name}.txt": lines(*values) for name, values in rows.items()}
    content["CUB_200_2011/classes.txt"] = lines(*(f"{n + 1} {kind}" for n, kind in enumerate(kinds)))
    return {"CUB_200_2011.tgz": tarred(content | {"attributes.txt": b"1 has_bill_shape::curved\n"})}


def dishes() -> Files:
    content: Files = {}
    lists: dict[str, dict[str, list[str]]] = {"train": {}, "test": {}}
    for label, dish in enumerate(("apple_pie", "waffles")):
        for number in range(4):
            name = f"{dish}/{1000 * label + number}"
            content[f"food-101/images/{name}.jpg"] = picture(label, number)
            lists["test" if number == 3 else "train"].setdefault(dish, []).append(name)
    content |= {f"food-101/meta/{split}.json": json.dumps(rows).encode() for split, rows in lists.items()}
    return {"food-101.tar.gz": tarred(content)}


def things() -> Files:
    """An archive in an archive, with a class of clutter that is none; one image is grey."""
    content = {}
    for label, kind in enumerate(("Faces", "accordion")):
        for number in range(33):
            content[f"101_ObjectCategories/{kind}/image_{number + 1:04}.jpg"] = picture(label, number % 20)
    grey = io.BytesIO()
    Image.new("L", (50, 50), 128).save(grey, "jpeg")
    content["101_ObjectCategories/accordion/image_0033.jpg"] = grey.getvalue()
    content["101_ObjectCategories/BACKGROUND_Google/image_0001.jpg"] = picture(9, 9)
    inner = {"caltech-101/101_ObjectCategories.tar.gz": tarred(content), "caltech-101/show_annotation.m": b"%"}
    return {"caltech-101.zip": zipped({**inner, "__MACOSX/caltech-101/._x": b"-"})}


def tiny() -> Files:
    wnids = ("n02124075", "n01443537")  # the list is not sorted; labels are those of the sorted one
    words = lines("n01443537\tgoldfish, Carassius auratus", "n02124075\tEgyptian cat", "n00001740\tentity")
    content: Files = {"wnids.txt": lines(*wnids), "words.txt": words}
    rows = []
    for label, wnid in enumerate(sorted(wnids)):
        for number in range(3):
            content[f"train/{wnid}/images/{wnid}_{number}.JPEG"] = picture(label, number, size=(64, 64))
        content[f"train/{wnid}/{wnid}_boxes.txt"] = b"x\t0\t0\t1\t1\n"
        content[f"val/images/val_{label}.JPEG"] = picture(label, 3, size=(64, 64))
        rows.append(f"val_{label}.JPEG\t{wnid}\t0\t32\t44\t62")
    content["val/val_annotations.txt"] = lines(*rows)
    content["test/images/test_0.JPEG"] = picture(7, 7, size=(64, 64))
    return {"tiny-imagenet-200.zip": zipped({f"tiny-imagenet-200/{name}": file for name, file in content.items()})}


# what is published, training and test images of the small copy, class names
SMALL: dict[str, tuple[Callable[[], Files], tuple[int, int], tuple[str, ...]]] = {
    "flowers102": (flowers, (204, 102), ()),
    "oxford-pets": (pets, (6, 2), ("Abyssinian", "American Bulldog")),
    "dtd": (textures, (4, 2), ("banded", "zigzagged")),
    "eurosat": (satellites, (8, 2), ("AnnualCrop", "SeaLake")),
    "aircraft": (aeroplanes, (9, 3), ("707-320", "F/A-18", "Cessna 172")),
    "cars": (cars, (6, 4), ("AM General Hummer SUV 2000", "Ram C/V Cargo Van Minivan 2012")),
    "cub200": (birds, (6, 2), ("Black footed Albatross", "Laysan Albatross")),
    "food101": (dishes, (6, 2), ("apple_pie", "waffles")),
    "caltech101": (things, (60, 6), ("Faces", "accordion")),
    "tiny-imagenet": (tiny, (6, 2), ("goldfish", "Egyptian cat")),
}
