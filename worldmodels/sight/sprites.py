"""Points to a picture: a learned patch of colours pasted at each point, over a learned background.

After Jaderberg et al. 2015 (arXiv:1506.02025: sampling that is exact between pixels) and Jaques et al. 2020
(arXiv:1905.11169: templates and masks as the decoder of a physical state). A patch has two texels a pixel.
Legend: N pictures, K bodies, S x S pixels, W x W a patch in pixels, P x P texels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TEXELS = 2
"""Texels a pixel."""


class Sprites(nn.Module):
    """Places (N, K, 2) in half-widths to pictures (N, 3, S, S), nearly in [0, 1].

    ``reach``: pixels from a patch's centre to its edge. ``order``: which body is in front, last of all.
    """

    order: Tensor

    def __init__(self, bodies: int, image_size: int, reach: int) -> None:
        super().__init__()
        self.image_size, self.reach = image_size, reach
        side = 2 * TEXELS * reach + 1
        self.background = nn.Parameter(torch.zeros(3, image_size, image_size))
        self.mask = nn.Parameter(torch.zeros(bodies, 1, side, side))
        self.colour = nn.Parameter(torch.zeros(bodies, 3, side, side))
        self.register_buffer("order", torch.arange(bodies))

    def begin(self, background: Tensor, colours: Tensor, radius: Tensor) -> None:
        """Start as discs of one colour."""
        texel = torch.arange(self.mask.shape[-1]) - TEXELS * self.reach
        distance = (
            torch.hypot(*torch.meshgrid(texel.float(), texel.float(), indexing="ij")) / TEXELS
        )
        with torch.no_grad():
            self.background.copy_(background)
            self.colour.copy_(colours[:, :, None, None].expand_as(self.colour))
            self.mask.copy_(2.0 * (radius[:, None, None] - distance).clamp(-4.0, 4.0).unsqueeze(1))

    def forward(self, points: Tensor) -> Tensor:
        """Draw ``points``; a body beyond the edge is not seen."""
        size, reach = self.image_size, self.reach + 1
        canvas = F.pad(self.background, (2 * reach,) * 4).expand(len(points), -1, -1, -1)
        wide = canvas.shape[-1]
        # Pixels from the canvas's corner; a body far outside waits in the margin, which is cut off.
        place = ((points + 1.0) * (0.5 * size) - 0.5 + 2 * reach).clamp(reach, size + 3 * reach - 1)
        steps = torch.arange(-reach, reach + 1, device=points.device)
        canvas = canvas.flatten(2)
        for body in self.order.tolist():
            at = place[:, body]
            corner = at.detach().round().long()
            columns, rows = corner[:, :1] + steps, corner[:, 1:] + steps
            index = (rows.unsqueeze(2) * wide + columns.unsqueeze(1)).flatten(1)
            mask, colour = self._patch(body, columns - at[:, :1], rows - at[:, 1:])
            index = index.unsqueeze(1).expand(-1, 3, -1)
            behind = canvas.gather(2, index)
            canvas = canvas.scatter(2, index, behind + mask * (colour - behind))
        edge = 2 * reach
        return canvas.unflatten(2, (wide, wide))[:, :, edge : edge + size, edge : edge + size]

    def _patch(self, body: int, columns: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Mask (N, 1, W W) and colours (N, 3, W W) at pixels (N, W) from the body's place."""
        # grid_sample's own unit is half a patch, to the centres of its outermost texels.
        x = (columns / self.reach).unsqueeze(1).expand(-1, rows.shape[1], -1)
        y = (rows / self.reach).unsqueeze(2).expand(-1, -1, columns.shape[1])
        texels = torch.cat((torch.sigmoid(self.mask[body]), self.colour[body]))
        found = F.grid_sample(
            texels.expand(len(columns), -1, -1, -1), torch.stack((x, y), 3), align_corners=True
        ).flatten(2)
        inside = ((x.abs() <= 1.0) & (y.abs() <= 1.0)).flatten(1).unsqueeze(1)
        return found[:, :1] * inside, found[:, 1:]
