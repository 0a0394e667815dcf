"""Attention among tokens whose channels lie side by side, as they do in LiteRT: for its half precision.

XNNPACK multiplies matrices in half precision only if the first one is not transposed. LiteRT's converter transposes
the queries inside the product wherever they are written with the tokens last.
"""

from torch import Tensor, nn

from convert.graph.layers import AxialAttention
from convert.graph.replacing import replace


class ByToken(AxialAttention):
    """`AxialAttention` for a batch of 1, with queries, keys and values as [heads, N, key or value]."""

    def __init__(self, axial: AxialAttention):
        nn.Module.__init__(self)
        self.__dict__.update(axial.__dict__)

    def attend(self, qkv: Tensor, positions: nn.Module) -> Tensor:
        q, k, v = (self._in_heads(t) for t in self.split(qkv, positions))
        scores = self.product(q, k.transpose(-1, -2)) * self.scale  # [heads, N queries, N keys]
        attended = self.product(scores.softmax(dim=-1), v).transpose(0, 1)
        return attended.reshape(1, -1, self.widths[2]).transpose(1, 2)

    def _in_heads(self, t: Tensor) -> Tensor:
        """[1, C, N] -> [heads, N, C / heads]."""
        return t.transpose(1, 2).reshape(t.shape[2], self.lead[-1], -1).transpose(0, 1)


def by_token(model: nn.Module) -> None:
    """Replaces every `AxialAttention` by `ByToken`, in place."""
    replace(model, AxialAttention, ByToken)
