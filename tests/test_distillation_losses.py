"""The loss terms of distillation against PyTorch and plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from seaformer_jax import distillation_losses as terms
from seaformer_jax import losses

RNG = np.random.default_rng(0)
STUDENT, TEACHER = 3 * RNG.standard_normal((2, 2, 4, 5, 7)).astype(np.float32)
SHARES = RNG.random((2, 4, 5)).astype(np.float32)


def test_class_shares_and_the_cross_entropy_of_cells():
    labels = RNG.choice([0, 2, 3, 255], size=(2, 8, 12)).astype(np.uint8)
    logits = RNG.standard_normal((2, 2, 3, 3)).astype(np.float32)
    found = terms.class_shares(jnp.asarray(labels), num_classes=3, stride=4)
    for b, i, j in np.ndindex(2, 2, 3):
        cell = labels[b, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4]
        assert found[b, i, j].tolist() == pytest.approx([(cell == c).mean() for c in range(3)])
    # The reference gives every pixel the logits of its cell.
    pixels = torch.from_numpy(logits.repeat(4, 1).repeat(4, 2)).permute(0, 3, 1, 2)
    target = torch.from_numpy(np.where(labels < 3, labels, 255).astype(np.int64))
    expected = F.cross_entropy(pixels, target, ignore_index=255, reduction="sum").item()
    assert 16 * float(losses.soft_cross_entropy(logits, found).sum()) == pytest.approx(expected, rel=1e-5)


def test_feature_distance():
    error = energy = 0
    for index in np.ndindex(SHARES.shape):
        error += SHARES[index] * ((STUDENT[index] - TEACHER[index]) ** 2).sum()
        energy += SHARES[index] * (TEACHER[index] ** 2).sum()
    assert float(terms.feature_distance(STUDENT, TEACHER, SHARES)) == pytest.approx(error / energy, rel=1e-5)


def test_feature_distance_does_not_depend_on_the_scale():
    found = terms.feature_distance(1e3 * STUDENT, 1e3 * TEACHER, SHARES)
    assert float(found) == pytest.approx(float(terms.feature_distance(STUDENT, TEACHER, SHARES)), rel=1e-5)
    assert float(terms.feature_distance(jnp.zeros_like(TEACHER), TEACHER, SHARES)) == pytest.approx(1)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_output_divergence_and_its_gradient(temperature):
    q = torch.tensor(STUDENT, requires_grad=True)
    p = torch.tensor(TEACHER)
    expected = temperature**2 * F.kl_div(
        F.log_softmax(q / temperature, -1), F.softmax(p / temperature, -1), reduction="none"
    ).sum(-1)
    expected.sum().backward()
    found, gradient = jax.value_and_grad(
        lambda x: terms.output_divergence(x, jnp.asarray(TEACHER), temperature).sum()
    )(jnp.asarray(STUDENT))
    assert float(found) == pytest.approx(expected.sum().item(), rel=1e-5)
    np.testing.assert_allclose(gradient, q.grad, atol=1e-5)
    each = terms.output_divergence(STUDENT, TEACHER, temperature)
    np.testing.assert_allclose(each, expected.detach(), rtol=1e-4, atol=1e-5)
    assert each.shape == SHARES.shape and (np.asarray(each) > 0).all()


def test_a_student_like_its_teacher_is_at_zero():
    assert float(terms.feature_distance(TEACHER, TEACHER, SHARES)) == 0
    assert not np.asarray(terms.output_divergence(TEACHER, TEACHER, 2.0)).any()


def test_no_gradient_flows_to_the_teacher():
    def both(teacher):
        distance = terms.feature_distance(STUDENT, teacher, SHARES)
        return distance + terms.output_divergence(STUDENT, teacher, 1.0).sum()

    assert not np.asarray(jax.grad(both)(jnp.asarray(TEACHER))).any()


def test_positions_without_labels_do_not_count():
    shares = np.ones_like(SHARES)
    shares[1, 2:] = 0
    wild = np.where(shares[..., None] > 0, STUDENT, 1e6)
    found, gradient = jax.value_and_grad(terms.feature_distance)(
        jnp.asarray(wild), jnp.asarray(TEACHER), shares
    )
    assert float(found) == pytest.approx(float(terms.feature_distance(STUDENT, TEACHER, shares)), rel=1e-6)
    assert not np.asarray(gradient)[1, 2:].any() and np.asarray(gradient)[0].all()


def test_no_label_at_all_is_no_nan():
    nothing = np.zeros_like(SHARES)
    value, gradient = jax.value_and_grad(terms.feature_distance)(STUDENT, TEACHER, nothing)
    assert float(value) == 0 and not np.asarray(gradient).any()


def test_terms_are_computed_in_float32():
    half = [jnp.asarray(x, jnp.bfloat16) for x in (STUDENT, TEACHER)]
    whole = [x.astype(jnp.float32) for x in half]
    assert (
        terms.output_divergence(*half, 2.0).dtype
        == terms.feature_distance(*half, SHARES).dtype
        == jnp.float32
    )
    np.testing.assert_allclose(
        terms.output_divergence(*half, 2.0), terms.output_divergence(*whole, 2.0), rtol=1e-6
    )
