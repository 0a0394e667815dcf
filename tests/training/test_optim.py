"""Optimisers against torch.optim, and against slow NumPy versions of the rules of timm, LAMB and LARS."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from seaformer_jax import config, errors
from seaformer_jax.training import optim

STEPS = 20
NO_DECAY = {"stages/0/conv/bias", "stages/1/bn/scale", "stages/1/bn/bias"}


def parameters():
    rng = np.random.default_rng(0)

    def normal(*shape):
        return rng.normal(0, 0.3, shape).astype(np.float32)

    return {
        "stages": {
            0: {"conv": {"kernel": normal(3, 3, 4, 8), "bias": normal(8)}},
            1: {"bn": {"scale": np.zeros(8, np.float32), "bias": normal(8)}, "position": normal(1, 5, 8)},
        },
        "head": {"kernel": normal(8, 3)},
    }


def gradients(params):
    rng = np.random.default_rng(1)
    return [
        jax.tree.map(lambda p: rng.normal(0, 1, p.shape).astype(np.float32), params) for _ in range(STEPS)
    ]


def record(name, **changes):
    """A rate that warms up for 4 steps and then falls every 3."""
    c = config.default().optim
    c.update({"name": name, "lr": 0.05, "weight_decay": 0.02, **changes})
    c.schedule.update({"name": "step", "warmup_steps": 4, "decay_steps": 3.0, "decay_rate": 0.8})
    return c


def flat(tree):
    return dict(zip(jax.tree.leaves(optim.parameter_paths(tree)), jax.tree.leaves(tree), strict=True))


def train(c, params, grads):
    tx, _ = optim.create(c, STEPS, jax.eval_shape(lambda: params))
    state, update = tx.init(params), jax.jit(tx.update)
    for g in grads:
        updates, state = update(g, state, params)
        params = optax.apply_updates(params, updates)
    return flat(params)


def rates(c):
    _, schedule = optim.create(c, STEPS, parameters())
    return [float(schedule(step)) for step in range(STEPS)]


def train_slowly(rule, c):
    """Applies `rule(param, grad, lr, weight decay or 0, state) -> param` in float64, leaf by leaf."""
    params, result = parameters(), {}
    grads = [flat(g) for g in gradients(params)]
    for path, p in flat(params).items():
        p, state = p.astype(np.float64), {}
        for g, lr in zip(grads, rates(c), strict=True):
            p = rule(p, g[path].astype(np.float64), lr, 0.0 if path in NO_DECAY else c.weight_decay, state)
        result[path] = p
    return result


def train_torch(make, c):
    """Trains with a torch optimiser of two groups, decayed and not decayed."""
    params = parameters()
    tensors = {path: torch.nn.Parameter(torch.tensor(p)) for path, p in flat(params).items()}
    optimiser = make(
        [
            {"params": [t for path, t in tensors.items() if path not in NO_DECAY]},
            {"params": [t for path, t in tensors.items() if path in NO_DECAY], "weight_decay": 0.0},
        ]
    )
    for g, lr in zip(gradients(params), rates(c), strict=True):
        for group in optimiser.param_groups:
            group["lr"] = lr
        for path, value in flat(g).items():
            tensors[path].grad = torch.tensor(value)
        optimiser.step()
    return {path: t.detach().numpy() for path, t in tensors.items()}


def assert_same(ours, expected, tolerance=1e-6):
    assert ours.keys() == expected.keys()
    for path in ours:
        np.testing.assert_allclose(ours[path], expected[path], rtol=tolerance, atol=tolerance, err_msg=path)


def test_rmsprop_tf_follows_timm():
    c = record("rmsprop_tf", eps=1e-3)

    def rule(p, g, lr, decay, s):
        g = g + decay * p
        s["square"] = s.get("square", 1.0) + (1 - 0.9) * (g * g - s.get("square", 1.0))
        s["buffer"] = 0.9 * s.get("buffer", 0.0) + lr * g / np.sqrt(s["square"] + 1e-3)
        return p - s["buffer"]

    params = parameters()
    assert_same(train(c, params, gradients(params)), train_slowly(rule, c))


def test_adamw_is_torch_adamw():
    c = record("adamw", b2=0.99)
    expected = train_torch(lambda groups: torch.optim.AdamW(groups, betas=(0.9, 0.99), weight_decay=0.02), c)
    params = parameters()
    assert_same(train(c, params, gradients(params)), expected, tolerance=3e-6)


def test_sgd_is_torch_nesterov():
    c = record("sgd")
    expected = train_torch(
        lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.02), c
    )
    params = parameters()
    assert_same(train(c, params, gradients(params)), expected)


def trust(p, update):
    norms = np.linalg.norm(p), np.linalg.norm(update)
    return norms[0] / norms[1] if min(norms) > 0 else 1.0


def test_lamb_follows_the_paper():
    c = record("lamb", b1=0.8, b2=0.95, eps=1e-6)

    def rule(p, g, lr, decay, s):
        t = s["t"] = s.get("t", 0) + 1
        s["m"] = 0.8 * s.get("m", 0.0) + 0.2 * g
        s["v"] = 0.95 * s.get("v", 0.0) + 0.05 * g * g
        update = s["m"] / (1 - 0.8**t) / (np.sqrt(s["v"] / (1 - 0.95**t)) + 1e-6) + decay * p
        return p - lr * update * (trust(p, update) if decay else 1.0)

    params = parameters()
    assert_same(train(c, params, gradients(params)), train_slowly(rule, c))


def test_lars_follows_the_paper():
    c = record("lars", lr=5.0)

    def rule(p, g, lr, decay, s):
        g = g + decay * p
        s["buffer"] = 0.9 * s.get("buffer", 0.0) + lr * g * (1e-3 * trust(p, g) if decay else 1.0)
        return p - s["buffer"]

    params = parameters()
    assert_same(train(c, params, gradients(params)), train_slowly(rule, c), tolerance=3e-6)


@pytest.mark.parametrize("name", ["rmsprop_tf", "adamw", "sgd", "lamb", "lars"])
def test_multipliers_scale_the_updates_of_their_leaves_only(name):
    params, factors = parameters(), (("head/.*", 10.0), (r".*/kernel", 0.5))
    tx, _ = optim.create(record(name), STEPS, params)
    scaled, _ = optim.create(record(name, lr_multipliers=factors), STEPS, params)
    (g, *_), state, scaled_state = gradients(params), tx.init(params), scaled.init(params)
    for _ in range(3):
        plain, state = tx.update(g, state, params)
        changed, scaled_state = scaled.update(g, scaled_state, params)
        expected = {"head/kernel": 10.0, "stages/0/conv/kernel": 0.5}  # The first match wins.
        for path, update in flat(plain).items():
            np.testing.assert_allclose(flat(changed)[path], update * expected.get(path, 1.0), rtol=1e-6)


def test_decay_moves_exactly_the_leaves_outside_no_decay():
    params = jax.tree.map(jnp.ones_like, parameters())
    zeros = jax.tree.map(jnp.zeros_like, params)
    result = train(record("sgd", no_decay=(r".*bias", "head/.*|stages")), params, [zeros] * 5)
    moved = {path for path, p in result.items() if np.any(p != 1)}
    assert moved == {"stages/0/conv/kernel", "stages/1/bn/scale", "stages/1/position"}


def test_clipping_is_by_the_global_norm():
    c = record("sgd", lr=1.0, momentum=0.0, clip_norm=1.0, no_decay=(), weight_decay=0.0)
    c.schedule.warmup_steps = 0
    params = {"a": jnp.zeros(1), "b": jnp.zeros(1)}
    large = train(c, params, [{"a": jnp.array([3.0]), "b": jnp.array([4.0])}])
    np.testing.assert_allclose([large["a"][0], large["b"][0]], [-0.6, -0.8], rtol=1e-6)
    small = train(c, params, [{"a": jnp.array([0.3]), "b": jnp.array([0.4])}])
    np.testing.assert_allclose([small["a"][0], small["b"][0]], [-0.3, -0.4], rtol=1e-6)


@pytest.mark.parametrize(
    "changes", [{"no_decay": (r".*bias", "pos_emb.*")}, {"lr_multipliers": (("pos_emb.*", 2.0),)}]
)
def test_a_pattern_without_a_match_is_an_error(changes):
    with pytest.raises(errors.UserError, match=r"'pos_emb.\*' matches none of the 6 .* head/kernel"):
        optim.create(record("adamw", **changes), STEPS, parameters())


def test_patterns_match_whole_paths():
    with pytest.raises(errors.UserError, match="'bias' matches none"):
        optim.create(record("adamw", no_decay=("bias",)), STEPS, parameters())
