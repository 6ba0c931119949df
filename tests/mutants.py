"""Do the tests notice? Small changes for the worse, one after the other, each of which some test must fail on.

    .venv/bin/python tests/mutants.py            all of them, about ten minutes on one core
    .venv/bin/python tests/mutants.py fit foci   those whose file, change or tests hold one of these words

Each is made in a copy of the checkout, where the named tests run. Not part of `make test`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
MUTANTS = [  # file, seen from covid_utils, what stands there, what is put in its place, the tests that must notice
    # data
    ("data.py", "RandomSampler(slices) if shuffle else", "SequentialSampler(slices) if shuffle else", "test_data.py"),
    ("data.py", "drop_last=lonely", "drop_last=False", "test_data.py"),
    ("data.py", "table.patient if split ==", "table.path if split ==", "test_data.py"),
    ("data.py", 'for part, spare in (("test", 2), ("val", 1)):', 'for part, spare in (("test", 2),):', "test_data.py"),
    ("data.py", "torch.deg2rad(10 * angle)", "torch.deg2rad(40 * angle)", "test_data.py"),
    # models
    ("models.py", "if learns and not any(learns):", "if False:", "test_models.py"),
    ("models.py", "STAGES[STAGES.index(first) :]", "STAGES[STAGES.index(first) + 1 :]", "test_models.py"),
    ("models.py", "return learns[0]", "return learns[-1]", "test_cached.py"),
    ("models.py", "model.bfloat16.get(direction, True)", "True", "test_formats.py"),
    ("runs/formats.py", "min(seconds[True]) < 1.1 * min(", "min(seconds[True]) > min(", "test_formats.py"),
    ("runs/formats.py", "trial = copy.deepcopy(model).eval()", "trial = model.eval()", "test_formats.py"),
    ("runs/checkpoints.py", 'self.parts["model"].bfloat16 |= found', "_ = found", "test_formats.py"),
    ("data.py", "greys: bool = False", "greys: bool = True", "test_data.py"),
    ("models.py", "Preprocessing(**preprocessing_of(notes))", "Preprocessing()", "test_models.py"),
    ("models.py", "CT_MEAN, CT_STD = 0.6, 0.3", "CT_MEAN, CT_STD = 0.3, 0.6", "test_models.py"),
    # training
    (
        "training.py",
        'loader(data, "train", settings.batch_size, shuffle=True, augmented=True)',
        'loader(data, "train", settings.batch_size, shuffle=False, augmented=True)',
        "test_training.py",
    ),
    (
        "training.py",
        'loader(data, "train", settings.batch_size, shuffle=True, augmented=True)',
        'loader(data, "train", settings.batch_size, shuffle=True, augmented=False)',
        "test_training.py",
    ),
    ("training.py", "    optimizer.zero_grad()\n", "", "test_training.py"),
    ("training.py", "        scheduler.step()\n", "        pass\n", "test_training.py"),
    ("training.py", "ascending=[False, True]", "ascending=[False, False]", "test_training.py"),
    ("training.py", "momentum=0.99", "momentum=0.9", "test_training.py"),
    ("training.py", "    checkpoints.load_best()\n", "    model.eval()\n", "test_training.py"),
    # sweeps
    ("runs/plans.py", "if key in seen:", "if False:", "test_sweep.py"),
    ("runs/plans.py", "name not in known", "False", "test_sweep.py"),
    ("runs/sweep.py", "> 2:", "> 200:", "test_sweep.py"),
    ("runs/sweep.py", "== run.identity():", "!= None:", "test_sweep.py"),
    ("runs/sweep.py", 'folder.glob(".*.ipynb"), *folder.glob("*.failed', 'folder.glob("*.failed', "test_sweep.py"),
    ("runs/cluster.py", 'here = {"host": LOCAL', 'here = {"host": "0.0.0.0"', "test_sweep.py"),
    ("runs/cluster.py", '["CUDA_VISIBLE_DEVICES"] = gpu', '["CUDA_VISIBLE_DEVICES"] = gpus[0]', "test_sweep.py"),
    # evaluation, explain
    (
        "evaluation.py",
        "np.unique(np.asarray(patients), return_inverse=True)",
        "np.unique(np.arange(len(patients)), return_inverse=True)",
        "test_evaluation.py",
    ),
    ("evaluation.py", "t.ppf([0.025, 0.975], groups - 1)", "t.ppf([0.05, 0.95], groups - 1)", "test_evaluation.py"),
    ("evaluation.py", "rates_b[name] - rates_a[name]", "rates_a[name] - rates_b[name]", "test_evaluation.py"),
    ("explain.py", "sign = -1 if", "sign = 1 if", "test_explain.py"),
    ("explain.py", "return logit if logit > 0 else -logit", "return logit", "test_explain.py"),
    ("explain.py", "before = (size - seen) // 2", "before = size - seen", "test_explain.py"),
    # plotting and the figures of the labs
    ("plotting.py", '("val", RED, "s-")', '("train", RED, "s-")', "test_figures.py"),
    ("plotting.py", "axis.text(column, row, count", "axis.text(row, column, count", "test_figures.py"),
    (
        "labs/score_figures.py",
        "value, low, high = (100 * score[key]",
        "value, low, high = (10 * score[key]",
        "test_figures.py",
    ),
    (
        "labs/score_figures.py",
        "table.predicted, table.fraction_of_positives",
        "table.fraction_of_positives, table.predicted",
        "test_figures.py",
    ),
    ("labs/cam_figures.py", 'cmap="inferno", vmin=0, vmax=1', 'cmap="inferno"', "test_figures.py"),
    ("labs/fine_maps.py", 'mode="replicate"', 'mode="constant"', "test_fine_maps.py"),
    ("labs/fine_maps.py", "heat / views", "heat", "test_fine_maps.py"),
    ("labs/fine_maps.py", "product ** (1 / len(layers))", "product", "test_fine_maps.py"),
    ("labs/fine_maps.py", "[window] += moved", "[window] += maps[: len(images)]", "test_fine_maps.py"),
    ("runs/formats.py", "write_json(resolve(MEASURED), known)", "pass", "test_formats.py"),
    # the other labs
    ("labs/export.py", "center_crop(resize(images, [self.wide], self.mode), [self.size])", "images", "test_export.py"),
    ("labs/export.py", "lost_rows > 2 * lost_columns", "lost_rows > lost_columns", "test_export.py"),
    ("labs/export.py", "* FIXED + 0.5)", "* FIXED)", "test_export.py"),
    ("labs/export.py", "logit / self.temperature", "logit", "test_export.py"),
    ("labs/export.py", 'each.ClearField("metadata_props")', "pass", "test_export.py"),
    ("labs/model_card.py", "if same else {}", "", "test_model_card.py"),
    ("labs/model_card.py", "< 1e-3:", "< 10:", "test_model_card.py"),
    ("labs/model_card.py", "['nearest_neighbour'][split]", "['nearest_neighbour']['random']", "test_model_card.py"),
    ("labs/demo.py", '"--token"]', "]", "test_demo.py"),
    ("labs/tables.py", "for stage in STAGES:", "for stage in STAGES[1:]:", "test_models.py"),
    ("labs/widgets.py", 'control.observe(draw, "value")', "pass", "test_widgets.py"),
    ("labs/audit.py", "return nearest[0] - nearest[1]", "return nearest[1] - nearest[0]", "test_evaluation.py"),
    ("labs/audit.py", "inner[FRAME:-FRAME, FRAME:-FRAME] = frame_only", "inner[:, :] = False", "test_audit.py"),
    ("labs/decisions.py", "(1 - sensitivity) * len(covid)", "sensitivity * len(covid)", "test_evaluation.py"),
    ("labs/decisions.py", "/ np.exp(log_t)).mean()", "* np.exp(log_t)).mean()", "test_evaluation.py"),
    (
        "labs/faithfulness.py",
        'heat.ravel() * (-1 if order == "MoRF" else 1)',
        'heat.ravel() * (1 if order == "MoRF" else -1)',
        "test_faithfulness.py",
    ),
    ("labs/faithfulness.py", "reset_parameters()", "requires_grad_(True)", "test_faithfulness.py"),
    ("labs/faithfulness.py", "(least[name] - most[name])", "(most[name] - least[name])", "test_faithfulness.py"),
    ("labs/cam_checks.py", "precision.idxmax(axis=1)", "precision.idxmin(axis=1)", "test_cam_checks.py"),
    ("labs/cam_checks.py", "truth[order], 1)", "truth, 1)", "test_cam_checks.py"),
    ("labs/cam_checks.py", "share - flat, patients", "share, patients", "test_cam_checks.py"),
    ("labs/cam_checks.py", "found.points[place]", "found.points[CHOSEN, name]", "test_cam_checks.py"),
    ("labs/picks.py", "owners.drop_duplicates()", "owners", "test_picks.py"),
    ("labs/localization.py", "board & (maps ==", "(maps ==", "test_localization.py"),
    ("labs/machine.py", 'int(stat["inactive_file"])', "0", "test_machine.py"),
    ("labs/machine.py", "red |= not check.ok\n    try", "pass\n    try", "test_machine.py"),
    ("labs/machine.py", 'or unmet(needs("torchvision", "torch"))', "", "test_machine.py"),
    ("labs/speed.py", "one < 1.1 * many", "one > 1.1 * many", "test_machine.py"),
    ("labs/speed.py", "learned += BATCHES * len(slices)", "learned += len(slices)", "test_machine.py"),
    (
        "labs/speed.py",
        'if notebook.startswith("02") else found["float32"]',
        "if True else 0",
        "test_machine.py",
    ),
    ("labs/shortcuts.py", "(patients == 1) == agrees", "agrees", "test_audit.py"),
    ("labs/shortcuts.py", "agreement=0.5, seed=seed", "agreement=1.0, seed=seed", "test_audit.py"),
    (
        "labs/recorded.py",
        "mean_over_seeds(accuracy[count] - accuracy[0])",
        "mean_over_seeds(accuracy[count])",
        "test_recorded.py",
    ),
    ("labs/recorded.py", "runs.epochs == shortest", "runs.epochs >= shortest", "test_recorded.py"),
    ("labs/craft.py", "answers[title] - answers[first]", "answers[title] - answers[title]", "test_craft.py"),
    (
        "labs/whole_patients.py",
        "rule.scores(val[0], val[2])",
        "rule.scores(logits, stack.patient)",
        "test_whole_patients.py",
    ),
    ("labs/exercises/nb01_data.py", "if torn.any():", "if False:", "test_exercises.py"),
    ("labs/exercises/nb03_transfer.py", "if half < 0.8 * right:", "if False:", "test_exercises.py"),
    ("labs/exercises/board.py", 'if kind != "untried":', "if True:", "test_exercises.py"),
    ("labs/exercises/kept.py", "os.replace(path, aside)", "path.unlink()", "test_exercises.py"),
    ("labs/exercises/verdicts.py", "if misses or kind ==", "if kind ==", "test_exercises.py"),
    # phantom: the label's own rule first
    (
        "phantom/disease.py",
        "rng.uniform(0.1, 0.24, 12), rng.uniform(0, 0.16, 12)",
        "rng.uniform(0.1, 0.24, 12), rng.uniform(0.4, 0.6, 12)",
        "test_disease.py",
    ),
    ("phantom/disease.py", "s.blend(0.9 * ramp(clumps, 0.8", "s.blend(0.5 * ramp(clumps, 0.8", "test_disease.py"),
    ("phantom/patients.py", "VISIBLE = 70  #", "VISIBLE = 40  #", "test_lesion.py"),
    ("phantom/patients.py", "else patient % 2", "else (patient + 1) % 2", "test_phantom.py"),
    ("phantom/patients.py", "(hu - centre) / width", "(hu - centre - 100) / width", "test_phantom.py"),
    ("phantom/patients.py", "+ step * np.arange(n_slices)", "- step * np.arange(n_slices)", "test_phantom.py"),
    (
        "phantom/anatomy.py",
        "BONE = -1000, -90",
        "BONE = -1000, 90",
        "test_phantom.py",
    ),
    ("phantom/lesion.py", '"right": [-1]', '"right": [1]', "test_lesion.py"),
    # sources
    ("sources/patients.py", "BLOCK = 20", "BLOCK = 200", "test_data.py"),
    ("sources/dicom.py", "LUNG_WINDOW = (-600, 1500)", "LUNG_WINDOW = (40, 400)", "test_data.py"),
    ("sources/folders.py", "pattern.fullmatch(plain)", "pattern.match(plain)", "test_folders.py"),
    ("sources/folders.py", "None if name.isdigit() else class_of(name)", "None", "test_folders.py"),
    ("sources/folders.py", "split = split or SPLIT_NAMES.get(name.lower())", "split = split", "test_folders.py"),
    ("sources/folders.py", '_check_overlap(table, "patient", table.patient)\n    return', "return", "test_folders.py"),
    ("sources/walk.py", "reason or _why_folder(entry.name)", "reason", "test_folders.py"),
    ("sources/walk.py", "if real in seen or elsewhere or", "if elsewhere or", "test_folders.py"),
    ("sources/walk.py", "if (stat.st_dev, stat.st_ino) in seen:", "if False:", "test_folders.py"),
    ("sources/patients.py", "if not len(sizes) or", "if True or", "test_folders.py"),
    ("sources/patients.py", "value_counts(normalize=True).iloc[0] > 0.5", "nunique() > 99", "test_folders.py"),
    (
        "sources/patients.py",
        'map("id {}".format, na_action="ignore"), table.patient[known]]',
        'map("id {}".format)]',
        "test_folders.py",
    ),
    ("sources/images.py", "str(folder.resolve()), traits", "traits", "test_folders.py"),
    (
        "sources/images.py",
        "for place in (0, stat.st_size // 2, stat.st_size - 4096):",
        "for place in ():",
        "test_folders.py",
    ),
    ("sources/images.py", "image = ImageOps.exif_transpose(image)", "pass", "test_pictures.py"),
    (
        "sources/images.py",
        "if (values := _deep_colours(path)) is not None:",
        "if (values := None):",
        "test_pictures.py",
    ),
    ("sources/images.py", "-values if inverted else values", "values", "test_pictures.py"),
    (
        "sources/dicom.py",
        "return (values, low, high) if not inverted",
        "return (values, low, high) if True",
        "test_pictures.py",
    ),
    ("sources/dicom.py", "if hounsfield and inverted:", "if False:", "test_pictures.py"),
    ("sources/dicom.py", "values[stored != padding]", "values", "test_pictures.py"),
    ("sources/dicom.py", "if height * width > MOST_PIXELS:", "if False:", "test_volumes.py"),
    ("sources/series.py", "each.place @ normal", "each.order or 0", "test_volumes.py"),
    ("sources/series.py", "normal *= np.sign(normal[np.abs(normal).argmax()])", "pass", "test_volumes.py"),
    ("sources/series.py", 'upright(grey, each.axes) if plane(each) == "axial" else grey', "grey", "test_volumes.py"),
    ("sources/series.py", "frame_of(file, each.frame)", "frame_of(file, 0)", "test_volumes.py"),
    ("sources/series.py", "1.5 * usual", "15 * usual", "test_volumes.py"),
    ("sources/series.py", 'plane(each[0]) in (None, "axial"), len(each)', "len(each), 0", "test_volumes.py"),
    ("sources/series.py", "    _check_alike(best)\n", "", "test_volumes.py"),
    ("sources/nifti.py", 'axcodes2ornt("LPS")', 'axcodes2ornt("RAS")', "test_volumes.py"),
    ("sources/nifti.py", "* np.float32(self.slope) + np.float32(self.intercept)", "", "test_volumes.py"),
    ("sources/nifti.py", "if too_large(", "if False and too_large(", "test_volumes.py"),
    ("sources/nifti.py", "len(distinct) <= FEW and", "False and", "test_volumes.py"),
    ("sources/volumes.py", "if home is None and max(", "if False and max(", "test_volumes.py"),
    (
        "sources/images.py",
        "suppress(UnidentifiedImageError), Image.open(path)",
        "suppress(Exception), Image.open(path)",
        "test_volumes.py",
    ),
    ("labs/answer_patients.py", "np.argsort(-logits", "np.argsort(logits", "test_volumes.py"),
    ("labs/audit.py", "signs=(1,)) -> None:", "signs=()) -> None:", "test_audit.py"),
    ("labs/audit.py", "np.rot90(_halved(mine), turns, (1, 2))", "_halved(mine)", "test_audit.py"),
    ("labs/audit.py", '.label.transform("nunique") > 1]', '.label.transform("nunique") > 2]', "test_audit.py"),
    ("explain.py", "with torch.inference_mode(False), torch.enable_grad():", "if True:", "test_explain.py"),
    ("runs/checks.py", "images.dtype != torch.uint8 or not square", "not square", "test_explain.py"),
    ("runs/checks.py", "if np.isnan(logits).any():", "if False:", "test_evaluation.py"),
    ("runs/files.py", "not math.isfinite(value)", "False", "test_runs.py"),
    (
        "sources/pretrained.py",
        "digest.update(name.encode() + bytes(",
        "digest.update(bytes(0) and bytes(",
        "test_fuzz.py",
    ),
    ("sources/images.py", "hashlib.sha256(images)", "hashlib.sha256(images[1:])", "test_data.py"),
    ("sources/downloads.py", 'or ".." in name.parts', "", "test_data.py"),
    ("sources/datasets.py", 'hospital="B"', 'hospital="A"', "test_data.py"),
    ("sources/pretrained.py", "wanted.crop_size[0] / wanted.resize_size[0]", "224 / 232", "test_models.py"),
    (
        "sources/pretrained.py",
        "torch.maximum(step * channels.std(1, correction=0), ",
        "torch.maximum(4 * step * channels.std(1), ",
        "test_models.py",
    ),
    # runs
    ("runs/cached.py", "(number - 1) % self.settings.copies", "0", "test_cached.py"),
    ("runs/cached.py", 'self._features("train", self.change)', 'self._features("train")', "test_cached.py"),
    ("runs/checkpoints.py", 'if found and found["parameters"] != self.parameters:', "if False:", "test_training.py"),
    ("runs/checkpoints.py", "weights_only=True", "weights_only=False", "test_training.py"),
    ("runs/device.py", "            torch.set_num_threads(threads)\n", "", "test_cached.py"),
    (
        "runs/files.py",
        "        os.replace(temporary, path)\n",
        "        path.write_bytes(temporary.read_bytes())\n",
        "test_runs.py",
    ),
    ("runs/records.py", "(read_json(path) if path.exists() else {}) | ", "", "test_runs.py"),
    ("runs/settings.py", '{"int": int, "float": float}[kind](text)', "text", "test_run_notebooks.py"),
    (
        "runs/notebooks.py",
        "    with patch.dict(papermill_engines._engines, {ENGINE: _Engine}):",
        "    papermill_engines.register(ENGINE, _Engine)\n    with contextlib.nullcontext():",
        "test_run_notebooks.py",
    ),
    ("runs/notebooks.py", "        os.replace(partial, failed)", "        partial.unlink()", "test_run_notebooks.py"),
    ("runs/handout.py", "if not _tagged(cell, SOLUTION)", "if True", "test_exercises.py"),
    ("runs/clean.py", "number if cell.source else None", "cell.execution_count", "test_run_notebooks.py"),
    ("runs/commands.py", "        return 1\n", "        return 0\n", "test_run_notebooks.py"),
    ("runs/found.py", '"weights", "data")', '"weights")', "test_training.py"),
    ("runs/progress.py", "        if self.handle is None:", "        if True:", "test_progress.py"),
    ("runs/settings.py", "if name not in own:", "if False:", "test_runs.py"),
    # faults
    ("runs/files.py", "lock = _locked(leftover)", "lock = None", "test_reliability.py"),
    ("runs/files.py", "    clear_leftovers(path)\n    temporary", "    temporary", "test_reliability.py"),
    ("runs/checkpoints.py", "self._stamp() not in (self.left, None)", "False", "test_reliability.py"),
    ("runs/cached.py", "os.posix_fallocate(file.fileno(), 0, size)", "pass", "test_reliability.py"),
    ("runs/memory.py", "if not out_of_memory(error) or", "if True or", "test_reliability.py"),
    ("sources/images.py", "if image.width * image.height > LARGEST:", "if False:", "test_reliability.py"),
    ("sources/datasets.py", 'folder.name.replace("<", "‹")', "folder.name", "test_reliability.py"),
    ("labs/demo.py", 'f"&#{ord(c)};"', "c", "test_reliability.py"),
    ("sources/downloads.py", "with held(part):", "with contextlib.nullcontext():", "test_kills.py"),
    (
        "sources/pretrained.py",
        "temporary.write_bytes(save(state, metadata=about))",
        '__import__("safetensors.torch").torch.save_file(state, temporary, metadata=about)',
        "test_kills.py",
    ),
    # slides and site
    (
        "../docs/deck.py",
        "            if self.begun and self.pending:",
        "            if self.pending:",
        "test_slides.py",
    ),
    (
        "../docs/deck.py",
        "for full, part in zip(group, shown, strict=True) if part != full",
        "for full in []",
        "test_slides.py",
    ),
    (
        "../docs/deck.py",
        "if words(*self.pending, text) > WORDS or any(",
        "if words(text) > WORDS or all(",
        "test_slides.py",
    ),
    ("../docs/deck.py", 'else 1 if "**" in sentence else 2)', "else 1)", "test_slides.py"),
    ("../docs/deck.py", '"solution" in cell.metadata', '"solutions" in cell.metadata', "test_slides.py"),
    ("../docs/slides.html.j2", "or '') | escape_html }}", "or '') * 0 }}", "test_slides.py"),
    ("../docs/conf.py", '{"image": {"alt": kind["alt"]}}', "{}", "test_site.py"),
    ("../docs/conf.py", 'myst_enable_extensions = ["dollarmath"]', "", "test_site.py"),
    ("../docs/conf.py", "myst_heading_anchors = 4", "myst_heading_anchors = 1", "test_site.py"),
    ("runs/hosted.py", "(*installed, *OWN_PAGES)", "installed", "test_project.py"),
    (
        "runs/hosted.py",
        '"--constraint", str(held), *missing',
        '"--constraint", str(held), *installed',
        "test_project.py",
    ),
    ("runs/hosted.py", "if ended.returncode:", "if False:", "test_project.py"),
]


def run(copy: Path, tests: str) -> subprocess.CompletedProcess:
    """Run one test file of the copy up to its first failure."""
    call = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", f"tests/{tests}"]
    environment = os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(call, cwd=copy, env=environment, capture_output=True, text=True)


def caught(copy: Path, file: str, old: str, new: str, tests: str) -> tuple[bool, str]:
    """Whether the tests fail with this change, and the last line that they print."""
    path = copy / "covid_utils" / file
    text = path.read_text(encoding="utf-8")
    if text.count(old) != 1:
        raise SystemExit(f"{file} holds {old!r} {text.count(old)} times: renew this mutant.")
    path.write_text(text.replace(old, new), encoding="utf-8")
    try:
        ended = run(copy, tests)
        return ended.returncode == 1, next(reversed(ended.stdout.strip().splitlines()), ended.stderr[-200:])
    finally:
        path.write_text(text, encoding="utf-8")


def main(words: list[str]) -> int:
    chosen = [each for each in MUTANTS if not words or any(word in " ".join(each) for word in words)]
    missed = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(PROJECT, copy, ignore=shutil.ignore_patterns(".venv", ".git", "runs", "__pycache__", "*.npz"))
        shutil.copytree(PROJECT / "covid_utils", copy / "covid_utils", dirs_exist_ok=True)
        for tests in sorted({each[3] for each in chosen}):
            if run(copy, tests).returncode:
                raise SystemExit(f"{tests} fails without any change: mend that first.")
        for file, old, new, tests in chosen:
            start = time.monotonic()
            noticed, said = caught(copy, file, old, new, tests)
            missed += [] if noticed else [file]
            print(
                f"{'caught' if noticed else 'MISSED'} {time.monotonic() - start:4.0f} s  {file}: {new!r:.70}  [{said}]",
                flush=True,
            )
    print(f"{len(chosen) - len(missed)} of {len(chosen)} caught")
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
