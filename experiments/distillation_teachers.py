"""Compares teachers of two sizes on CamVid: SeaFormer-Tiny at half resolution, alone, taught by Tiny and by Base.

    python -m experiments.distillation_teachers --root PATH/TO/camvid --tiny WORKDIR --base WORKDIR --init WORKDIR \\
        [--seeds 3] [--steps 12000]

`--tiny` and `--base` are the teachers, runs of configs/camvid.py; all students start from `--init`, such as the
classifier that the teachers started from, or the teacher Tiny. Trains with every seed, one run after the other;
finished runs are kept in the results. The features that are compared have the teacher's channels, so a student of
Base has a wider up-sampling module than one of Tiny, and each has its own student without a teacher. The default is
twice the steps of `experiments.distillation`. Writes the table of what is there to
experiments/results/distillation_teachers.json and .md, again after every run; without --root nothing is trained.
"""

import functools
import pathlib
from collections.abc import Mapping

from flax import nnx

from experiments import measure, runs, study
from experiments.distillation import FULL, HALF
from seaformer_jax.models.macs import count_macs
from seaformer_jax.models.registry import create_model, model_config

NAME = "distillation_teachers"
CLASSES = 11
TEACHERS = ("tiny", "base")
# What follows a teacher's name in the scores -> label of the row, for the teacher itself and its two students.
ROWS = {"": "teacher {}", "_alone": "the student of {}, untaught", "_taught": "student of {}"}


def main() -> None:
    parser = study.parser(__doc__.splitlines()[0], NAME)
    parser.set_defaults(steps=12000)
    for teacher in TEACHERS:
        parser.add_argument(f"--{teacher}", help=f"workdir of a run of configs/camvid.py:{teacher}")
    parser.add_argument("--init", help="workdir or checkpoint that the students start from")
    options = parser.parse_args()
    folders = {teacher: vars(options)[teacher] for teacher in TEACHERS}
    if options.root and not (all(folders.values()) and options.init):
        parser.error("training needs both teachers, and --init")
    scores = study.recorded(NAME, options.steps)
    if options.root:
        for teacher, folder in folders.items():
            scores[teacher] = {"0": round(runs.last_scores(pathlib.Path(folder))["mIoU"], 2)}

    def save() -> None:
        write(scores, options.steps)

    study.train(students(folders, options.init), options, scores, save)


def students(folders: Mapping[str, str], init: str) -> dict[str, tuple[str, ...]]:
    """Returns the recipe and the flags of every student, from the workdirs of the teachers."""
    recipes = {}
    for teacher, folder in folders.items():
        start = (f"--config.teacher.source={folder}", f"--config.init_from={init}")
        recipe = ("configs/distill_camvid.py:tiny", *start)
        recipes[f"{teacher}_alone"] = (*recipe, "--config.distillation.feature_weight=0")
        recipes[f"{teacher}_taught"] = recipe
    return recipes


def write(scores: study.Scores, steps: int) -> None:
    """Writes the result files, and prints the table."""
    rows = [row for teacher in TEACHERS for row in table_rows(scores, teacher)]
    measure.write(NAME, {"steps": steps, "scores": scores, "rows": rows})
    text = (
        f"# Teachers of two sizes\n\n`python -m experiments.{NAME} --steps {steps}`: SeaFormer-Tiny at {HALF[0]}x"
        f"{HALF[1]} on CamVid, {steps} steps; teachers at {FULL[0]}x{FULL[1]}; mIoU in percent on whole frames after "
        f"the last step. {study.BY_SEED}\n\n{measure.table(rows)}\n"
    )
    (measure.RESULTS / f"{NAME}.md").write_text(text)
    print(text)


def table_rows(scores: study.Scores, teacher: str) -> list[dict]:
    """Returns the rows of a teacher, of the student without it, and of its student."""
    width = model_config(f"seaformer_{teacher}").fusion_widths[-1]
    student = cost("tiny", HALF, upsample_ratio=FULL[0] / HALF[0], upsample_width=width)
    rows = []
    for suffix, label in ROWS.items():
        found = scores.get(teacher + suffix, {})
        gain = study.differences(found, scores.get(f"{teacher}_alone", {})) if suffix == "_taught" else ""
        rows.append(
            {
                "network": label.format(teacher),
                "GMACs": student if suffix else cost(teacher, FULL),
                **study.cells(found),
                "minus alone": gain,
            }
        )
    return rows


def cost(size: str, image: tuple[int, int], **options: float) -> str:
    """Returns the GMACs of a segmentation model of a size on an image of some height and width."""
    make = functools.partial(
        create_model, f"seaformer_{size}", "segmentation", num_classes=CLASSES, **options
    )
    return f"{count_macs(nnx.eval_shape(make), *image).total / 1e9:.3f}"


if __name__ == "__main__":
    main()
