"""Compares kinds of attention by accuracy: SeaFormer-T with three attention stages on CamVid, at equal operations.

    python -m experiments.attention_accuracy --root PATH/TO/camvid [--seeds 3] [--steps 3000]

Trains every kind of `experiments/attention_recipe.py` from scratch with every seed, one run after the other; finished
runs are kept in the results. "none" has the FFN alone and is the lower line. Without --root nothing is trained.
Writes the table of what is there to experiments/results/attention_accuracy.json and .md, again after every run.
"""

import functools

import jax
from flax import nnx

from configs import camvid
from experiments import attention_recipe, measure, study
from seaformer_jax.models.macs import count_macs
from seaformer_jax.models.registry import create_model

NAME = "attention_accuracy"
CLASSES = 11


def main() -> None:
    options = study.parser(__doc__.splitlines()[0], NAME).parse_args()
    recipes = {kind: (f"experiments/attention_recipe.py:{kind}",) for kind in attention_recipe.KINDS}
    costs = [cost(kind) for kind in attention_recipe.KINDS]
    scores = study.recorded(NAME, options.steps)

    def save() -> None:
        write(costs, scores, options.steps)

    study.train(recipes, options, scores, save)


def write(costs: list[dict], scores: study.Scores, steps: int) -> None:
    """Writes the result files, and prints the table."""
    kinds = zip(attention_recipe.KINDS, costs, strict=True)
    rows = [
        {
            **row,
            **study.cells(scores.get(kind, {})),
            "minus sea": study.differences(scores.get(kind, {}), scores.get("sea", {})),
        }
        for kind, row in kinds
    ]
    measure.write(NAME, {"steps": steps, "scores": scores, "rows": rows})
    text = (
        f"# Kinds of attention by accuracy\n\n`python -m experiments.{NAME} --steps {steps}`: SeaFormer-T with "
        f"attention at 1/16, 1/32 and 1/64, CamVid from scratch, {steps} steps; mIoU in percent on whole frames. The "
        "widths of `window`, `axial_sum` and `vanilla` are those that cost what SEA attention costs on a crop; "
        "`acmix_swin` and `mixformer` have no such choice and are a twentieth and a tenth cheaper, `none` has no "
        f"attention. {study.BY_SEED}\n\n{measure.table(rows)}\n"
    )
    (measure.RESULTS / f"{NAME}.md").write_text(text)
    print(text)


def cost(kind: str) -> dict:
    """Returns the row of a kind: its widths, parameters and operations on a crop."""
    attention_recipe.register()
    options, crop = attention_recipe.options(kind), camvid.get_config().data.crop_size
    make = functools.partial(
        create_model, attention_recipe.NAME, "segmentation", num_classes=CLASSES, **options
    )
    model = nnx.eval_shape(make)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    return {
        "kind": f"`{kind}`",
        "widths": ", ".join(map(str, options.get("attention_widths", ()))),
        "parameters, M": f"{parameters / 1e6:.3f}",
        f"MACs at {crop[0]}x{crop[1]}, M": f"{count_macs(model, *crop).total / 1e6:.1f}",
    }


if __name__ == "__main__":
    main()
