import numpy as np

from seaformer_jax.detection import boxes


def test_iou_of_hand_computed_boxes():
    a = np.float32([[0, 0, 2, 2], [0, 0, 2, 2], [0, 0, 2, 2], [1, 1, 1, 1]])
    b = np.float32([[1, 1, 3, 3], [2, 0, 4, 2], [0, 0, 2, 1], [1, 1, 1, 1]])
    np.testing.assert_allclose(boxes.iou(a, b), [1 / 7, 0, 0.5, 0], rtol=1e-6)


def test_decode_undoes_encode():
    rng = np.random.default_rng(0)
    corner, size = rng.uniform(0, 50, (20, 2)), rng.uniform(5, 40, (20, 2))
    made = np.concatenate([corner, corner + size], -1).astype(np.float32)
    anchors = np.roll(made, 1, axis=0)
    decoded = boxes.decode(boxes.encode(made, anchors), anchors, np.array([100, 100]))
    np.testing.assert_allclose(decoded, made, rtol=1e-4, atol=1e-4)


def test_decoded_boxes_are_limited_and_clipped():
    anchor = np.float32([[10, 10, 12, 14]])
    decoded = boxes.decode(np.float32([[0, 0, 100, 0]]), anchor, np.array([13, 200]))
    np.testing.assert_allclose(decoded, [[0, 10, 11 + 62.5, 13]], rtol=1e-5)
