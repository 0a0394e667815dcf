"""Networks that end after each part, and the table of each part's share of the time."""

import pytest
import torch

from convert.graph import partial_networks, seeded_networks
from convert.latency import part_costs
from convert.latency.turns import STEPS

SIZE = (64, 128)
IMAGES = torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def segmenter() -> torch.nn.Module:
    return seeded_networks.seeded("segmentation", "seaformer_tiny", SIZE)


@torch.no_grad()
def test_each_network_is_the_model_as_far_as_its_part(segmenter):
    networks = partial_networks.up_to(segmenter)
    assert list(networks) == ["stem", "context branch", "FFN", "SEA attention", "fusion", "head"]
    found = {name: network(IMAGES) for name, network in networks.items()}
    backbone, head = segmenter.backbone, segmenter.decode_head
    features = backbone.forward_features(IMAGES)
    torch.testing.assert_close(found["stem"], features[1])
    torch.testing.assert_close(found["SEA attention"], features[-1])
    torch.testing.assert_close(head.conv_seg(torch.relu(head.linear_fuse(found["fusion"]))), found["head"])
    torch.testing.assert_close(found["head"], segmenter(IMAGES))


@torch.no_grad()
def test_layers_lose_attention_or_everything(segmenter):
    networks = partial_networks.up_to(segmenter)
    backbone = segmenter.backbone
    bare = with_ffn = backbone.smb3(backbone.smb2(backbone.smb1(IMAGES)))
    for i in (4, 5):
        bare, with_ffn = (backbone.get_submodule(f"smb{i}")(x) for x in (bare, with_ffn))
        for block in backbone.get_submodule(f"trans{i - 3}").transformer_blocks:
            with_ffn = with_ffn + block.mlp(with_ffn)
    torch.testing.assert_close(networks["context branch"](IMAGES), bare)
    torch.testing.assert_close(networks["FFN"](IMAGES), with_ffn)
    assert not torch.allclose(bare, with_ffn)


@torch.no_grad()
def test_classifiers_have_no_fusion():
    model = seeded_networks.seeded("classification", "seaformer_tiny", (64, 64))
    networks = partial_networks.up_to(model)
    assert list(networks) == ["stem", "context branch", "FFN", "SEA attention", "head"]
    features = networks["SEA attention"](IMAGES[..., :64])
    torch.testing.assert_close(model.linear(features.mean((2, 3))), model(IMAGES[..., :64]))


def test_seeded_models_are_the_same_every_time(segmenter):
    again = seeded_networks.seeded("segmentation", "seaformer_tiny", SIZE)
    for name, value in segmenter.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    logits = segmenter(torch.from_numpy(seeded_networks.picture(SIZE)).permute(0, 3, 1, 2))
    assert logits.std() > 0.1 and len(logits.argmax(1).unique()) > 1  # No silent network.


def test_the_table_by_hand():
    def record(name: str, network: float) -> dict:
        samples = dict(zip(STEPS, ([1.0], [network, network, 99.0], [2.0], [0.0]), strict=True))
        return {"bundle": name, "samples": samples}

    text = part_costs.table({"unit": "ms", "bundles": [record("stem", 4.0), record("FFN", 7.0)]})
    assert text.splitlines()[2:] == [
        "| pre-processing | 1 | 10.0 |",
        "| stem | 4 | 40.0 |",
        "| FFN | 3 | 30.0 |",
        "| post-processing | 2 | 20.0 |",
        "| whole | 10 | 100.0 |",
    ]
