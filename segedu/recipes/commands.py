"""Commands about training: `train`, `inspect`, `predict`, `evaluate` and `export`. Each imports what it needs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from segedu.recipes.recipe import Recipe
    from segedu.recipes.run_validation import Watch

Run = Annotated[Path, typer.Argument(help="Folder of a run of `segedu train`, such as runs/unet-leaves-0.")]


def train(
    method: Annotated[str, typer.Argument(help="Name of the method's file, such as unet.")],
    data: Annotated[
        str,
        typer.Option(
            help="Data set: street, shapes, cells, volume, prostate, one that `segedu data` lists, or a folder of your "
            "own images."
        ),
    ] = "shapes",
    out: Annotated[
        Path | None,
        typer.Option(help="Output folder. A stopped run continues from it, and so does one with more steps."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of weights, data order and augmentation.")] = 0,
    seeds: Annotated[int, typer.Option(min=1, help="Number of runs, with seeds from --seed on, and a table.")] = 1,
    steps: Annotated[int | None, typer.Option(min=1, help="Number of training steps. Default: the recipe's.")] = None,
    minutes: Annotated[float | None, typer.Option(help="CPU minutes of training, instead of --steps.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Highest learning rate. Default: the recipe's.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images per step. Default: the recipe's.")] = None,
    start: Annotated[
        str, typer.Option("--from", help="Start from these weights: folder of a run, or a name of segedu.weights.")
    ] = "",
    freeze: Annotated[
        list[str] | None, typer.Option(help="Do not train this part of the network, such as encoder. Repeatable.")
    ] = None,
    window: Annotated[
        int | None, typer.Option(help="Own images: side of the training windows in pixels, a multiple of 32.")
    ] = None,
    longest_side: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Own images: reduce images with a longer side, in pixels. 0: never. Default: 512 "
            "for masks and boxes, never for label maps.",
        ),
    ] = None,
    ignore: Annotated[
        int | None, typer.Option(min=0, help="Own images: number of the last class, whose pixels are ignored.")
    ] = None,
    train_images: Annotated[
        int | None, typer.Option(min=1, help="Own images: train on so many images only, for a learning curve.")
    ] = None,
    augment: Annotated[
        str | None,
        typer.Option(
            help="Own images: random changes. none: random windows only. light (default): also mirrored and "
            "brightened, label maps also turned. strong: also random scales (photographs 0.6 to 1.6) and colours, "
            "or noise in label maps' images."
        ),
    ] = None,
    validations: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Own images: measure the split val so many times during the training and use the best weights. "
            "0: use the last weights. Default: 10 if there is a split val.",
        ),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(min=1, help="Own images: stop early after so many validations in a row without a better score."),
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write logs for TensorBoard into the folder tensorboard of the run.")
    ] = False,
    workers: Annotated[int, typer.Option(min=0, help="Processes that prepare batches beside the training.")] = 0,
    precision: Annotated[str, typer.Option(help="Number format: 32-true, bf16-mixed or 16-mixed.")] = "32-true",
    devices: Annotated[int, typer.Option(min=1, help="Number of devices to train on.")] = 1,
    accelerator: Annotated[str, typer.Option(help="Device type: cpu, cuda, mps or auto.")] = "auto",
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete the run in --out and start again.")] = False,
) -> None:
    """Train a method, on the data of its recipe or on your own images, and print its score beside a baseline."""
    from segedu.recipes.run import run_recipe
    from segedu.recipes.run_table import print_result, print_seeds
    from segedu.recipes.starting_weights import Start
    from segedu.recipes.tensorboard_log import check_tensorboard

    if tensorboard:
        check_tensorboard()
    own = {"window": window, "longest_side": longest_side, "ignored": ignore, "train_images": train_images}
    own |= {"augment": augment, "validations": validations, "patience": patience}
    recipe, folder, watch = _find_recipe(method, data, tensorboard, **own)
    recipe = _changed(recipe, learning_rate=learning_rate, batch_size=batch_size)
    options = {"steps": steps, "minutes": minutes, "devices": devices, "accelerator": accelerator, "fresh": fresh}
    options |= {"workers": workers, "precision": precision, "watch": watch}
    options["start"] = Start(start, tuple(freeze or ())) if start or freeze else None
    is_first_process = devices == 1 or int(os.environ.get("LOCAL_RANK", 0)) == 0
    data_name = recipe.data if folder is None else folder.resolve().name
    results = []
    for number in range(seed, seed + seeds):
        run = (out or Path("runs")) / f"{method}-{data_name}-{number}" if out is None or seeds > 1 else out
        results.append(run_recipe(recipe, run, folder=folder, seed=number, **options))
        if is_first_process:
            print_result(results[-1], run)
    if is_first_process and seeds > 1:
        print_seeds(results)


def _find_recipe(
    method: str, data: str, tensorboard: bool, validations: int | None, patience: int | None, **own: Any
) -> tuple[Recipe, Path | None, Watch]:
    """The recipe of a method on a data set or on a folder of your own, the folder if there is one, and what is watched.

    Without `validations`, the split val of own images is measured ten times if there is one.
    """
    from segedu.datasets.data_folder import REAL_DATA, data_folder
    from segedu.recipes.method_suggestions import suggestions
    from segedu.recipes.recipe import NAMES, find_recipe
    from segedu.recipes.run_validation import Watch

    folder = Path(data)
    if (method, data) not in NAMES and data in REAL_DATA and not folder.exists():
        folder = data_folder(data)
    if (method, data) not in NAMES and folder.is_dir():
        from segedu.recipes.own_images import split_note
        from segedu.recipes.own_recipe import own_recipe, validations_of

        typer.echo(split_note(folder))
        watch = Watch(validations_of(folder, validations, patience), patience, tensorboard)
        return own_recipe(method, folder, **own), folder, watch
    if len(folder.parts) > 1 and not folder.is_dir():
        problem = "is not a folder" if folder.exists() else "does not exist"
        raise FileNotFoundError(f"data is {data!r}, which {problem}, expected a folder with images and masks")
    if any(value is not None for value in (validations, patience, *own.values())):
        raise typer.BadParameter(
            f"--window, --longest-side, --ignore, --train-images, --augment, --validations and --patience are for a "
            f"folder of your own, not for {data}"
        )
    try:
        return *find_recipe(method, data), Watch(tensorboard=tensorboard)
    except ValueError as error:
        problem, _, expected = str(error).partition(", expected")
        raise typer.BadParameter(f"{problem}. {suggestions(method)}Expected{expected}") from None


def _changed(recipe: Recipe, **changes: Any) -> Recipe:
    """The recipe with the fields that are not None."""
    from dataclasses import replace

    rate = changes["learning_rate"]
    if rate is not None and not 0 < rate < float("inf"):
        raise typer.BadParameter(f"--learning-rate is {rate:g}, expected a number above 0")
    return replace(recipe, **{name: value for name, value in changes.items() if value is not None})


def inspect(
    folder: Annotated[
        Path,
        typer.Argument(
            help="Folder with images, and masks (classes), labels (label maps), a COCO file such as annotations.json, "
            "or VOC's Annotations."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="PNG file for a contact sheet. Default: contact-sheet-FOLDER.png, here.")
    ] = None,
) -> None:
    """Describe a folder of your own images and masks or boxes, and name everything that makes a training go wrong."""
    from segedu.datasets.box_folder import is_box_folder
    from segedu.recipes.inspection import inspect_folder
    from segedu.recipes.own_box_inspection import inspect_boxes

    path = out or Path(f"contact-sheet-{folder.resolve().name}.png")
    if path.suffix.lower() != ".png" or not path.parent.is_dir():
        raise typer.BadParameter(f"--out is {str(path)!r}, expected a file that ends in .png, in an existing folder")
    report = inspect_boxes(folder) if is_box_folder(folder) else inspect_folder(folder)
    for fact in report.facts:
        typer.echo(fact)
    if report.figure is not None:
        report.figure.savefig(path, dpi=120)
        typer.echo(f"Contact sheet: {path}")
    if not report.problems:
        typer.echo("No problem found.")
        return
    typer.echo(f"\nProblems ({len(report.problems)}):")
    for problem in report.problems:
        typer.echo(f"- {problem}")
    raise typer.Exit(1)


def predict(
    run: Run,
    images: Annotated[Path, typer.Argument(help="An image, a folder of images, or a folder that contains images/.")],
    out: Annotated[Path, typer.Option(help="Output folder for masks, overlays, annotations.json and counts.csv.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist in --out.")] = False,
) -> None:
    """Predict images with a trained network, and write masks or boxes, overlays, a COCO file, and a table."""
    from segedu.recipes.prediction_files import images_in, write_predictions
    from segedu.recipes.trained_run import load_run

    trained, paths = load_run(run), images_in(images)
    problems = write_predictions(trained, paths, out, overwrite=overwrite)
    written = [name for name in (trained.kind, "overlays", "annotations.json", "counts.csv") if (out / name).exists()]
    typer.echo(
        f"{count_images(len(paths) - len(problems))} predicted by {trained.recipe.method} after {trained.steps} steps: "
        + ", ".join(str(out / name) for name in written)
    )
    if problems:
        typer.echo(f"\nNot predicted ({len(problems)}):")
        for problem in problems:
            typer.echo(f"- {problem}")
        raise typer.Exit(1)


def export(
    run: Annotated[
        Path,
        typer.Argument(help="Folder of a run, such as runs/unet-leaves-0, or a name of segedu.weights, shapes_sam."),
    ],
    out: Annotated[
        Path,
        typer.Option(help="File to write, which ends in .onnx. SAM becomes two: FILE-encoder.onnx, FILE-decoder.onnx."),
    ],
    height: Annotated[int, typer.Option(min=32, help="Height of the images that the exported network takes.")] = 256,
    width: Annotated[int, typer.Option(min=32, help="Width of the images that the exported network takes.")] = 256,
) -> None:
    """Write a trained network as an ONNX file, with its classes or its preprocessing in the metadata."""
    from segedu.recipes.export import export_onnx
    from segedu.recipes.export_weights import export_weights
    from segedu.recipes.trained_run import load_run
    from segedu.weights import WEIGHTS

    if out.suffix.lower() != ".onnx" or not out.parent.is_dir():
        raise typer.BadParameter(f"--out is {str(out)!r}, expected a file that ends in .onnx, in an existing folder")
    if not run.exists() and len(run.parts) == 1:
        if run.name not in WEIGHTS:
            known = ", ".join(WEIGHTS)
            raise typer.BadParameter(
                f"RUN is {run.name!r}, expected the folder of a run, or a name of segedu.weights: {known}"
            )
        for path, inputs in export_weights(run.name, out, (height, width)).items():
            typer.echo(f"Written: {path}. {inputs}")
        return
    export_onnx(load_run(run), out, (height, width))
    typer.echo(f"Written: {out}. Its input `images` has the shape (1, 3, {height}, {width}), with values in [0, 1].")


def count_images(number: int) -> str:
    """The number with its noun."""
    return f"{number} image" + "s" * (number != 1)


def evaluate(
    run: Run,
    folder: Annotated[Path, typer.Argument(help="Folder with images and their masks, labels or boxes.")],
    split: Annotated[str, typer.Option(help="Name of a file in splits, such as test. Default: all images.")] = "all",
    out: Annotated[
        Path | None, typer.Option(help="PNG file of examples. Default: evaluation-SPLIT.png in RUN.")
    ] = None,
) -> None:
    """Compare a trained network's predictions with the ground truth of a folder, at the size of its images."""
    from segedu.datasets.box_folder import BOXES
    from segedu.recipes.evaluation import evaluate_run
    from segedu.recipes.own_box_evaluation import evaluate_boxes
    from segedu.recipes.trained_run import load_run

    trained = load_run(run)
    path = out or trained.path.parent / f"evaluation-{split}.png"
    if path.suffix.lower() != ".png" or not path.parent.is_dir():
        raise typer.BadParameter(f"--out is {str(path)!r}, expected a file that ends in .png, in an existing folder")
    result = (evaluate_boxes if trained.kind == BOXES else evaluate_run)(trained, folder, split)
    typer.echo(
        f"{trained.recipe.method} after {trained.steps} steps, {count_images(len(result.per_image))} of {split}:"
    )
    for name, value in result.figures.items():
        typer.echo(f"{name.replace('iou', 'IoU').replace('_', ' ')}: {value:.4f}")
    worst = sorted(result.per_image, key=result.per_image.__getitem__)[:5]
    typer.echo("Lowest scores: " + ", ".join(f"{name} {result.per_image[name]:.2f}" for name in worst))
    result.picture.savefig(path, dpi=100)
    typer.echo(f"Worst, middle and best image: {path}")
