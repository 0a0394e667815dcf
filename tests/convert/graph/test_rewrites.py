"""The rewrites to the inference form: each keeps the function, in float64 and, within rounding, in float32."""

import pytest
import torch
from torch import nn

from convert import torch_detection, torch_model, torch_segmentation
from convert.graph import doubling, layers, rewrites, tokens
from convert.graph.replacing import parts
from seaformer_jax.errors import UserError

SIZES = ("tiny", "small", "base", "large")
KINDS = [(task, size) for task in (torch_model, torch_segmentation) for size in SIZES]
NAMES = [f"{'seg' if task is torch_segmentation else 'cls'}-{size}" for task, size in KINDS]


def random_model(task, size: str, **options) -> nn.Module:
    """Returns a model with statistics and scales as after training; zeros and ones would hide mistakes."""
    torch.manual_seed(0)
    model = task.create_model(f"seaformer_{size}", num_classes=12, **options).eval()
    for name, module in model.named_modules():
        if name.endswith(("squeeze_map", "expand_map")):
            nn.init.normal_(module.weight, std=5)  # `AdaptiveMap` divides it by about 12.
        if isinstance(module, nn.BatchNorm2d):
            for value, low, high in (
                (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.5, 2.0),
                (module.weight.data, 0.5, 1.5),
                (module.bias.data, -0.5, 0.5),
            ):
                value.uniform_(low, high)
    return model


def image(size: tuple[int, int], dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1), dtype=dtype)


@pytest.mark.parametrize("last", range(len(rewrites.REWRITES)), ids=[f.__name__ for f in rewrites.REWRITES])
@pytest.mark.parametrize(("task", "size"), [KINDS[0], KINDS[7]], ids=[NAMES[0], NAMES[7]])
def test_each_rewrite_keeps_the_function(task, size, last):
    model, shape = random_model(task, size).double(), (97, 160)
    x = image(shape, torch.float64)
    with torch.no_grad():
        after = rewrites.rewritten(model, shape, rewrites.REWRITES[: last + 1])
        expected = model(x)
        torch.testing.assert_close(after(x), expected, rtol=0, atol=1e-10 * float(expected.abs().max()))


@pytest.mark.parametrize("last", range(len(rewrites.REWRITES)), ids=[f.__name__ for f in rewrites.REWRITES])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"adaptive_source": "q", "adaptive_expansion": "sigmoid"},
        {"adaptive": "squeeze", "adaptive_shared": True},
        {"adaptive": "expand", "adaptive_shared": True},
        {"upsample_ratio": 2.0, "upsample_width": 24},
    ],
    ids=str,
)
def test_each_rewrite_keeps_seaformer_plus(options, last):
    model, shape = random_model(torch_segmentation, "plus_tiny", **options).double(), (97, 160)
    x = image(shape, torch.float64)
    with torch.no_grad():
        expected = model(x)
        after = rewrites.rewritten(model, shape, rewrites.REWRITES[: last + 1])(x)
    torch.testing.assert_close(after, expected, rtol=0, atol=1e-10 * float(expected.abs().max()))


def adaptive(std: float) -> tuple[nn.Sequential, nn.Sequential, torch.Tensor]:
    """Returns an adaptive attention module, its inference form, and a map; `std` is that of the squeezing maps."""
    torch.manual_seed(0)
    module = torch_model.SeaAttention(16, 4, 2, adaptive="both").eval()
    nn.init.normal_(module.squeeze_map.weight, std=std)
    nn.init.normal_(module.expand_map.weight)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.ones_(part.weight)  # A scale of 0 would hide the attention.
    model = nn.Sequential(module)
    x = torch.randn(1, 16, 6, 9)
    return model, rewrites.rewritten(model, x.shape[2:], rewrites.REWRITES), x


def test_maps_far_from_zero_in_float32():
    """A softmax that subtracts the largest value takes any map; ours divides exponentials up to e^44."""
    model, deployed, x = adaptive(std=8.0)
    with torch.no_grad():
        maps = model[0].squeeze_map(x)
        assert 25 < maps.abs().max() < 44  # A weight of e^25 beside 1 is far from a mean.
        expected = model.double()(x.double())
        torch.testing.assert_close(
            deployed(x).double(), expected, rtol=0, atol=2e-5 * float(expected.abs().max())
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_maps_beyond_the_exponential_stay_finite(dtype):
    _, deployed, x = adaptive(std=1000.0)
    with torch.no_grad():
        assert deployed.to(dtype)(x.to(dtype)).isfinite().all()


def test_a_float32_graph_for_half_arithmetic():
    """Computed in float32 by the host and in half precision by the phone; both are finite, and alike."""
    _, deployed, x = adaptive(std=1000.0)
    graph, overflowing = rewrites.for_half_arithmetic(deployed), rewrites.for_half_arithmetic(deployed)
    for squeeze in parts(overflowing, layers.Squeeze):
        squeeze.arithmetic = torch.float32  # As a phone would compute the graph of float32.
    with torch.no_grad():
        on_host, on_phone = graph(x), graph.half()(x.half())
        assert not torch.equal(deployed(x), on_host)  # The original keeps its own clamp.
        assert not overflowing.half()(x.half()).isfinite().all()
    torch.testing.assert_close(on_phone.float(), on_host, rtol=0, atol=2e-2 * float(on_host.abs().max()))


@pytest.mark.parametrize("shape", [(64, 64), (130, 97)])
@pytest.mark.parametrize(("task", "size"), KINDS, ids=NAMES)
def test_float32_within_rounding(task, size, shape):
    model, x = random_model(task, size), image(shape, torch.float32)
    with torch.no_grad():
        expected = model.double()(x.double())
        found = rewrites.deploy(model.float(), shape)(x)
    assert found.shape == expected.shape
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=5e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("size", ["tiny", "plus_tiny"])
def test_attention_by_token_keeps_the_function(size):
    model, shape = random_model(torch_segmentation, size).double(), (97, 160)
    x, after = image(shape, torch.float64), rewrites.deploy(model, shape)
    tokens.by_token(after)
    assert sum(isinstance(part, tokens.ByToken) for part in after.modules()) == 4
    with torch.no_grad():
        expected = model(x)
        torch.testing.assert_close(after(x), expected, rtol=0, atol=1e-10 * float(expected.abs().max()))


@pytest.mark.parametrize("shape", [(97, 160), (130, 65)])  # Every level has an odd side, or both sides even.
@pytest.mark.parametrize("form", ["double", "by_concatenation", "by_convolution"])
def test_a_detector_keeps_its_function(form, shape):
    model = random_model(torch_detection, "tiny", neck_width=16, tower_convs=1).double()
    nn.init.normal_(model.bbox_head.retina_cls.weight)  # The pyramid has an effect on the logits.
    x = image(shape, torch.float64)
    after = rewrites.deploy(model, shape)
    assert not any(isinstance(module, torch_detection.Enlarge) for module in after.modules())
    if form != "double":
        getattr(doubling, form)(after)
        after.double()
    with torch.no_grad():
        for found, expected in zip(after(x), model(x), strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-10 * float(expected.abs().max()))


def test_the_model_stays_as_it_is():
    model = random_model(torch_segmentation, "tiny")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rewrites.deploy(model, (64, 96), ((0.4, 0.5, 0.6), (0.2, 0.3, 0.4)))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_normalization_inside():
    model, mean, std = random_model(torch_model, "tiny").double(), (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    raw = torch.rand(1, 3, 96, 65, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    normalized = (raw - torch.tensor(mean).double().reshape(3, 1, 1)) / torch.tensor(std).double().reshape(
        3, 1, 1
    )
    with torch.no_grad():
        found, expected = rewrites.deploy(model, (96, 65), (mean, std))(raw), model(normalized)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6 * float(expected.abs().max()))


@pytest.mark.parametrize("last", range(len(rewrites.REWRITES)), ids=[f.__name__ for f in rewrites.REWRITES])
def test_each_rewrite_changes_the_graph(last):
    task = torch_detection if rewrites.REWRITES[last] is doubling.double else torch_segmentation
    model = random_model(task, "tiny")
    before, after = (rewrites.rewritten(model, (64, 64), rewrites.REWRITES[: last + k]) for k in (0, 1))
    values = zip(before.state_dict().values(), after.state_dict().values(), strict=False)
    assert str(before) != str(after) or not all(torch.equal(a, b) for a, b in values)


def test_nothing_but_what_a_delegate_takes():
    model = rewrites.deploy(random_model(torch_segmentation, "tiny"), (64, 64))
    left = {type(module) for module in model.modules()}
    assert not left & {nn.BatchNorm2d, torch_model.SqueezeAxialPositionalEmbedding}


def test_input_below_the_stride():
    with pytest.raises(UserError, match="63x64 is below the model's stride of 64"):
        rewrites.deploy(torch_model.create_model("seaformer_tiny"), (63, 64))
